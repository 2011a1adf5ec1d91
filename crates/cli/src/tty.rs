//! The terminal: its size, raw mode, and who is one.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{self, OptionalActions, Termios};

/// Columns of the terminal on standard input, as Docker asks for them; `otherwise` where there is none.
pub(crate) fn columns(otherwise: usize) -> usize {
    match termios::tcgetwinsize(io::stdin()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => otherwise,
    }
}

/// Rows and columns of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| (size.ws_row, size.ws_col))
        .filter(|(rows, columns)| (*rows, *columns) != (0, 0))
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// A terminal in raw mode, until dropped.
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Makes the terminal behind `fd` raw. Without a terminal there is nothing to do.
    pub(crate) fn enter(fd: impl AsFd) -> io::Result<Option<Self>> {
        if !termios::isatty(&fd) {
            return Ok(None);
        }
        let terminal = fd.as_fd().try_clone_to_owned()?;
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal, before }))
    }

    /// Asks for a secret: as typed, but not shown.
    pub(crate) fn hide_input() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let terminal = stdin.as_fd().try_clone_to_owned()?;
        let before = termios::tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(termios::LocalModes::ECHO);
        termios::tcsetattr(&terminal, OptionalActions::Now, &hidden)?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before).unwrap_or_default();
    }
}
