//! A registry on loopback, in this process: serves what tests put into it, takes pushes, and fails on demand.
//!
//! It runs on a thread of its own, so that blocking and async tests can use it alike, and ends when it is dropped.
//! Everything asked of it is kept for the test to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as _, Frame, Incoming};
use hyper_util::rt::TokioIo;
use oci::Digest;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A registry that lives as long as this value.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Who may read and write.
#[derive(Clone, Debug, Default)]
pub enum Access {
    #[default]
    Everybody,
    /// `Authorization: Basic` on every request.
    Basic { user: String, password: String },
    /// Tokens from `realm`, by default `/token` of this registry, which gives them to this user, or to anybody.
    Bearer { realm: Option<String>, user: Option<(String, String)> },
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status and body instead.
    Status(u16, String),
    /// The right headers, then only so many bytes of the body, then the connection is cut.
    Truncate(usize),
    /// The right length, the wrong bytes.
    Corrupt,
    /// The body in pieces of so many bytes with a pause between them.
    Slow { piece: usize, pause: Duration },
    /// Nothing at all: the connection stays open and silent.
    Hang,
    /// One more or another header.
    Header(&'static str, String),
    /// Another body under the same headers; the length is the new body's.
    Body(Vec<u8>),
    /// Sent elsewhere.
    Redirect(String),
    /// Ranges are ignored.
    NoRanges,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    plans: Mutex<Vec<FaultPlan>>,
    seen: Mutex<Vec<Seen>>,
    access: Access,
}

#[derive(Default)]
struct Content {
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, (String, Bytes)>,
    /// `repository:tag` → digest
    tags: BTreeMap<(String, String), String>,
    uploads: BTreeMap<String, Vec<u8>>,
    next_upload: u64,
    /// Repository → digests of its manifests.
    repositories: BTreeMap<String, BTreeSet<String>>,
}

struct FaultPlan {
    path: String,
    left: usize,
    fault: Fault,
}

impl Registry {
    /// A registry open to everybody.
    pub fn start() -> Self {
        Self::with_access(Access::Everybody)
    }

    pub fn with_access(access: Access) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        listener.set_nonblocking(true).expect("a fresh socket takes the flag");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { access, ..Shared::default() });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime needs only memory and a descriptor");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("the socket does not block");
                tokio::select! {
                    () = serve(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `127.0.0.1:41234`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:41234/name`
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        lock(&self.shared.content)
    }

    pub fn put_blob(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.content().blobs.insert(digest.to_string(), bytes);
        digest
    }

    /// A blob under a digest that is not its own.
    pub fn put_lie(&self, digest: &Digest, bytes: impl Into<Bytes>) {
        self.content().blobs.insert(digest.to_string(), bytes.into());
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.content().put_manifest(repository, tag, media_type, bytes, digest.as_str());
        digest
    }

    /// A blob that was pushed.
    pub fn blob(&self, digest: &Digest) -> Option<Bytes> {
        self.content().blobs.get(digest.as_str()).cloned()
    }

    /// A manifest under a tag or digest: media type and bytes.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        self.content().manifest(repository, reference)
    }

    /// The next `times` requests whose path contains `path` go wrong.
    pub fn fail(&self, path: &str, times: usize, fault: Fault) {
        lock(&self.shared.plans).push(FaultPlan { path: path.to_owned(), left: times, fault });
    }

    /// Everything goes right again.
    pub fn heal(&self) {
        lock(&self.shared.plans).clear();
    }

    /// Everything asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests had `path` in theirs.
    pub fn asked_for(&self, path: &str) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.path.contains(path)).count()
    }

    pub fn forget_seen(&self) {
        lock(&self.shared.seen).clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Content {
    fn put_manifest(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: Bytes,
        digest: &str,
    ) {
        self.manifests.insert(digest.to_owned(), (media_type.to_owned(), bytes));
        self.repositories.entry(repository.to_owned()).or_default().insert(digest.to_owned());
        if let Some(tag) = tag {
            self.tags.insert((repository.to_owned(), tag.to_owned()), digest.to_owned());
        }
    }

    fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        let digest = if reference.contains(':') {
            reference.to_owned()
        } else {
            self.tags.get(&(repository.to_owned(), reference.to_owned()))?.clone()
        };
        self.repositories.get(repository)?.get(&digest)?;
        self.manifests.get(&digest).cloned()
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let address = stream.local_addr().expect("a connected socket has an address");
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, std::convert::Infallible>(answer(&shared, address, request).await) }
            });
            // A client that hangs up is nothing to report.
            let _gone = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    shared: &Shared,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    lock(&shared.seen).push(Seen {
        method: parts.method.clone(),
        path: path.clone(),
        headers: parts.headers.clone(),
    });
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let fault = {
        let mut plans = lock(&shared.plans);
        let plan = plans.iter_mut().find(|plan| plan.left > 0 && path.contains(&plan.path));
        plan.map(|plan| {
            plan.left -= 1;
            plan.fault.clone()
        })
    };
    let mut headers = parts.headers;
    match &fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Status(status, body)) => {
            let status = StatusCode::from_u16(*status).expect("a test names a real status");
            return reply(status, body.clone());
        }
        Some(Fault::Redirect(to)) => {
            let mut response = reply(StatusCode::TEMPORARY_REDIRECT, "");
            response.headers_mut().insert(LOCATION, header(to));
            return response;
        }
        Some(Fault::NoRanges) => drop(headers.remove(RANGE)),
        _ => {}
    }
    let response = match refused(&shared.access, address, &path, &headers) {
        Some(refusal) => refusal,
        None => route(&mut lock(&shared.content), &parts.method, &path, &headers, body),
    };
    match fault {
        Some(fault) => spoil(response, fault).await,
        None => response,
    }
}

fn refused(
    access: &Access,
    address: SocketAddr,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let given =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let basic = |user: &str, password: &str| {
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
        )
    };
    let unauthorized = |challenge: String| {
        let mut response =
            error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        response.headers_mut().insert(WWW_AUTHENTICATE, header(&challenge));
        response
    };
    match access {
        Access::Everybody => None,
        Access::Basic { user, password } => (given != basic(user, password))
            .then(|| unauthorized("Basic realm=\"test\"".to_owned())),
        Access::Bearer { user, .. } if path.starts_with("/token") => {
            let right = user.as_ref().is_none_or(|(user, password)| given == basic(user, password));
            Some(if right {
                reply(StatusCode::OK, r#"{"token":"let-me-in","expires_in":60}"#)
            } else {
                reply(StatusCode::UNAUTHORIZED, r#"{"details":"incorrect username or password"}"#)
            })
        }
        Access::Bearer { realm, .. } => (given != "Bearer let-me-in").then(|| {
            let own = format!("http://{address}/token");
            let realm = realm.as_ref().unwrap_or(&own);
            unauthorized(format!("Bearer realm=\"{realm}\",service=\"test\""))
        }),
    }
}

fn route(
    content: &mut Content,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let Some(rest) = path.strip_prefix("/v2/") else {
        return reply(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if rest.is_empty() {
        return reply(StatusCode::OK, "{}");
    }
    if rest == "_catalog" {
        let names: Vec<&String> = content.repositories.keys().collect();
        return reply(StatusCode::OK, serde_json::json!({ "repositories": names }).to_string());
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        if !content.repositories.contains_key(repository) {
            return unknown_name();
        }
        let of_it = content.tags.keys().filter(|(name, _)| name == repository);
        let tags: Vec<&String> = of_it.map(|(_, tag)| tag).collect();
        return reply(
            StatusCode::OK,
            serde_json::json!({ "name": repository, "tags": tags }).to_string(),
        );
    }
    if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
        return uploads(content, method, repository, upload, query, body);
    }
    if let Some((_, digest)) = rest.split_once("/blobs/") {
        return match content.blobs.get(digest) {
            Some(blob) => blob_reply(method, headers, blob, digest),
            None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"),
        };
    }
    if let Some((repository, reference)) = rest.split_once("/manifests/") {
        return manifests(content, method, repository, reference, headers, body);
    }
    reply(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn blob_reply(method: &Method, headers: &HeaderMap, blob: &Bytes, digest: &str) -> Response<Body> {
    let range = headers
        .get(RANGE)
        .and_then(|range| range.to_str().ok())
        .and_then(|range| range.strip_prefix("bytes="));
    let start = range
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.parse::<usize>().ok());
    let mut response = match start {
        Some(start) if start < blob.len() => {
            let mut response = reply(StatusCode::PARTIAL_CONTENT, blob.slice(start..));
            let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            response.headers_mut().insert(CONTENT_RANGE, header(&range));
            response
        }
        Some(_) => return reply(StatusCode::RANGE_NOT_SATISFIABLE, ""),
        None if *method == Method::HEAD => head(blob.len()),
        None => reply(StatusCode::OK, blob.clone()),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert("docker-content-digest", header(digest));
    response
}

fn manifests(
    content: &mut Content,
    method: &Method,
    repository: &str,
    reference: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response<Body> {
    match *method {
        Method::PUT => {
            let digest = Digest::of(&body).to_string();
            if reference.contains(':') && reference != digest {
                return error(
                    StatusCode::BAD_REQUEST,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                );
            }
            let media_type =
                headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let tag = (!reference.contains(':')).then_some(reference);
            content.put_manifest(repository, tag, media_type, body, &digest);
            created(&format!("/v2/{repository}/manifests/{digest}"), &digest)
        }
        Method::GET | Method::HEAD => match content.manifest(repository, reference) {
            Some((media_type, bytes)) => {
                let digest = Digest::of(&bytes).to_string();
                let mut response = if *method == Method::HEAD {
                    head(bytes.len())
                } else {
                    reply(StatusCode::OK, bytes)
                };
                response.headers_mut().insert(CONTENT_TYPE, header(&media_type));
                response.headers_mut().insert("docker-content-digest", header(&digest));
                response
            }
            None if content.repositories.contains_key(repository) => {
                error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")
            }
            None => unknown_name(),
        },
        Method::DELETE => {
            content.repositories.entry(repository.to_owned()).or_default().remove(reference);
            content.tags.retain(|(name, _), digest| name != repository || digest != reference);
            reply(StatusCode::ACCEPTED, "")
        }
        _ => reply(StatusCode::METHOD_NOT_ALLOWED, ""),
    }
}

fn unknown_name() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry")
}

fn uploads(
    content: &mut Content,
    method: &Method,
    repository: &str,
    upload: &str,
    query: &str,
    body: Bytes,
) -> Response<Body> {
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.replace("%3A", ":").replace("%3a", ":"))
            .next()
    };
    match *method {
        Method::POST => {
            if let Some(digest) =
                parameter("mount").filter(|digest| content.blobs.contains_key(digest))
            {
                return created(&format!("/v2/{repository}/blobs/{digest}"), &digest);
            }
            if let Some(digest) = parameter("digest") {
                return finish_upload(content, repository, body.to_vec(), &digest);
            }
            content.next_upload += 1;
            let id = content.next_upload.to_string();
            content.uploads.insert(id.clone(), Vec::new());
            accepted(repository, &id, 0)
        }
        Method::PATCH => match content.uploads.get_mut(upload) {
            Some(bytes) => {
                bytes.extend_from_slice(&body);
                let length = bytes.len();
                accepted(repository, upload, length)
            }
            None => error(
                StatusCode::NOT_FOUND,
                "BLOB_UPLOAD_UNKNOWN",
                "blob upload unknown to registry",
            ),
        },
        Method::PUT => match (content.uploads.remove(upload), parameter("digest")) {
            (Some(mut bytes), Some(digest)) => {
                bytes.extend_from_slice(&body);
                finish_upload(content, repository, bytes, &digest)
            }
            (None, _) => error(
                StatusCode::NOT_FOUND,
                "BLOB_UPLOAD_UNKNOWN",
                "blob upload unknown to registry",
            ),
            (_, None) => error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest missing"),
        },
        _ => reply(StatusCode::METHOD_NOT_ALLOWED, ""),
    }
}

fn finish_upload(
    content: &mut Content,
    repository: &str,
    bytes: Vec<u8>,
    digest: &str,
) -> Response<Body> {
    if Digest::of(&bytes).as_str() != digest {
        return error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        );
    }
    content.blobs.insert(digest.to_owned(), bytes.into());
    created(&format!("/v2/{repository}/blobs/{digest}"), digest)
}

fn accepted(repository: &str, upload: &str, length: usize) -> Response<Body> {
    let mut response = reply(StatusCode::ACCEPTED, "");
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(&format!("/v2/{repository}/blobs/uploads/{upload}")));
    headers.insert("docker-upload-uuid", header(upload));
    headers.insert(RANGE, header(&format!("0-{}", length.saturating_sub(1))));
    response
}

fn created(location: &str, digest: &str) -> Response<Body> {
    let mut response = reply(StatusCode::CREATED, "");
    response.headers_mut().insert(LOCATION, header(location));
    response.headers_mut().insert("docker-content-digest", header(digest));
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body =
        serde_json::json!({ "errors": [{ "code": code, "message": message, "detail": {} }] });
    let mut response = reply(status, body.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let body =
        http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn head(length: usize) -> Response<Body> {
    let mut response = reply(StatusCode::OK, "");
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("a test's header is printable")
}

/// Makes a right answer wrong.
async fn spoil(response: Response<Body>, fault: Fault) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let length = body.size_hint().exact();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let whole = |parts, bytes: Bytes| {
        Response::from_parts(
            parts,
            http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
        )
    };
    match fault {
        Fault::Header(name, value) => {
            parts.headers.insert(name, header(&value));
            whole(parts, bytes)
        }
        Fault::Body(other) => whole(parts, other.into()),
        Fault::Corrupt => {
            let mut wrong = bytes.to_vec();
            if let Some(middle) = wrong.len().checked_div(2).and_then(|at| wrong.get_mut(at)) {
                *middle ^= 0x55;
            }
            whole(parts, wrong.into())
        }
        Fault::Truncate(at) => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length.unwrap_or_default()));
            let cut = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            let frames = vec![Ok(Frame::data(bytes.slice(..at.min(bytes.len())))), cut];
            Response::from_parts(parts, paced(frames, Duration::ZERO))
        }
        Fault::Slow { piece, pause } => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            let frames = bytes
                .chunks(piece.max(1))
                .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
                .collect();
            Response::from_parts(parts, paced(frames, pause))
        }
        Fault::Status(..) | Fault::Hang | Fault::Redirect(_) | Fault::NoRanges => {
            whole(parts, bytes)
        }
    }
}

/// A body of these frames, with a pause before each but the first.
fn paced(frames: Vec<std::io::Result<Frame<Bytes>>>, pause: Duration) -> Body {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for (at, frame) in frames.into_iter().enumerate() {
            if at > 0 && !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    http_body_util::StreamBody::new(stream).boxed_unsync()
}
