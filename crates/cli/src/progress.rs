//! Progress of pulls, pushes and loads: bars that stay in place on a terminal, plain lines otherwise.

use std::collections::HashMap;

use serde::Deserialize;
use stdx::units::human_size_precise;

use crate::failure::{Failure, Result};

/// One message of the daemon's stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message {
    pub(crate) stream: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) error: Option<String>,
    #[serde(rename = "errorDetail")]
    pub(crate) error_detail: Option<ErrorDetail>,
    #[serde(rename = "progressDetail")]
    pub(crate) detail: Option<Detail>,
    pub(crate) aux: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorDetail {
    pub(crate) code: Option<i64>,
    pub(crate) message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Detail {
    pub(crate) current: Option<i64>,
    pub(crate) total: Option<i64>,
    pub(crate) start: Option<i64>,
    pub(crate) hidecounts: bool,
    pub(crate) units: String,
}

/// Where lines are written to, and how.
pub(crate) struct Display {
    terminal: bool,
    columns: usize,
    /// Lines of the terminal by the id they belong to.
    lines: HashMap<String, usize>,
}

impl Display {
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            columns: crate::tty::size().map_or(80, |(_, columns)| usize::from(columns)),
            lines: HashMap::new(),
        }
    }

    /// What to print for a message.
    pub(crate) fn render(&mut self, message: &Message) -> String {
        let progress = message.detail.as_ref().map(|detail| self.bar(detail)).unwrap_or_default();
        // Off a terminal the bars would only be noise.
        if !self.terminal && !progress.is_empty() {
            return String::new();
        }
        let mut out = String::new();
        let id = message.id.as_deref().filter(|id| !id.is_empty());
        let mut below = 0;
        if self.terminal {
            match id {
                Some(id) if message.detail.is_some() => {
                    let count = self.lines.len();
                    let line = *self.lines.entry(id.to_owned()).or_insert_with(|| {
                        out.push('\n');
                        count
                    });
                    below = self.lines.len() - line;
                    out.push_str(&format!("\x1b[{below}A"));
                }
                _ => self.lines.clear(),
            }
        }
        out.push_str(&self.line(message, id, &progress));
        if below > 0 {
            out.push_str(&format!("\x1b[{below}B"));
        }
        out
    }

    fn line(&self, message: &Message, id: Option<&str>, progress: &str) -> String {
        let mut out = String::new();
        let mut end = String::new();
        if self.terminal && message.stream.is_none() && !progress.is_empty() {
            out.push_str("\x1b[2K\r");
            end = "\r".to_owned();
        } else if self.terminal
            && message.stream.is_none()
            && id.is_some()
            && message.detail.is_some()
        {
            out.push_str("\x1b[2K\r");
        }
        if let Some(id) = id {
            out.push_str(&format!("{id}: "));
        }
        match (&message.stream, progress) {
            (_, bar) if !bar.is_empty() && self.terminal => {
                out.push_str(&format!(
                    "{} {bar}{end}",
                    message.status.as_deref().unwrap_or_default()
                ));
            }
            (Some(stream), _) => out.push_str(&format!("{stream}{end}")),
            (None, _) => {
                out.push_str(&format!("{}{end}\n", message.status.as_deref().unwrap_or_default()))
            }
        }
        out
    }

    /// `[====>      ]  1.2MB/3.4MB`
    fn bar(&self, detail: &Detail) -> String {
        let current = detail.current.unwrap_or(0);
        let total = detail.total.unwrap_or(0);
        if current <= 0 && total <= 0 {
            return String::new();
        }
        if total <= 0 {
            return match detail.units.as_str() {
                "" => format!("{:>8}", human_size_precise(current as f64, 4)),
                units => format!("{current} {units}"),
            };
        }
        let mut out = String::new();
        if self.columns > 110 {
            let percent = ((current as f64 / total as f64 * 100.0) as usize / 2).min(50);
            let ahead = 50 - percent;
            out.push_str(&format!("[{}>{}] ", "=".repeat(percent), " ".repeat(ahead)));
        }
        if !detail.hidecounts {
            let counts = match detail.units.as_str() {
                "" => format!(
                    "{:>8}/{}",
                    human_size_precise(current as f64, 4),
                    human_size_precise(total as f64, 4)
                ),
                units => format!("{current}/{total} {units}"),
            };
            // A total that was wrong is not shown beside a larger current.
            match (detail.units.is_empty(), current > total) {
                (true, true) => {
                    out.push_str(&format!("{:>8}", human_size_precise(current as f64, 4)))
                }
                _ => out.push_str(&counts),
            }
        }
        out
    }
}

/// Takes a stream of JSON messages apart as its bytes arrive.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// The whole documents that are there now. Documents may stand on lines of their own or not.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>> {
        self.0.extend_from_slice(bytes);
        let mut documents = serde_json::Deserializer::from_slice(&self.0).into_iter::<Message>();
        let mut messages = Vec::new();
        let mut used = 0;
        while let Some(document) = documents.next() {
            match document {
                Ok(message) => {
                    messages.push(message);
                    used = documents.byte_offset();
                }
                Err(err) if err.is_eof() => break,
                Err(err) => {
                    return Err(Failure::words(format!(
                        "cannot read the daemon's progress: {err}"
                    )));
                }
            }
        }
        self.0.drain(..used);
        Ok(messages)
    }
}

/// Shows a whole answer; an error in it ends the command with its words.
pub(crate) async fn show(
    mut response: client::Response,
    terminal: bool,
    mut print: impl FnMut(&str) -> Result,
    mut aux: impl FnMut(&serde_json::Value) -> Result,
) -> Result {
    let mut display = Display::new(terminal);
    let mut lines = Lines::default();
    while let Some(chunk) = response.chunk().await? {
        for message in lines.push(&chunk)? {
            if let Some(words) = message
                .error_detail
                .as_ref()
                .map(|detail| detail.message.clone())
                .or(message.error.clone())
            {
                let status = message
                    .error_detail
                    .and_then(|detail| detail.code)
                    .and_then(|code| u8::try_from(code).ok());
                return Err(Failure::new(status.filter(|code| *code != 0).unwrap_or(1), words));
            }
            match &message.aux {
                Some(value) => aux(value)?,
                None => print(&display.render(&message))?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(terminal: bool, stream: &str) -> String {
        let mut display = Display::new(terminal);
        let messages = Lines::default().push(stream.as_bytes()).unwrap();
        messages.iter().map(|message| display.render(message)).collect()
    }

    const PULL: &str = r#"{"status":"Pulling from library/busybox","id":"latest"}
        {"status":"Downloading","progressDetail":{"current":512,"total":1024},"id":"abc"}
        {"status":"Pull complete","progressDetail":{},"id":"abc"}
        {"status":"Status: done"}"#;

    #[test]
    fn plain_lines() {
        assert_eq!(
            render(false, PULL),
            "latest: Pulling from library/busybox\nabc: Pull complete\nStatus: done\n"
        );
    }

    #[test]
    fn in_place_on_a_terminal() {
        assert_eq!(
            render(true, PULL),
            "latest: Pulling from library/busybox\n\
             \n\x1b[1A\x1b[2K\rabc: Downloading     512B/1.024kB\r\x1b[1B\
             \x1b[1A\x1b[2K\rabc: Pull complete\n\x1b[1B\
             Status: done\n"
        );
    }

    #[test]
    fn pieces_of_documents() {
        let mut lines = Lines::default();
        assert!(lines.push(br#"{"status":"a"#).unwrap().is_empty());
        assert_eq!(lines.push(br#""}{"status":"b"}"#).unwrap().len(), 2);
    }
}
