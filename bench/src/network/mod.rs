//! Networks of containers: joining and leaving them, the names on them, and what passes through them.
//!
//! Who asks and who answers are threads of this program, in the containers' own network namespaces: both engines are
//! asked by the same client and answered by the same server, and nothing is measured but what lies between.

mod dns;
mod membership;
mod place;
mod site;
mod streams;

use anyhow::Result;

use crate::api::rows_side_by_side;
use crate::engine::Engine;
pub(crate) use crate::network::place::Place;
use crate::network::site::Site;
use crate::options::Options;
use crate::table::{Budget, Table, Unit};
use crate::turns::{Turns, Values};

/// No worse than theirs.
const LEVEL: Option<Budget> = Some(Budget { ratio: 1.0, words: "theirs" });

/// A row and what is promised of it.
type Promise = (&'static str, Unit, Option<Budget>);

/// What of all this can be measured alone.
pub(crate) const GROUPS: [&str; 3] = ["connect", "dns", "tcp"];

pub(crate) fn measure(
    options: &Options,
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let own = Site::new(ours)?;
    let peer = theirs.map(Site::new).transpose()?;
    let mut compare = |turns: &Turns, rows: &[Promise], round: &dyn Fn(&Site) -> Result<Values>| {
        let of = |engine: &Engine| match &peer {
            Some(peer) if engine.name != ours.name => round(peer),
            _ => round(&own),
        };
        rows_side_by_side(turns, ours, theirs, table, rows, of)
    };
    if options.wants("connect") {
        compare(turns, &membership::ROWS, &membership::round)?;
    }
    if options.wants("dns") {
        compare(turns, &dns::ROWS, &dns::round)?;
    }
    if options.wants("tcp") {
        for path in streams::PATHS {
            compare(turns, &path.rows(), &|site: &Site| streams::round(site, path))?;
        }
    }
    Ok(())
}
