//! Where failures and remarks are told: in the file whose last line the calling engine reads, else on standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::json;
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};

#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<File>,
    json: bool,
}

impl Log {
    pub(super) fn open(path: Option<&Path>, format: &str) -> Result<Self> {
        let json = match format {
            "text" => false,
            "json" => true,
            other => return Err(Error::invalid(format!("invalid log-format: {other}"))),
        };
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .context(|| format!("cannot open {}", path.display()))
        };
        let file = path.filter(|path| !path.as_os_str().is_empty()).map(open).transpose()?;
        Ok(Self { file, json })
    }

    /// As logrus writes it: containerd's shim looks for the last line of level error. conmon passes on standard error,
    /// which has the bare words when the line went elsewhere.
    pub(super) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            // There is nowhere left to tell of it.
            let _told = std::io::stderr().write_all(format!("{message}\n").as_bytes());
        }
    }

    /// What could not be done exactly as asked, and does no harm.
    pub(super) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    fn write(&self, level: &str, message: &str) {
        let time = rfc3339();
        let line = match self.json {
            true => format!("{}\n", json!({"level": level, "msg": message, "time": time})),
            false => format!("time={time:?} level={level} msg={message:?}\n"),
        };
        // There is nowhere left to tell of a log that cannot be written.
        let _told = match &self.file {
            Some(file) => (&mut &*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn rfc3339() -> String {
    Timestamp::now().fixed_nanos()
}
