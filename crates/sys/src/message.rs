//! Messages between our own processes: one JSON value and some descriptors each, over a socket that keeps their borders.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::socket::{recv_with_fds, send_with_fds};

pub fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    send_with_fds(socket, &bytes, descriptors).map(drop)
}

/// `None` at the end. A message longer than `longest` is an error, as one is that cannot be understood.
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    longest: usize,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; longest];
    let received = recv_with_fds(socket, &mut bytes)?;
    match received.bytes {
        0 => Ok(None),
        count => Ok(Some((serde_json::from_slice(&bytes[..count])?, received.fds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::pair;

    #[test]
    fn values_and_descriptors_travel_together() {
        let (ours, theirs) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&ours, &("two", 2), &[file.as_fd(), file.as_fd()]).unwrap();
        send(&ours, &"none", &[]).unwrap();
        let ((word, number), fds) = receive::<(String, usize)>(&theirs, 64).unwrap().unwrap();
        assert_eq!((word.as_str(), number, fds.len()), ("two", 2, 2));
        let (word, fds) = receive::<String>(&theirs, 64).unwrap().unwrap();
        assert_eq!((word.as_str(), fds.len()), ("none", 0));
        send(&ours, &"long", &[]).unwrap();
        assert!(receive::<String>(&theirs, 4).is_err());
        send(&ours, &"a word", &[]).unwrap();
        assert!(receive::<u8>(&theirs, 64).is_err());
        drop(ours);
        assert!(receive::<String>(&theirs, 64).unwrap().is_none());
    }
}
