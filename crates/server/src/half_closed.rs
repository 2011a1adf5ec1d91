//! Clients that have said all they will say and still listen (`printf … | socat - UNIX:/run/gantry.sock`): their request is
//! answered, as by Go's server. hyper takes the end of what it reads for the end of its client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::listen::Stream;

/// How often one who says nothing more is looked at, whether he still listens.
const LOOK: Duration = Duration::from_millis(20);
/// How many looks a request has to come whole out of what was read of it.
const LOOKS: u8 = 50;

/// Nobody has asked anything that is not answered.
const IDLE: u8 = 0;
/// A request has begun.
const ASKED: u8 = 1;
/// It is whole, and its answer is not.
const OWED: u8 = 2;

/// How far the request of a connection is.
#[derive(Clone, Default)]
pub(crate) struct Answering(Arc<AtomicU8>);

impl Answering {
    fn is(&self, now: u8) {
        self.0.store(now, Ordering::Release);
    }

    /// The body of a request: when it has come whole, all that is missing is the answer.
    pub(crate) fn asked<B: Body>(&self, body: B) -> Asked<B> {
        self.is(if body.is_end_stream() { OWED } else { ASKED });
        Asked { body, answering: self.clone() }
    }

    /// The body of an answer, at whose end there is no request any more.
    pub(crate) fn answered<B>(&self, body: B) -> Answered<B> {
        Answered { body, answering: self.clone() }
    }
}

pub(crate) struct Asked<B> {
    body: B,
    answering: Answering,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Asked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if frame.is_none() || this.body.is_end_stream() {
            this.answering.is(OWED);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(crate) struct Answered<B> {
    body: B,
    answering: Answering,
}

impl<B> Drop for Answered<B> {
    fn drop(&mut self) {
        self.answering.is(IDLE);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose end is not told while an answer is owed to somebody who listens.
pub(crate) struct HalfClosed {
    inner: Stream,
    answering: Answering,
    again: Option<Pin<Box<Sleep>>>,
    looks: u8,
}

impl HalfClosed {
    pub(crate) fn new(inner: Stream) -> (Self, Answering) {
        let answering = Answering::default();
        (Self { inner, answering: answering.clone(), again: None, looks: 0 }, answering)
    }

    pub(crate) fn into_inner(self) -> Stream {
        self.inner
    }
}

impl AsyncRead for HalfClosed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        loop {
            if let Some(again) = &mut this.again {
                ready!(again.as_mut().poll(cx));
                this.again = None;
            }
            ready!(Pin::new(&mut this.inner).poll_read(cx, into))?;
            let ended = into.filled().len() == before;
            let waits = match this.answering.0.load(Ordering::Acquire) {
                ASKED => this.looks < LOOKS,
                state => state == OWED,
            };
            if !(ended && waits && this.inner.may_still_listen()) {
                return Poll::Ready(Ok(()));
            }
            this.looks = this.looks.saturating_add(1);
            this.again = Some(Box::pin(tokio::time::sleep(LOOK)));
        }
    }
}

impl AsyncWrite for HalfClosed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
