//! A plugin of Docker's protocol, written by a test: a socket in a directory, and a closure that answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// What the plugin answers.
pub enum Reply {
    /// 200 and a body.
    Json(Value),
    /// Another status and a body.
    Refuse(u16, Value),
    /// These bytes and the end of the connection; none at all is a plugin that died.
    Raw(Vec<u8>),
    /// These bytes, one chunk after another, until there is nobody who gives more.
    Stream(Receiver<Vec<u8>>),
    /// Nothing, for as long as somebody listens.
    Silence,
}

type Handler = dyn Fn(&str, &Value) -> Reply + Send + Sync;

/// Listens for as long as it lives. What it was asked is remembered.
pub struct Plugin {
    path: PathBuf,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Plugin {
    /// Listens at `directory/NAME.sock`.
    pub fn start(
        directory: &Path,
        name: &str,
        handler: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        std::fs::create_dir_all(directory).expect("a place for plugins");
        let path = directory.join(format!("{name}.sock"));
        let _stale = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let calls = Arc::new(Mutex::default());
        let handler: Arc<Handler> = Arc::new(handler);
        let remembered = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, calls) = (Arc::clone(&handler), Arc::clone(&remembered));
                std::thread::spawn(move || serve(stream, &*handler, &calls));
            }
        });
        Self { path, calls }
    }

    /// What it was asked so far.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The questions of one kind.
    pub fn asked(&self, method: &str) -> Vec<Value> {
        let of_kind = |(asked, question)| (asked == method).then_some(question);
        self.calls().into_iter().filter_map(of_kind).collect()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn serve(stream: UnixStream, handler: &Handler, calls: &Mutex<Vec<(String, Value)>>) {
    let Some((method, question)) = hear(&stream) else { return };
    calls.lock().unwrap_or_else(PoisonError::into_inner).push((method.clone(), question.clone()));
    let mut stream = stream;
    let mut answer = |status: u16, body: &Value| {
        let body = body.to_string();
        let length = body.len();
        // Whoever asked may have gone.
        let _gone = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
    };
    match handler(&method, &question) {
        Reply::Json(body) => answer(200, &body),
        Reply::Refuse(status, body) => answer(status, &body),
        Reply::Raw(bytes) => drop(stream.write_all(&bytes)),
        Reply::Stream(pieces) => {
            let mut piece =
                stream.write_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n");
            while let (Ok(()), Ok(bytes)) = (&piece, pieces.recv()) {
                let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
                piece = stream.write_all(&chunk);
            }
            let _gone = stream.write_all(b"0\r\n\r\n");
        }
        Reply::Silence => drop(stream.read(&mut [0])),
    }
}

fn hear(stream: &UnixStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let method = first.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let mut fields = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        fields.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; fields.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((method, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
