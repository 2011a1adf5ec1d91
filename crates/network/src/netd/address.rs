//! Where netd can be found: a socket in a directory. When somebody else's lies there, or none, nobody will ever come.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::protocol::SOCKET;

/// Where a netd listens, and what tells it of changes there.
pub(super) struct Address {
    socket: PathBuf,
    inode: Option<u64>,
    /// Without it nothing is ever missed.
    news: Option<AsyncFd<OwnedFd>>,
}

impl Address {
    pub(super) fn of(directory: Option<OsString>) -> Self {
        let directory = PathBuf::from(directory.unwrap_or_default());
        let socket = directory.join(SOCKET);
        let inode = inode(&socket);
        #[allow(
            deprecated,
            reason = "its successor is unsafe; an OwnedFd keeps the promise that one asks for"
        )]
        let news = watch(&directory).ok().and_then(|news| AsyncFd::new(news).ok());
        Self { socket, inode, news: news.filter(|_| inode.is_some()) }
    }

    /// Returns when the socket is not there any more.
    pub(super) async fn lost(&self) {
        let Some(news) = &self.news else { return std::future::pending().await };
        while inode(&self.socket) == self.inode {
            let Ok(mut ready) = news.readable().await else {
                return std::future::pending().await;
            };
            // It matters that something happened, and not what.
            while matches!(rustix::io::read(news, &mut [0; 1024]), Ok(_) | Err(Errno::INTR)) {}
            ready.clear_ready();
        }
    }
}

fn watch(directory: &Path) -> rustix::io::Result<OwnedFd> {
    let news = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    add_watch(&news, directory, WatchFlags::DELETE | WatchFlags::MOVE | gone)?;
    Ok(news)
}

fn inode(socket: &Path) -> Option<u64> {
    rustix::fs::lstat(socket).ok().map(|stat| stat.st_ino)
}
