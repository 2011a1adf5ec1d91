//! What is asked of a registry: is it there, this manifest, that blob.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, LINK,
    LOCATION, RANGE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use oci::image::media_type;
use oci::{DEFAULT_DOMAIN, Digest, Reference};
use serde::Deserialize;
use stdx::{Context, Error, Result};
use tokio::sync::Semaphore;

use super::auth::{self, Challenge};
use super::connect::{Connector, DialError, Trust};
use super::refusal::Refusal;
use super::{Credentials, RegistryConfig};
use crate::limits;

type Http = Client<Connector, Full<Bytes>>;

/// All registries: the connections that are kept, and the rules.
pub(crate) struct Registries {
    pub(crate) config: RegistryConfig,
    /// Who holds one of these may fetch.
    pub(crate) downloads: Semaphore,
    verified: Http,
    unverified: Http,
}

impl Registries {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let outside = config.outside.clone();
        let http = |trust| {
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(30));
            builder.build(Connector::new(trust, outside.clone()))
        };
        let (verified, unverified) = (http(Trust::System), http(Trust::Anybody));
        Self { downloads: places(&config), config, verified, unverified }
    }

    /// The same connections by other rules.
    pub(crate) fn with(&self, config: RegistryConfig) -> Self {
        let (verified, unverified) = (self.verified.clone(), self.unverified.clone());
        Self { downloads: places(&config), config, verified, unverified }
    }

    /// Finds the registry that has `reference`, in the ways it may be reached, and introduces us.
    pub(crate) async fn repository(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Repository> {
        let mut last = None;
        for candidate in self.candidates(reference.domain()) {
            let http = match candidate.trust {
                Trust::System => self.verified.clone(),
                Trust::Anybody => self.unverified.clone(),
            };
            let repository = Repository {
                http,
                stall: self.config.stall,
                base: candidate.base,
                reference: reference.clone(),
                // A mirror is somebody else: it has no business with the credentials for the registry.
                credentials: if candidate.mirror { None } else { credentials.clone() },
                authorization: Arc::default(),
            };
            match repository.introduce().await {
                Ok(()) => return Ok(repository),
                // Only silence sends us on: a refusal over TLS must not be asked for again without.
                Err(failure) if candidate.last || !(candidate.mirror || failure.is_silence()) => {
                    return Err(failure.into_error(reference));
                }
                Err(failure) => {
                    tracing::debug!(registry = %repository.base, %failure, "registry not reached this way");
                    last = Some(failure);
                }
            }
        }
        Err(last.map_or_else(
            || Error::internal("no registry to ask"),
            |failure| failure.into_error(reference),
        ))
    }

    /// The addresses of a registry, in the order to try.
    fn candidates(&self, domain: &str) -> Vec<Candidate> {
        let candidate = |base: String, trust, mirror, last| Candidate { base, trust, mirror, last };
        if domain == DEFAULT_DOMAIN {
            let mirrors = self.config.mirrors.iter().map(|mirror| {
                let base = mirror.trim_end_matches('/').to_owned();
                let authority =
                    base.split_once("://").map_or(base.as_str(), |(_, authority)| authority);
                let trust =
                    if self.config.is_insecure(authority) { Trust::Anybody } else { Trust::System };
                candidate(base, trust, true, false)
            });
            let hub =
                candidate("https://registry-1.docker.io".to_owned(), Trust::System, false, true);
            return mirrors.chain([hub]).collect();
        }
        if self.config.is_insecure(domain) {
            return vec![
                candidate(format!("https://{domain}"), Trust::Anybody, false, false),
                candidate(format!("http://{domain}"), Trust::Anybody, false, true),
            ];
        }
        vec![candidate(format!("https://{domain}"), Trust::System, false, true)]
    }
}

fn places(config: &RegistryConfig) -> Semaphore {
    Semaphore::new(config.concurrent_downloads.max(1))
}

struct Candidate {
    base: String,
    trust: Trust,
    mirror: bool,
    last: bool,
}

/// One repository of one registry, introduced to.
#[derive(Clone)]
pub(crate) struct Repository {
    http: Http,
    stall: Duration,
    /// `https://registry-1.docker.io`
    base: String,
    reference: Reference,
    credentials: Option<Credentials>,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
}

/// A manifest or index as it came.
pub(crate) struct Fetched {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// Why there is no answer.
enum Failure {
    /// No connection, or none that lasts: Go's words, with the URL.
    Unreachable(String),
    Refused(Refusal),
    Ours(Error),
}

impl Failure {
    fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    fn into_error(self, reference: &Reference) -> Error {
        match self {
            // A moment later it may be reached.
            Self::Unreachable(words) => Error::unavailable(words),
            Self::Refused(refusal) => refusal.for_pull(reference),
            Self::Ours(error) => error,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(words) => f.write_str(words),
            Self::Refused(refusal) => f.write_str(&refusal.words()),
            Self::Ours(error) => f.write_str(&error.chain()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Repository {
    /// Asks whether a registry is there, and gets what it wants to see of us.
    async fn introduce(&self) -> Result<(), Failure> {
        let uri = self.uri("")?;
        let response = self.follow(Method::GET, uri, &HeaderMap::new(), None).await?;
        let challenges = auth::challenges(response.headers());
        let status = response.status();
        // Read to its end, the connection can be used again.
        let _small = read_body(response, limits::ERROR_BODY, self.stall).await;
        if status == StatusCode::UNAUTHORIZED { self.authorize(&challenges).await } else { Ok(()) }
    }

    /// The manifest or index under a tag or digest. Its bytes have the digest that it says.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Fetched> {
        let asked: Option<Digest> = reference.parse().ok();
        let mut headers = HeaderMap::new();
        for media_type in media_type::MANIFESTS {
            headers.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        let path = format!("{}/manifests/{reference}", self.reference.path());
        let response = self.get(&path, &headers).await?;
        let text = |name: &http::HeaderName| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let media_type = text(&CONTENT_TYPE);
        let told = text(&http::HeaderName::from_static("docker-content-digest"));
        let what = format!("manifest of {}", self.reference.familiar());
        let bytes = read_body(response, limits::MANIFEST, self.stall)
            .await
            .context(|| format!("cannot read {what}"))?;
        let digest = match &asked {
            Some(digest) => digest_like(digest, &bytes),
            None => Digest::of(&bytes),
        };
        if let Some(asked) = asked.filter(|asked| *asked != digest) {
            return Err(Error::invalid(format!("manifest verification failed for digest {asked}")));
        }
        // Only a digest of the same kind says anything about ours.
        if told
            .parse::<Digest>()
            .is_ok_and(|told| told.algorithm() == digest.algorithm() && told != digest)
        {
            return Err(Error::invalid(format!(
                "{what} is not what the registry says it is: {digest} instead of {told}"
            )));
        }
        Ok(Fetched { media_type, digest, bytes })
    }

    /// The same, asked for another reference to it.
    pub(crate) fn under(&self, reference: &Reference) -> Self {
        Self { reference: reference.clone(), ..self.clone() }
    }

    /// All tags, in the registry's order.
    pub(crate) async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut next = Some(format!("{}/tags/list", self.reference.path()));
        while let Some(path) = next {
            let response = self.get(&path, &HeaderMap::new()).await?;
            next = response
                .headers()
                .get(LINK)
                .and_then(|link| link.to_str().ok())
                .and_then(next_page)
                .filter(|further| *further != path);
            let what = || format!("cannot read the tags of {}", self.reference.familiar_name());
            let bytes = read_body(response, limits::MANIFEST, self.stall).await.context(what)?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|cause| Error::invalid(what()).caused_by(cause))?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > limits::TAGS {
                return Err(Error::invalid(format!(
                    "repository {} has more than {} tags",
                    self.reference.familiar_name(),
                    limits::TAGS
                )));
            }
        }
        Ok(tags)
    }

    /// A small blob, whole and verified.
    pub(crate) async fn small_blob(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        let mut download = self.blob(digest, 0).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = download.next().await {
            let piece = piece?;
            if bytes.len() + piece.len() > limit {
                return Err(Error::invalid(format!("blob {digest} is larger than {limit} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        if digest_like(digest, &bytes) != *digest {
            return Err(Error::invalid(format!("blob verification failed for digest {digest}")));
        }
        Ok(bytes)
    }

    /// A blob from `offset` on, if the registry can do that; [`Download::starts_at`] tells.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Download> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            headers.insert(
                RANGE,
                HeaderValue::try_from(format!("bytes={offset}-"))
                    .expect("digits are fine in a header"),
            );
        }
        let path = format!("{}/blobs/{digest}", self.reference.path());
        let response = self.get(&path, &headers).await?;
        let encoding = response.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Error::invalid(format!(
                "blob {digest} came in an encoding that was not asked for"
            )));
        }
        let starts_at = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let start = range
                .and_then(|range| range.strip_prefix("bytes "))
                .and_then(|range| range.split('-').next());
            match start.and_then(|start| start.parse().ok()) {
                Some(start) if start <= offset => start,
                _ => return Err(Error::invalid(format!("blob {digest} came with a wrong range"))),
            }
        } else {
            0
        };
        Ok(Download { body: response.into_body(), starts_at, stall: self.stall })
    }

    /// Asks, introduces us again if that is wanted, and takes only success for an answer.
    async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response<Incoming>> {
        self.try_get(path, headers).await.map_err(|failure| failure.into_error(&self.reference))
    }

    async fn try_get(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let uri = self.uri(path)?;
        let authorization = self.current_authorization();
        let mut response =
            self.follow(Method::GET, uri.clone(), headers, authorization.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenges = auth::challenges(response.headers());
            // A second look with the same token would end the same way.
            let expired = !matches!(
                auth::challenge_error(response.headers()).as_deref(),
                Some("insufficient_scope")
            );
            if expired && !challenges.is_empty() {
                let _small = read_body(response, limits::ERROR_BODY, self.stall).await;
                self.authorize(&challenges).await?;
                let authorization = self.current_authorization();
                response = self.follow(Method::GET, uri, headers, authorization.as_ref()).await?;
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Failure::Ours(Error::invalid(
                "unexpected EOF: the blob is shorter than its manifest says",
            )));
        }
        Err(Failure::Refused(self.refusal(response).await))
    }

    async fn refusal(&self, response: Response<Incoming>) -> Refusal {
        let status = response.status();
        let error = auth::challenge_error(response.headers());
        let body = read_body(response, limits::ERROR_BODY, self.stall).await.unwrap_or_default();
        Refusal::read(status, error.as_deref(), &body)
    }

    fn current_authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the `Authorization` that the registry wants to see, as far as we can.
    async fn authorize(&self, challenges: &[Challenge]) -> Result<(), Failure> {
        let bearer =
            challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match (bearer, &self.credentials) {
            (Some(Challenge::Bearer { realm, service, scope, .. }), _) => {
                Some(auth::bearer(&self.token(realm, service, scope).await?)?)
            }
            (None, Some(credentials))
                if challenges.contains(&Challenge::Basic) && !credentials.username.is_empty() =>
            {
                Some(auth::basic(credentials)?)
            }
            _ => None,
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(())
    }

    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String, Failure> {
        let server = auth::judge(&self.uri("")?, realm)?;
        let ours = format!("repository:{}:pull", self.reference.path());
        let scope = if scope.is_empty() { ours.as_str() } else { scope };
        let credentials = self.credentials.as_ref().filter(|_| server.trusted);
        if self.credentials.is_some() && !server.trusted {
            tracing::warn!(
                registry = %self.base,
                server = %server.uri.authority().map(ToString::to_string).unwrap_or_default(),
                "credentials withheld from a token server outside the registry's site"
            );
        }
        let mut headers = HeaderMap::new();
        let refresh = credentials
            .map(|credentials| credentials.identity_token.as_str())
            .filter(|token| !token.is_empty());
        let response = if let Some(refresh) = refresh {
            let form = auth::encode_query(&[
                ("grant_type", "refresh_token"),
                ("refresh_token", refresh),
                ("service", service),
                ("scope", scope),
                ("client_id", "gantry"),
            ]);
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
            self.once(Method::POST, &server.uri, &headers, None, Bytes::from(form)).await?
        } else {
            let mut pairs = vec![("scope", scope), ("service", service)];
            let mut authorization = None;
            if let Some(credentials) =
                credentials.filter(|credentials| !credentials.username.is_empty())
            {
                pairs.insert(0, ("account", &credentials.username));
                authorization = Some(auth::basic(credentials)?);
            }
            let query = auth::encode_query(&pairs);
            let separator = if server.uri.query().is_some() { '&' } else { '?' };
            let uri = format!("{}{separator}{query}", server.uri);
            let uri: Uri =
                uri.parse().map_err(|_| Error::invalid("the token server has no valid address"))?;
            self.follow(Method::GET, uri, &headers, authorization.as_ref()).await?
        };
        if !response.status().is_success() {
            return Err(Failure::Refused(self.refusal(response).await));
        }
        let body = read_body(response, limits::TOKEN_BODY, self.stall).await?;
        Ok(auth::token(&body)?)
    }

    fn uri(&self, path: &str) -> Result<Uri> {
        let text = format!("{}/v2/{path}", self.base);
        text.parse().map_err(|_| Error::invalid(format!("invalid registry address {text:?}")))
    }

    /// Sends a request and follows where it is sent to. Credentials stay with the origin they are for.
    async fn follow(
        &self,
        method: Method,
        uri: Uri,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Failure> {
        let origin = (uri.scheme().cloned(), uri.authority().cloned());
        let mut uri = uri;
        for _ in 0..=limits::REDIRECTS {
            let home = (uri.scheme().cloned(), uri.authority().cloned()) == origin;
            let authorization = authorization.filter(|_| home);
            let response =
                self.once(method.clone(), &uri, headers, authorization, Bytes::new()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location =
                response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            uri = redirected(&uri, location.unwrap_or_default())?;
        }
        Err(Failure::Unreachable(format!(
            "{} {:?}: stopped after {} redirects",
            verb(&method),
            shown(&uri),
            limits::REDIRECTS
        )))
    }

    async fn once(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("gantry/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let unreachable = |words: &str| {
            Failure::Unreachable(format!("{} {:?}: {words}", verb(&method), shown(uri)))
        };
        match tokio::time::timeout(self.stall, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(&transport_words(&error))),
            Err(_) => Err(unreachable("net/http: timeout awaiting response headers")),
        }
    }
}

/// A blob on its way.
pub(crate) struct Download {
    body: Incoming,
    /// Where in the blob the first byte belongs.
    pub(crate) starts_at: u64,
    stall: Duration,
}

impl Download {
    /// The next piece; a registry that stops sending has failed.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            let frame = match tokio::time::timeout(self.stall, self.body.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some(Err(Error::unavailable("the registry stopped sending"))),
            };
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(Error::unavailable(body_words(&error)))),
            }
        }
    }
}

async fn read_body(response: Response<Incoming>, limit: usize, stall: Duration) -> Result<Vec<u8>> {
    let body = Limited::new(response.into_body(), limit).collect();
    match tokio::time::timeout(stall, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::invalid(format!("the answer is larger than {limit} bytes")))
        }
        Ok(Err(error)) => Err(Error::unavailable(
            error.downcast_ref::<hyper::Error>().map_or_else(|| error.to_string(), body_words),
        )),
        Err(_) => Err(Error::unavailable("the registry stopped sending")),
    }
}

/// `</v2/name/tags/list?last=x>; rel="next"` → `name/tags/list?last=x`. Whatever host it names, the page is asked of ours.
fn next_page(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
    let (_, path) = target.split_once("/v2/")?;
    next.then(|| path.to_owned())
}

/// The digest of `bytes` by the algorithm of `like`.
fn digest_like(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = oci::Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

/// Where a redirect leads: never from TLS to none, never out of HTTP.
fn redirected(from: &Uri, location: &str) -> Result<Uri, Failure> {
    let bad =
        |why: &str| Failure::Ours(Error::invalid(format!("redirect of {:?} {why}", shown(from))));
    let (scheme, authority) =
        (from.scheme_str().unwrap_or_default(), from.authority().map_or("", |a| a.as_str()));
    let text = match location {
        "" => return Err(bad("leads nowhere")),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let to: Uri = text.parse().map_err(|_| bad("leads nowhere"))?;
    match (scheme, to.scheme_str()) {
        ("https", Some("http")) => Err(bad("leads away from TLS")),
        (_, Some("http" | "https"))
            if to.authority().is_some_and(|authority| !authority.as_str().contains('@')) =>
        {
            Ok(to)
        }
        _ => Err(bad("leads nowhere")),
    }
}

/// A URL as it may be shown: the query of a redirect's target is often a signature.
fn shown(uri: &Uri) -> String {
    let text = uri.to_string();
    match text
        .split_once("X-Amz-")
        .or_else(|| text.split_once("Signature="))
        .or_else(|| text.split_once("sig="))
    {
        Some(_) => text.split('?').next().unwrap_or_default().to_owned(),
        None => text,
    }
}

/// Go names the method so in its errors.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        _ => "Get",
    }
}

fn transport_words(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut last = error.to_string();
    while let Some(inner) = cause {
        if let Some(dial) = inner.downcast_ref::<DialError>() {
            return dial.to_string();
        }
        if let Some(hyper) = inner.downcast_ref::<hyper::Error>() {
            return body_words(hyper);
        }
        last = inner.to_string();
        cause = inner.source();
    }
    last
}

fn body_words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "unexpected EOF".to_owned();
    }
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    if io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof) {
        return "unexpected EOF".to_owned();
    }
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_do_not_leave_tls() {
        let check = |from: &str, location: &str, expected: Option<&str>| {
            let to = redirected(&from.parse().unwrap(), location).ok().map(|uri| uri.to_string());
            assert_eq!(to.as_deref(), expected, "{from} {location}");
        };
        check("https://a/v2/x", "https://cdn/y?z", Some("https://cdn/y?z"));
        check("https://a/v2/x", "/y", Some("https://a/y"));
        check("https://a/v2/x", "//b/y", Some("https://b/y"));
        check("http://a/v2/x", "https://b/y", Some("https://b/y"));
        check("https://a/v2/x", "http://a/y", None);
        check("https://a/v2/x", "file:///etc/passwd", None);
        check("https://a/v2/x", "https://user:pw@b/y", None);
        check("https://a/v2/x", "", None);
    }
}
