//! The client: a request built, sent, retried with the daemon's version, and answered.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Error, Result};

use crate::endpoint::Endpoint;
use crate::hijack::Hijacked;
use crate::response::{Response, broken};
use crate::tls::{self, TlsFiles};
use crate::version::{Agreement, ApiVersion};
use crate::{BodyStream, connect};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// All a client needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub endpoint: Endpoint,
    /// Speak TLS (tcp only).
    pub tls: Option<TlsFiles>,
    /// Sent with every request (`HttpHeaders` of config.json).
    pub headers: Vec<(String, String)>,
    /// `DOCKER_API_VERSION`: no negotiation.
    pub version: Option<ApiVersion>,
    pub user_agent: String,
    /// What to run at the other end of an ssh connection.
    pub ssh_program: String,
}

impl Config {
    pub fn new(endpoint: Endpoint) -> Self {
        let user_agent =
            concat!("Gantry-Client/", env!("CARGO_PKG_VERSION"), " (linux)").to_owned();
        Self {
            endpoint,
            tls: None,
            headers: Vec::new(),
            version: None,
            user_agent,
            ssh_program: "docker".to_owned(),
        }
    }
}

/// A daemon to talk to. Cloning shares connections and what was learned about its version.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    tls: OnceLock<Arc<rustls::ClientConfig>>,
    agreement: Mutex<Agreement>,
    connections: Mutex<Vec<SendRequest<Body>>>,
}

impl Client {
    pub fn new(config: Config) -> Self {
        let agreement = Mutex::new(Agreement::start(config.version));
        Self(Arc::new(Inner {
            config,
            tls: OnceLock::new(),
            agreement,
            connections: Mutex::default(),
        }))
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.0.config.endpoint
    }

    /// The version in use: the newest until the daemon has answered once.
    pub fn version(&self) -> ApiVersion {
        self.agreement().version
    }

    /// Asks the daemon for its version, if nothing has been asked yet.
    pub async fn negotiate(&self) -> Result<ApiVersion> {
        if !self.agreement().settled {
            self.ping().await?;
        }
        Ok(self.version())
    }

    /// `HEAD /_ping`: its headers say who is there.
    pub async fn ping(&self) -> Result<Response> {
        self.request(Method::HEAD, "/_ping").unversioned().send().await
    }

    pub fn request(&self, method: Method, path: impl Into<String>) -> Request {
        Request {
            client: self.clone(),
            method,
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: Sent::Nothing,
            versioned: true,
        }
    }

    pub fn get(&self, path: impl Into<String>) -> Request {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: impl Into<String>) -> Request {
        self.request(Method::POST, path)
    }

    pub fn delete(&self, path: impl Into<String>) -> Request {
        self.request(Method::DELETE, path)
    }

    fn agreement(&self) -> Agreement {
        *self.0.agreement.lock().expect("nobody panics while holding it")
    }

    fn agree<T>(&self, change: impl FnOnce(&mut Agreement) -> T) -> T {
        change(&mut self.0.agreement.lock().expect("nobody panics while holding it"))
    }

    /// A connection that waits for work, or a new one.
    async fn connection(&self) -> io::Result<(SendRequest<Body>, Freshness)> {
        {
            let mut idle = self.0.connections.lock().expect("nobody panics while holding it");
            idle.retain(|connection| !connection.is_closed());
            if let Some(position) = idle.iter().position(SendRequest::is_ready) {
                return Ok((idle.swap_remove(position), Freshness::Used));
            }
        }
        let tls = match &self.0.config.tls {
            None => None,
            Some(files) => Some(match self.0.tls.get() {
                Some(config) => config,
                None => {
                    let config = tls::config(files).map_err(|err| io::Error::other(err.chain()))?;
                    self.0.tls.get_or_init(|| config)
                }
            }),
        };
        let stream =
            connect::dial(&self.0.config.endpoint, tls, &self.0.config.ssh_program).await?;
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // The driver ends with its connection; whatever goes wrong there is told to the request that waits.
        tokio::spawn(async move { connection.with_upgrades().await.unwrap_or_default() });
        Ok((sender, Freshness::New))
    }

    fn keep(&self, connection: SendRequest<Body>) {
        self.0.connections.lock().expect("nobody panics while holding it").push(connection);
    }

    /// Why there is no connection, in Docker's words.
    fn unreachable(&self, method: &Method, target: &str, err: &io::Error) -> Error {
        let endpoint = &self.0.config.endpoint;
        let method = title_case(method.as_str());
        let scheme = if self.0.config.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{target}", endpoint.authority());
        let kind = stdx::Kind::Unavailable;
        match (endpoint, err.kind()) {
            (Endpoint::Unix(path), io::ErrorKind::PermissionDenied) => Error::new(
                kind,
                format!(
                    "permission denied while trying to connect to the Docker daemon socket at {endpoint}: {method} \"{url}\": \
                     dial unix {}: connect: permission denied",
                    path.display()
                ),
            ),
            (Endpoint::Unix(_), _) | (Endpoint::Tcp { .. }, io::ErrorKind::ConnectionRefused) => {
                Error::new(
                    kind,
                    format!(
                        "Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?"
                    ),
                )
            }
            (Endpoint::Tcp { authority, .. }, _) => {
                let words = Error::from(io::Error::new(err.kind(), err.to_string())).chain();
                Error::new(
                    kind,
                    format!(
                        "error during connect: {method} \"{url}\": dial tcp {authority}: {words}"
                    ),
                )
            }
            (Endpoint::Ssh(_), _) => {
                Error::new(kind, format!("error during connect: {method} \"{url}\": {err}"))
            }
        }
    }
}

enum Freshness {
    New,
    Used,
}

/// `Get`, as Go's errors write methods.
fn title_case(method: &str) -> String {
    let mut text = method.to_ascii_lowercase();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

enum Sent {
    Nothing,
    Bytes(Bytes, &'static str),
    Stream(BodyStream, &'static str),
}

/// A request being put together.
#[must_use]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Sent,
    versioned: bool,
}

impl Request {
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        escape(name, &mut self.query);
        self.query.push('=');
        escape(value.as_ref(), &mut self.query);
        self
    }

    /// A query parameter only where it has a value.
    pub fn query_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// `name=1` when set, nothing otherwise.
    pub fn query_flag(self, name: &str, set: bool) -> Self {
        if set { self.query(name, "1") } else { self }
    }

    /// A header; a value that no header can carry is left out.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    pub fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(body)
            .map_err(|err| Error::internal("cannot write the request").caused_by(err))?;
        self.body = Sent::Bytes(bytes.into(), "application/json");
        Ok(self)
    }

    /// A body sent while it is made.
    pub fn stream(mut self, content_type: &'static str, body: BodyStream) -> Self {
        self.body = Sent::Stream(body, content_type);
        self
    }

    /// Without `/v1.55` in front.
    pub fn unversioned(mut self) -> Self {
        self.versioned = false;
        self
    }

    /// Sends; any status from 400 on is an error in the daemon's words.
    pub async fn send(self) -> Result<Response> {
        self.check_name()?;
        self.exchange(None).await
    }

    /// Without a name a request would be about all there are.
    fn check_name(&self) -> Result<()> {
        for (place, what) in
            [("/containers/", "container"), ("/networks/", "network"), ("/volumes/", "volume")]
        {
            let Some(rest) = self.path.strip_prefix(place) else { continue };
            // A name may begin with a slash; what is done with it is one more word, but for its removal.
            let verb = rest.strip_prefix('/').filter(|_| self.method != Method::DELETE);
            if rest.is_empty() || verb.is_some_and(|verb| !verb.contains('/')) {
                let words = format!("invalid {what} name or ID: value is empty");
                return Err(Error::invalid(words));
            }
        }
        Ok(())
    }

    /// Sends and reads a whole document.
    pub async fn fetch<T: DeserializeOwned>(self) -> Result<T> {
        self.send().await?.json().await
    }

    /// Sends and throws the answer's body away.
    pub async fn done(self) -> Result<()> {
        self.send().await?.finish().await
    }

    /// Sends and takes the connection over.
    pub async fn hijack(self) -> Result<Hijacked> {
        let response = self.exchange(Some("tcp")).await?;
        let content_type = response.header("content-type").to_owned();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::internal(format!(
                "unable to upgrade to tcp, received {}",
                response.status().as_u16()
            )));
        }
        let upgraded = hyper::upgrade::on(response.inner).await.map_err(|err| broken(&err))?;
        Ok(Hijacked::new(upgraded, content_type))
    }

    async fn exchange(mut self, upgrade: Option<&'static str>) -> Result<Response> {
        let client = self.client.clone();
        if self.versioned && matches!(self.body, Sent::Stream(..)) {
            // A stream cannot be sent twice, so the version must be right the first time.
            Box::pin(client.negotiate()).await?;
        }
        loop {
            let version = client.version();
            let target = self.target(version);
            let response = self.attempt(&client, &target, upgrade).await?;
            let daemon = ApiVersion::parse(response.header("api-version")).ok();
            let refused = response.status() == StatusCode::BAD_REQUEST;
            // A refusal carries the daemon's version too; only its words say whether that was the trouble.
            if !refused {
                client.agree(|agreement| agreement.learn(daemon));
            }
            if !(response.status().is_client_error() || response.status().is_server_error()) {
                return Ok(response);
            }
            let err = response
                .into_error(&format!("{}{target}", client.0.config.endpoint.authority()))
                .await;
            if refused && self.versioned && !matches!(self.body, Sent::Stream(..)) {
                client.agree(|agreement| match self.method {
                    // The answer to a HEAD has no words.
                    Method::HEAD => agreement.learn(daemon),
                    _ => agreement.refused(&err.to_string()),
                });
                // Another request may have learned it while this one was under way.
                if client.version() < version {
                    continue;
                }
            }
            return Err(err);
        }
    }

    fn target(&self, version: ApiVersion) -> String {
        let prefix = match &self.client.0.config.endpoint {
            Endpoint::Tcp { prefix, .. } => prefix.as_str(),
            _ => "",
        };
        match self.versioned {
            true => format!("{prefix}/v{version}{}{}", self.path, self.query),
            false => format!("{prefix}{}{}", self.path, self.query),
        }
    }

    async fn attempt(
        &mut self,
        client: &Client,
        target: &str,
        upgrade: Option<&'static str>,
    ) -> Result<Response> {
        loop {
            let connected = client.connection().await;
            let (mut connection, freshness) =
                connected.map_err(|err| client.unreachable(&self.method, target, &err))?;
            let request = self.message(client, target, upgrade)?;
            match connection.try_send_request(request).await {
                Ok(response) => {
                    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                        client.keep(connection);
                    }
                    return Ok(Response { inner: response });
                }
                Err(mut failure) => {
                    // A kept connection may have been closed by the daemon meanwhile: take another.
                    let unsent = failure.take_message().is_some();
                    let repeatable = !matches!(self.body, Sent::Stream(..));
                    if matches!(freshness, Freshness::Used) && unsent && repeatable {
                        continue;
                    }
                    return Err(match (client.endpoint(), failure.error()) {
                        (Endpoint::Ssh(_), err) => {
                            let words = broken(err).to_string();
                            client.unreachable(&self.method, target, &io::Error::other(words))
                        }
                        (_, err) => {
                            let url = format!("http://{}{target}", client.endpoint().authority());
                            let method = title_case(self.method.as_str());
                            Error::unavailable(format!("error during connect: {method} \"{url}\""))
                                .caused_by(broken(err))
                        }
                    });
                }
            }
        }
    }

    fn message(
        &mut self,
        client: &Client,
        target: &str,
        upgrade: Option<&'static str>,
    ) -> Result<http::Request<Body>> {
        let config = &client.0.config;
        let mut request = http::Request::builder().method(self.method.clone()).uri(target);
        let host = match &config.endpoint {
            Endpoint::Tcp { authority, .. } => authority.as_str(),
            _ => "api.moby.localhost",
        };
        request = request.header(HOST, host).header(USER_AGENT, &config.user_agent);
        for (name, value) in &config.headers {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(protocol) = upgrade {
            request = request.header("connection", "Upgrade").header("upgrade", protocol);
        }
        let body = match &mut self.body {
            Sent::Nothing => Full::default().map_err(|never| match never {}).boxed_unsync(),
            Sent::Bytes(bytes, content_type) => {
                request = request.header(CONTENT_TYPE, *content_type);
                Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync()
            }
            Sent::Stream(stream, content_type) => {
                request = request.header(CONTENT_TYPE, *content_type);
                let stream = std::mem::replace(stream, Box::pin(futures_util::stream::empty()));
                BodyExt::boxed_unsync(StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))))
            }
        };
        request.body(body).map_err(|err| Error::invalid("cannot write the request").caused_by(err))
    }
}

/// Percent-encodes what cannot stand in a query as it is.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Percent-encodes a name for use as part of a path, keeping its slashes and colons (image names have them).
pub fn path_escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '/' | ':' | '@' | '+' => out.push(c),
            _ => escape(c.encode_utf8(&mut [0; 4]), &mut out),
        }
    }
    out
}
