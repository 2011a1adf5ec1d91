//! Images: from registries, files and containers.

pub mod history;
pub mod import;
pub mod inspect;
pub mod load;
pub mod ls;
pub mod prune;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod tag;

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
