//! A served router on a socket of its own, and a client that sees every byte.

use std::path::{Path, PathBuf};

use axum::Router;
use server::listen::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Serves until dropped or stopped.
pub(crate) struct House {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<stdx::Result<()>>,
}

impl House {
    pub(crate) fn serve(router: Router) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::unix(&dir.path().join("sock"), &[]).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server::serve_router(vec![listener], router, async move {
            let (Ok(()) | Err(_)) = stopped.await;
        }));
        Self { dir, stop: Some(stop), served }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    /// Sends bytes, and reads until the server closes.
    pub(crate) async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        let mut answer = Vec::new();
        // A server that closes with our bytes unread resets the connection; what it said before counts.
        let (Ok(()) | Err(_)) = stream.write_all(bytes).await;
        let (Ok(_) | Err(_)) = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// One request without a body: status line and headers, and the body.
    pub(crate) async fn ask(&self, line: &str) -> (String, String) {
        let answer = self
            .say(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.await.unwrap().unwrap();
        assert!(UnixStream::connect(self.dir.path().join("sock")).await.is_err());
    }
}

/// Reads until `wanted` stands at the end of what was read.
pub(crate) async fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.ends_with(wanted.as_bytes()) {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "ended before {wanted:?}: {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(seen).unwrap()
}

/// The unix socket's mode bits.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}
