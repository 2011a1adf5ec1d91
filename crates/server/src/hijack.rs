//! The end of HTTP on a connection: from here on its bytes are a container's.
//!
//! `attach` and `exec start` answer with a head and no body; behind it the connection carries output one way and input the
//! other, and each way ends alone. A client may ask by `Upgrade: tcp`, and is told 101, or simply post, and is told 200:
//! both mean the same. HTTP libraries know only the first, so the connection is taken out of hyper's hands before the
//! answer (see `connection.rs`) and the head is written here.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::listen::Stream;

/// Bytes moved at a time.
const PIECE: usize = 64 * 1024;

/// What the connection is joined to.
pub struct Splice {
    /// Sent to the client first: the log so far, or why there is nothing to join.
    pub before: BoxStream<'static, Bytes>,
    /// Output comes from here as the client shall see it; input goes here, and its end is the end of input.
    pub stream: Option<UnixStream>,
    /// Sees the input before the container does.
    pub filter: Option<Filter>,
    /// Waited for between the last byte and the end that the client sees.
    pub after: BoxFuture<'static, ()>,
}

/// Gives what is to be passed on, and whether the client wants to part.
pub type Filter = Box<dyn FnMut(&[u8]) -> (Vec<u8>, bool) + Send>;

impl Splice {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            before: futures_util::stream::empty().boxed(),
            stream: Some(stream),
            filter: None,
            after: std::future::ready(()).boxed(),
        }
    }

    /// Only words, then the end.
    pub fn words(words: impl Into<Bytes>) -> Self {
        let words = words.into();
        Self {
            before: futures_util::stream::iter([words]).boxed(),
            stream: None,
            filter: None,
            after: std::future::ready(()).boxed(),
        }
    }
}

/// Rides in the answer's extensions to the connection that sends it.
#[derive(Clone)]
struct Passenger(Arc<Mutex<Option<Splice>>>);

/// The answer that ends HTTP on its connection. `headers` are the request's.
pub fn answer(headers: &HeaderMap, content_type: &'static str, splice: Splice) -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if headers.contains_key(header::UPGRADE) {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    }
    response.extensions_mut().insert(Passenger(Arc::new(Mutex::new(Some(splice)))));
    response
}

/// The answer after which a connection is a websocket. `accept` is what the client's key comes to.
pub(crate) fn answer_websocket(accept: &str, splice: Splice) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(accept).expect("base64 is text");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response.extensions_mut().insert(Passenger(Arc::new(Mutex::new(Some(splice)))));
    response
}

/// A connection that is to be taken over: the head to write, and what to join.
pub(crate) struct Takeover {
    head: Vec<u8>,
    splice: Splice,
}

impl Takeover {
    /// Looks whether an answer is one of ours.
    pub(crate) fn of(response: &mut Response) -> Option<Self> {
        let Passenger(splice) = response.extensions_mut().remove()?;
        let splice = splice.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Self { head: head(response), splice })
    }

    /// Carries bytes until both ways have ended. `early` is what the client sent right behind its request.
    ///
    /// Clients that read the head through a buffer and the rest around it (docker-py) would lose what comes together with
    /// the head: it is given a head start.
    pub(crate) async fn run(
        self,
        mut client: Stream,
        early: Bytes,
        gone: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let Self { head, splice: Splice { mut before, stream, mut filter, after } } = self;
        client.write_all(&head).await?;
        client.flush().await?;
        client.taken().await?;
        let (mut input, mut output) = tokio::io::split(client);
        while let Some(piece) = before.next().await {
            output.write_all(&piece).await?;
            output.flush().await?;
        }
        let Some(stream) = stream else { return output.shutdown().await };
        let (mut from_container, mut to_container) = stream.into_split();
        let outward = async {
            let mut buffer = vec![0; PIECE];
            loop {
                match from_container.read(&mut buffer).await? {
                    0 => break,
                    count => output.write_all(&buffer[..count]).await?,
                }
                output.flush().await?;
            }
            after.await;
            output.shutdown().await
        };
        let inward = async {
            let mut buffer = vec![0; PIECE];
            let mut piece = &early[..];
            loop {
                let parted = match &mut filter {
                    Some(filter) if !piece.is_empty() => {
                        let (bytes, parted) = filter(piece);
                        to_container.write_all(&bytes).await?;
                        parted
                    }
                    _ => {
                        to_container.write_all(piece).await?;
                        false
                    }
                };
                if parted {
                    return Ok(Inward::Parted);
                }
                match input.read(&mut buffer).await? {
                    0 => break,
                    count => piece = &buffer[..count],
                }
            }
            to_container.shutdown().await?;
            io::Result::Ok(Inward::Ended)
        };
        tokio::pin!(outward, inward, gone);
        let mut listening = true;
        loop {
            tokio::select! {
                // The output decides: when it has ended, nobody waits for input any more.
                outcome = &mut outward => return outcome,
                // A container that no longer reads is no reason to lose what it still says.
                outcome = &mut inward, if listening => match outcome {
                    Ok(Inward::Parted) => return Ok(()),
                    Ok(Inward::Ended) | Err(_) => listening = false,
                },
                // Nobody hears any more; of a container that says nothing the output would never find out.
                () = &mut gone, if !listening => return Ok(()),
            }
        }
    }
}

enum Inward {
    /// The client has nothing more to say.
    Ended,
    /// The client has typed the keys that part it.
    Parted,
}

/// The head of the answer as dockerd writes it. The router has counted an empty body; what follows has no length.
fn head(response: &Response) -> Vec<u8> {
    let mut head = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => b"HTTP/1.1 101 UPGRADED\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\n".to_vec(),
    };
    for (name, value) in
        response.headers().iter().filter(|(name, _)| *name != header::CONTENT_LENGTH)
    {
        head.extend_from_slice(title(name.as_str()).as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// `content-type` → `Content-Type`.
fn title(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}
