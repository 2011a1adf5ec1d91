//! A plugin that can be asked: patience with one that does not answer, words for one that refuses.

use std::io::Read;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Error, Result};

use crate::discovery::Address;
use crate::http::{self, Body, Broken, Target};
use crate::tls;

/// How long a plugin may take over things that should be quick.
pub(crate) const SHORT: Duration = Duration::from_secs(60);
/// The longest answer: some ten thousand volumes fit.
const LONGEST_ANSWER: usize = 8 << 20;
/// Pauses grow until their sum would be as long as this.
const GIVE_UP: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What to do when nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Somebody waits, or there are others to ask.
    None,
    /// Try again with pauses of 1, 2, 4, 8 seconds: it may be starting.
    Long,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The plugin said so: with a status and a sentence.
    Refused(u16, Error),
    /// It was not heard, or not understood.
    Unheard(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(_, error) | Failure::Unheard(error) => error,
        }
    }
}

/// A plugin, known by its name and where it listens.
pub struct Plugin {
    name: String,
    target: Target,
    implements: Vec<String>,
}

impl Plugin {
    pub(crate) fn new(name: &str, address: Address) -> Result<Self> {
        let tls = match &address {
            Address::Tcp { tls: Some(files), .. } => Some(tls::config(files)?),
            _ => None,
        };
        let target = Target { address, tls, name: None };
        Ok(Self { name: name.to_owned(), target, implements: Vec::new() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a `VolumeDriver`, a `NetworkDriver`…
    pub fn implements(&self, interface: &str) -> bool {
        self.implements.iter().any(|known| known.eq_ignore_ascii_case(interface))
    }

    /// Asks for `method`, `VolumeDriver.Create` say. Each attempt may last as long as `timeout`.
    pub fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        question: &impl Serialize,
        timeout: Duration,
        patience: Patience,
    ) -> Result<T, Failure> {
        let question = serde_json::to_value(question).expect("questions are plain values");
        understand(method, &self.ask(method, &question, timeout, patience)?)
    }

    /// Asks for `method`, whose answer goes on. `timeout` is for its beginning.
    pub fn stream(
        &self,
        method: &str,
        question: &impl Serialize,
        timeout: Duration,
    ) -> Result<Body, Failure> {
        let question = serde_json::to_vec(question).expect("questions are plain values");
        let deadline = Instant::now() + timeout;
        match http::post_for_stream(&self.target, method, &question, deadline) {
            Ok((200, body)) => Ok(body),
            Ok((status, body)) => {
                let mut said = Vec::new();
                let _torn = body.take(LONGEST_ANSWER as u64).read_to_end(&mut said);
                let error = Error::internal(format!("{method}: {}", refusal(&said)));
                Err(Failure::Refused(status, error))
            }
            Err(broken) => {
                let asking = format!("Post \"{}\"", self.target.url(method));
                Err(Failure::Unheard(Error::internal(asking).caused_by(Error::from(broken))))
            }
        }
    }

    pub(crate) fn is(&mut self, implements: Vec<String>) {
        self.implements = implements;
    }

    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.target.address == *address
    }

    pub(crate) fn interfaces(&self) -> &[String] {
        &self.implements
    }

    fn ask(
        &self,
        method: &str,
        question: &serde_json::Value,
        timeout: Duration,
        patience: Patience,
    ) -> Result<Vec<u8>, Failure> {
        // Who is asked nothing in particular gets an empty body.
        let question = if question.is_null() { String::new() } else { question.to_string() };
        let asking = || format!("Post \"{}\"", self.target.url(method));
        let post = || {
            let deadline = Instant::now() + timeout;
            http::post(&self.target, method, question.as_bytes(), deadline, LONGEST_ANSWER)
        };
        let retry = |broken: &Broken| match broken {
            Broken::Before(error) => {
                tracing::debug!(plugin = %self.name, method, error = %error.chain(), "no answer");
                true
            }
            Broken::Within(_) => false,
        };
        match backoff(patience, retry, post) {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => {
                let sentence = refusal(&answer.body);
                let error = Error::internal(format!("{method}: {sentence}"));
                Err(Failure::Refused(answer.status, error))
            }
            Err(Broken::Before(error)) => {
                Err(Failure::Unheard(Error::internal(asking()).caused_by(error)))
            }
            Err(Broken::Within(error)) => {
                Err(Failure::Unheard(Error::internal(method.to_owned()).caused_by(error)))
            }
        }
    }
}

fn understand<T: DeserializeOwned>(method: &str, answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|error| {
        let sentence = format!("{method}: cannot understand the plugin's answer: {error}");
        Failure::Unheard(Error::internal(sentence))
    })
}

/// What a plugin says when it says no: `{"Err": "…"}`, or plain text. For people to read, so not too much of it.
fn refusal(body: &[u8]) -> String {
    const LONGEST: usize = 4096;
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        err: String,
    }
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) if !refusal.err.is_empty() => refusal.err,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    text.chars().take(LONGEST).collect()
}

/// Does it again while it fails in a way that may pass, with growing pauses.
pub(crate) fn backoff<T, E>(
    patience: Patience,
    may_pass: impl Fn(&E) -> bool,
    work: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match work() {
            Err(error)
                if patience == Patience::Long
                    && may_pass(&error)
                    && start.elapsed() + pause < GIVE_UP => {}
            outcome => return outcome,
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells when a plugin is ready")]
        std::thread::sleep(pause);
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_in_both_ways() {
        assert_eq!(refusal(br#"{"Err": "no space"}"#), "no space");
        assert_eq!(refusal(b"no space\n"), "no space\n");
        assert_eq!(refusal(br#"{"Err": ""}"#), r#"{"Err": ""}"#);
        assert_eq!(refusal(&[b'x'; 9999]).len(), 4096);
    }
}
