//! Terminals: their size.

use std::os::fd::BorrowedFd;

use rustix::termios::{Winsize, tcsetwinsize};
use stdx::{Context, Result};

use crate::protocol::Size;

/// Whoever sits behind the terminal gets SIGWINCH from the kernel.
pub(crate) fn resize(master: BorrowedFd<'_>, size: Size) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).context(|| "cannot resize the terminal".to_owned())
}
