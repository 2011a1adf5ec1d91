//! What users see. Everything shown passes here; a reader who has left is no reason to complain.

use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal, Write};

use crate::failure::{Failure, Result};

/// Standard output and error of this process.
pub(crate) struct Printer {
    out: RefCell<BufWriter<io::Stdout>>,
}

impl Default for Printer {
    fn default() -> Self {
        Self { out: RefCell::new(BufWriter::with_capacity(32 << 10, io::stdout())) }
    }
}

impl Printer {
    /// Prints as it is.
    pub(crate) fn text(&self, text: &str) -> Result {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn line(&self, text: &str) -> Result {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result {
        self.out.borrow_mut().write_all(bytes).map_err(|err| gone(&err))
    }

    /// What was printed is seen now.
    pub(crate) fn flush(&self) -> Result {
        self.out.borrow_mut().flush().map_err(|err| gone(&err))
    }

    /// One line on standard error, after all that was printed before.
    pub(crate) fn complain(&self, text: &str) {
        self.complain_text(&format!("{text}\n"));
    }

    /// Text on standard error. Nobody listening is not our failure.
    pub(crate) fn complain_text(&self, text: &str) {
        if self.flush().is_ok() {
            eprint_quietly(text);
        }
    }

    /// Bytes on standard error, after all that was printed before.
    pub(crate) fn error_bytes(&self, bytes: &[u8]) -> Result {
        self.flush()?;
        io::stderr().write_all(bytes).map_err(|err| gone(&err))
    }

    pub(crate) fn out_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub(crate) fn err_is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }
}

fn eprint_quietly(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

fn gone(err: &io::Error) -> Failure {
    match err.kind() {
        io::ErrorKind::BrokenPipe => Failure::unheard(),
        _ => Failure::new(1, format!("write /dev/stdout: {err}")),
    }
}
