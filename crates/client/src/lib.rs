//! The Engine API spoken: requests to a daemon over unix, tcp, tcp with TLS, or ssh.
//!
//! Sits on `api` and hyper; serves `cli`, `compose` and `machine`. A [`Client`] is cheap to make and makes no round trip
//! of its own: the API version is learned from the first answer. Start reading at `client.rs`.

mod client;
mod connect;
mod endpoint;
mod hijack;
mod response;
mod tls;
mod version;

pub use client::{Client, Config, Request, path_escape};
pub use endpoint::{Endpoint, SshTarget};
pub use hijack::{Hijacked, Reader, Writer};
pub use http::Method;
pub use response::Response;
pub use tls::TlsFiles;
pub use version::ApiVersion;

/// A body sent piece by piece.
pub type BodyStream = std::pin::Pin<
    Box<dyn futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static>,
>;
