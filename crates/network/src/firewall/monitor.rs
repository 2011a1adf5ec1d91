//! Hears when somebody else changes the host's rules. A table of ours that we own cannot be changed by others; what they do
//! beside it can still stop our packets.

use stdx::{Context, Result};
use sys::netlink::Protocol;

use super::foreign;
use super::nft::{CHAIN_TABLE, NEW_CHAIN, SUBSYSTEM, text_of};
use crate::netlink::messages;
use crate::watch::Source;

/// Those who hear of changes to nf_tables: the seventh group.
const TABLES: u32 = 1 << 6;

/// Calls `changed` after changes that concern the table, but not after those that the socket with the number `own` made.
pub(crate) fn source(
    table: String,
    own: u32,
    changed: impl Fn() + Send + 'static,
) -> Result<Source> {
    let news = sys::netlink::open(Protocol::Netfilter, TABLES)
        .context(|| "cannot watch the firewall".to_owned())?;
    let concerns = Box::new(move |news: &[u8]| concerns(news, &table, own));
    Ok(Source { news, concerns, changed: Box::new(changed) })
}

/// Whether any of these messages tells of a change that can matter to us.
fn concerns(news: &[u8], table: &str, own: u32) -> bool {
    messages(news).any(|message| {
        let Some(body) = message.body.get(4..) else { return false };
        if message.port == own || message.kind & 0xff00 != SUBSYSTEM {
            return false;
        }
        let concerned = text_of(body, CHAIN_TABLE);
        concerned == table || foreign::concerned(&concerned) || message.kind == NEW_CHAIN
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::thread;

    use sys::ns::unshare;
    use sys::process::CloneFlags;

    use super::*;
    use crate::netlink::Socket;
    use crate::watch::Monitor;

    #[test]
    fn others_are_heard_and_we_are_not() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let host = thread::spawn(|| {
            unshare(CloneFlags::NEWNET).unwrap();
            let own = Socket::netfilter().unwrap();
            let (told, changes) = channel();
            let heard = move || told.send(()).unwrap();
            let source = source("gantry".to_owned(), own.port().unwrap(), heard).unwrap();
            let monitor = Monitor::start(vec![source]);
            let nft =
                |words: &str| assert!(Command::new("nft").arg(words).status().unwrap().success());
            nft("add table inet gantry");
            changes.recv().unwrap();
            nft("add table ip filter");
            changes.recv().unwrap();
            nft("add table inet theirs; add set inet theirs s { type ipv4_addr; }");
            nft("add element inet theirs s { 10.0.0.1 }");
            nft("delete table inet gantry");
            changes.recv().unwrap();
            drop(monitor.unwrap());
            assert_eq!(changes.try_iter().count(), 0, "what is theirs is theirs");
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
