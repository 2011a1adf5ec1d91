//! Images: from registries, files and containers.

pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rm;
pub(crate) mod save;
pub(crate) mod tag;

use crate::command::Call;
use crate::failure::Result;

/// Shows an answer's progress on standard output.
async fn show(call: &Call<'_>, response: client::Response) -> Result {
    let printer = &call.cli.printer;
    let print = |text: &str| {
        printer.text(text)?;
        printer.flush()
    };
    crate::progress::show(response, printer.out_is_terminal(), print, |_| Ok(())).await
}
