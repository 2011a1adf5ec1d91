//! Where failures are told: on standard error, and in the file whose last line the calling engine reads.

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

    /// As logrus writes it: containerd's shim looks for the last line of level error, conmon passes standard error on.
    pub(super) fn error(&mut self, message: &str) {
        self.write("error", message);
    }

    fn write(&mut self, level: &str, message: &str) {
        let time = rfc3339();
        let plain = format!("time={time:?} level={level} msg={message:?}\n");
        let line = match self.json {
            true => format!("{}\n", json!({"level": level, "msg": message, "time": time})),
            false => plain.clone(),
        };
        let to_stderr = if self.file.is_some() || !self.json { &plain } else { &line };
        // There is nowhere left to tell of a log that cannot be written.
        let _told = std::io::stderr().write_all(to_stderr.as_bytes());
        let _logged = self.file.as_mut().map(|file| file.write_all(line.as_bytes()));
    }
}

fn rfc3339() -> String {
    Timestamp::now().fixed_nanos()
}
