//! One client's connection, from its first byte to its last.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderName, HeaderValue, Request, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tower_service::Service;

use crate::House;
use crate::authorization::Peer;
use crate::error::Refusal;
use crate::hijack::Takeover;
use crate::listen::Stream;
use crate::request_line::{Expecting, Lenient};
use crate::stream::Followed;
use crate::version;

/// How long a client may take for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How large a head may be, and how much is read ahead.
const HEAD_SIZE: usize = 64 * 1024;
/// How long a client may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// Serves requests until the client goes, the daemon stops, or a container takes the connection over.
pub(crate) async fn serve(
    stream: Stream,
    house: House,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let takeover = Arc::new(Mutex::new(None));
    let peer = Peer::of(&stream);
    // Who has said all he will say may still listen (`printf … | socat - UNIX:/run/gantry.sock`): where it can be seen
    // when he is gone, the end of what he says is not taken for it.
    let gone = stream.gone();
    let half_close = gone.is_some();
    let mut gone = gone.unwrap_or_else(|| std::future::pending().boxed());
    let (stream, expecting) = Lenient::new(stream);
    let service = Answers {
        house,
        peer,
        expecting,
        takeover: Arc::clone(&takeover),
        stopping: stopping.clone(),
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .title_case_headers(true)
        .half_close(half_close)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopped = *stopping.borrow_and_update();
    let outcome = loop {
        if stopped {
            Pin::new(&mut connection).graceful_shutdown();
        }
        tokio::select! {
            // What was asked before its client left is begun.
            biased;
            outcome = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break outcome,
            () = &mut gone => return Ok(()),
            changed = stopping.changed(), if !stopped => stopped = changed.is_err() || *stopping.borrow_and_update(),
        }
    };
    let parts = connection.into_parts();
    let (mut stream, rest) = parts.io.into_inner().into_parts();
    let takeover = takeover.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(takeover) = takeover {
        let read = Bytes::from([parts.read_buf, rest].concat());
        return tokio::select! {
            outcome = Takeover::run(takeover, stream, read, gone) => outcome,
            () = stopped_by(stopping) => Ok(()),
        };
    }
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended early");
    }
    stream.shutdown().await?;
    if !stopped {
        // Closed with bytes unread, the connection would be reset, and the answer lost with it: a client that still sends
        // a body nobody wanted is heard out.
        let mut unwanted = vec![0; 16 * 1024];
        let heard_out = async { while matches!(stream.read(&mut unwanted).await, Ok(1..)) {} };
        let _enough = tokio::time::timeout(LINGER, heard_out).await;
    }
    Ok(())
}

/// Returns when the daemon stops.
async fn stopped_by(mut stopping: watch::Receiver<bool>) {
    // An error means that whoever would tell is gone, and the daemon with it.
    let (Ok(_) | Err(_)) = stopping.wait_for(|stopped| *stopped).await;
}

/// hyper's view of us.
struct Answers {
    house: House,
    peer: Peer,
    expecting: Expecting,
    takeover: Arc<Mutex<Option<Takeover>>>,
    stopping: watch::Receiver<bool>,
}

/// Not a failure: how hyper is told to let go of a connection.
#[derive(Debug)]
struct TakenOver;

impl std::fmt::Display for TakenOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a container has taken over this connection")
    }
}

impl std::error::Error for TakenOver {}

impl hyper::service::Service<Request<Incoming>> for Answers {
    type Response = Response;
    type Error = TakenOver;
    type Future = Pin<Box<dyn Future<Output = Result<Response, TakenOver>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (house, peer, slot) =
            (self.house.clone(), self.peer.clone(), Arc::clone(&self.takeover));
        let stopping = self.stopping.clone();
        // What comes after a body cannot be told from the body here.
        let next = request.body().is_end_stream().then(|| self.expecting.clone());
        Box::pin(async move {
            let mut response = answer(house, &peer, request).await;
            if response.extensions_mut().remove::<Followed>().is_some() {
                let until_stopped = |body: Body| {
                    Body::from_stream(body.into_data_stream().take_until(stopped_by(stopping)))
                };
                response = response.map(until_stopped);
            }
            match Takeover::of(&mut response) {
                None => {
                    if let Some(next) = next {
                        next.a_request();
                    }
                    Ok(response)
                }
                Some(takeover) => {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
                    Err(TakenOver)
                }
            }
        })
    }
}

/// Through the version gate to the routes.
async fn route(mut router: Router, mut request: Request<Body>) -> Response {
    match version::strip(request.uri()) {
        Err(error) => Refusal::from(error).into_response(),
        Ok((version, uri)) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(version);
            let outcome: Result<Response, Infallible> = router.call(request).await;
            outcome.unwrap_or_else(|never| match never {})
        }
    }
}

/// Whoever must agree is asked, the routes answer, and every answer carries the same headers.
async fn answer(house: House, peer: &Peer, request: Request<Incoming>) -> Response {
    let House { router, gate, experimental } = house;
    let mut response = match gate.now() {
        None => route(router, request.map(Body::new)).await,
        Some(authorization) => match authorization.request(request, peer).await {
            Ok((request, allowed)) => allowed.response(route(router, request).await).await,
            Err(refusal) => refusal,
        },
    };
    let headers = response.headers_mut();
    headers.insert("api-version", HeaderValue::from_static("1.55"));
    headers.insert(
        "docker-experimental",
        HeaderValue::from_static(if experimental { "true" } else { "false" }),
    );
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers.insert(
        header::SERVER,
        HeaderValue::from_static(concat!("Gantry/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    response
}
