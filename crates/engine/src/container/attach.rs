//! `docker attach`: a client's stream joined to a container's, and the keys that part them again.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use stdx::{Context, Error, Result};
use tokio::sync::watch;

use super::Container;
use super::state::Phase;

/// Clients that may wait for a start; as many as a shim serves.
const MOST_WAITING: usize = 128;

#[derive(Clone, Debug, Default)]
pub struct AttachRequest {
    /// Replay the log first.
    pub logs: bool,
    pub stream: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: Option<String>,
}

/// A stream that carries Docker's wire format out and raw input in; its end of writing is the end of input.
#[derive(Debug)]
pub struct Attached {
    pub tty: bool,
    pub stream: tokio::net::UnixStream,
    /// Watches the client's input for the keys that part it, where there is a terminal.
    pub detach: Option<DetachKeys>,
    /// The log up to here, to be sent first.
    pub replay: Option<crate::LogStream>,
    /// What the end of the stream waits for: a client asks for the exit code once it has seen it.
    pub over: Option<Over>,
}

/// The moment from which on what a client has listened to is seen to have ended.
#[derive(Debug)]
pub struct Over {
    /// Becomes true then.
    over: watch::Receiver<bool>,
    /// For how long it is worth waiting.
    most: Option<Duration>,
}

impl Over {
    pub(crate) fn new(over: watch::Receiver<bool>) -> Self {
        Self { over, most: None }
    }

    pub(crate) fn within(self, most: Duration) -> Self {
        Self { most: Some(most), ..self }
    }

    pub async fn wait(mut self) {
        let over = self.over.wait_for(|over| *over);
        match self.most {
            None => drop(over.await),
            Some(most) => drop(tokio::time::timeout(most, over).await),
        }
    }
}

impl Container {
    /// Joins a client. Before the start it waits, and gets the output from its first byte.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attached> {
        let detach = DetachKeys::parse(request.detach_keys.as_deref())?;
        let record = self.record();
        match record.state.phase {
            Phase::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    record.id
                )));
            }
            Phase::Restarting => {
                return Err(Error::conflict(format!(
                    "container {} is restarting, wait until the container is running",
                    record.id
                )));
            }
            _ => {}
        }
        let replay = match request.logs {
            true => Some(self.logs(crate::LogsRequest::all(request.stdout, request.stderr)).await?),
            false => None,
        };
        let (ours, theirs) = pair()?;
        if !request.stream {
            // The log so far was all that was asked for.
            drop(theirs);
            let (tty, stream) = (record.tty(), to_async(ours)?);
            return Ok(Attached { tty, stream, detach: None, replay, over: None });
        }
        let options = shim::AttachOptions {
            stdin: request.stdin && record.config.open_stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            framed: None,
        };
        let run = {
            // A start that runs right now has either taken the list already, and is up when the gate opens, or takes us.
            let _gate = self.cell.gate.lock().await;
            match self.record().state.phase {
                phase if phase.is_up() => {
                    self.with_shim(move |shim| shim.attach(options, &theirs)).await?;
                }
                Phase::Created | Phase::Exited => {
                    let waiting = &mut self.cell.live().waiting_attaches;
                    waiting.retain(|(_, stream)| !has_hung_up(stream));
                    if waiting.len() >= MOST_WAITING {
                        return Err(Error::conflict(format!(
                            "{MOST_WAITING} clients wait for the start of container {} already",
                            record.id
                        )));
                    }
                    waiting.push((options, theirs));
                }
                _ => {
                    return Err(Error::conflict(format!(
                        "container {} is being removed",
                        record.id
                    )));
                }
            }
            self.cell.live().run_over.subscribe()
        };
        self.event("attach", &[]);
        let stream = to_async(ours)?;
        let detach = (record.tty() && options.stdin).then_some(detach);
        // A program may close its output and live on; for its clients it ends when it has ended.
        let over = (options.stdout || options.stderr).then(|| Over::new(run));
        Ok(Attached { tty: record.tty(), stream, detach, replay, over })
    }

    /// The run, or the attempt at one, is over, and everybody can see it: so may those who listened.
    pub(crate) fn clients_may_go(&self) {
        let mut live = self.cell.live();
        live.waiting_attaches.clear();
        live.run_over.send_replace(true);
        live.run_over = watch::Sender::default();
    }
}

/// Whether the client's end is closed.
fn has_hung_up(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::HUP)
}

pub(crate) fn pair() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().context(|| "cannot make a stream for the client".to_owned())
}

pub(crate) fn to_async(stream: UnixStream) -> Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    Ok(tokio::net::UnixStream::from_std(stream)?)
}

/// Finds the sequence of keys that parts a client from a container (`ctrl-p,ctrl-q` unless said otherwise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them were typed last.
    typed: usize,
}

impl DetachKeys {
    /// Understands `a`, `ctrl-a`, `ctrl-@ [ \ ] ^ _`, joined by commas.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let text = match text {
            None | Some("") => "ctrl-p,ctrl-q",
            Some(text) => text,
        };
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        match keys {
            Some(keys) => Ok(Self { keys, typed: 0 }),
            None => Err(Error::invalid(format!("Invalid escape keys ({text}) provided"))),
        }
    }

    /// Passes on what was typed, without the sequence: what is to be forwarded, and whether the sequence is complete.
    pub fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut forward = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (forward, true);
                }
                continue;
            }
            // It was not the sequence after all: what was held back was typed for the container.
            forward.extend_from_slice(&self.keys[..self.typed]);
            self.typed = 0;
            if byte == self.keys[0] {
                self.typed = 1;
                if self.keys.len() == 1 {
                    return (forward, true);
                }
            } else {
                forward.push(byte);
            }
        }
        (forward, false)
    }
}

fn key(text: &str) -> Option<u8> {
    let bytes = text.as_bytes();
    if let [byte] = bytes {
        return byte.is_ascii().then_some(*byte);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_keys_part() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), (Vec::new(), true));
    }

    #[test]
    fn half_a_sequence_reaches_the_container() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.feed(b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn what_keys_may_be() {
        assert_eq!(DetachKeys::parse(Some("a,ctrl-@,ctrl-_")).unwrap().keys, [b'a', 0, 31]);
        assert!(DetachKeys::parse(Some("ctrl-p,")).is_err());
        assert!(DetachKeys::parse(Some("strg-p")).is_err());
    }
}
