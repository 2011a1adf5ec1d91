//! A daemon in a thread: HTTP/1.1 on a unix socket, answers by method and path, requests remembered.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// One scripted answer.
#[derive(Clone)]
pub(crate) enum Answer {
    Json(u16, &'static str),
    Empty(u16),
    /// `101`, then these bytes, then what the client sends comes back in frames of stdout, then the end.
    Echo(Vec<u8>),
}

/// A request as it arrived, without its version: `POST /containers/create?name=x`.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) body: String,
}

pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Script = Arc<Mutex<Vec<(&'static str, VecDeque<Answer>)>>>;

impl Daemon {
    /// Speaks API `version`; answers requests whose line begins as one of `script`, repeating the last answer to it.
    pub(crate) fn start(version: &'static str, script: &[(&'static str, &[Answer])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("d.sock")).unwrap();
        let script: Script = Arc::new(Mutex::new(
            script
                .iter()
                .map(|(line, answers)| (*line, answers.iter().cloned().collect()))
                .collect(),
        ));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, version, &script, &log));
            }
        });
        Self { directory, seen }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("d.sock")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

fn serve(stream: UnixStream, version: &str, script: &Script, log: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some((method, target, body)) = request(&mut reader) {
        let (asked, path) = match target.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
            Some((asked, path)) => (asked.to_owned(), format!("/{path}")),
            None => (version.to_owned(), target),
        };
        let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
        let line = format!("{method} {path}");
        let answer = match minor(&asked) > minor(version) {
            true => {
                let words = format!(
                    r#"{{"message":"client version {asked} is too new. Maximum supported API version is {version}"}}"#
                );
                Answer::Json(400, Box::leak(words.into_boxed_str()))
            }
            false => {
                log.lock().unwrap().push(Seen { line: line.clone(), body });
                next(script, &line)
            }
        };
        let head = |status: u16, more: &str| {
            format!("HTTP/1.1 {status} X\r\nApi-Version: {version}\r\n{more}\r\n\r\n")
        };
        match answer {
            Answer::Json(status, text) => {
                let more =
                    format!("Content-Type: application/json\r\nContent-Length: {}", text.len());
                let text = if method == "HEAD" { "" } else { text };
                writer
                    .write_all(format!("{}{text}", head(status, &more)).as_bytes())
                    .unwrap_or_default();
            }
            Answer::Empty(status) => {
                let more = if status == 204 { "X: y" } else { "Content-Length: 0" };
                writer.write_all(head(status, more).as_bytes()).unwrap_or_default();
            }
            Answer::Echo(first) => {
                writer
                    .write_all(head(101, "Connection: Upgrade\r\nUpgrade: tcp").as_bytes())
                    .unwrap();
                writer.write_all(&first).unwrap();
                let mut input = Vec::new();
                reader.read_to_end(&mut input).unwrap();
                if !input.is_empty() {
                    writer
                        .write_all(&api::stream::frame(api::stream::Stream::Stdout, &input))
                        .unwrap();
                }
                return;
            }
        }
    }
}

fn next(script: &Script, line: &str) -> Answer {
    let mut script = script.lock().unwrap();
    match script.iter_mut().find(|(known, _)| line.starts_with(known)) {
        Some((_, answers)) if answers.len() > 1 => answers.pop_front().unwrap(),
        Some((_, answers)) => answers.front().unwrap().clone(),
        None => Answer::Json(404, r#"{"message":"page not found"}"#),
    }
}

fn request(reader: &mut BufReader<UnixStream>) -> Option<(String, String, String)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= line == "transfer-encoding: chunked";
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    }
    Some((method, target, String::from_utf8_lossy(&body).into_owned()))
}
