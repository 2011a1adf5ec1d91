//! Plugins that are asked about every request before it is done, and about every answer before it is sent
//! (`AuthZPlugin`, Docker's plugin protocol).
//!
//! A plugin is shown the very bytes that will be obeyed: a JSON body that is longer than a plugin is shown is refused, and
//! so is a request of which somebody cannot be asked. What is no JSON (archives, terminals) is not shown, as in Docker.

mod peer;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body as _;
use plugin::{Patience, Plugins};
use serde::{Deserialize, Serialize};
use stdx::{Error, Result};

pub(crate) use self::peer::Peer;
use crate::error::{self, Refusal};

/// What a plugin says that it is.
const INTERFACE: &str = "authz";
/// How long one may think about it.
const THOUGHT: Duration = Duration::from_secs(60);
/// The longest body of a request that plugins are shown: Docker's limit.
const REQUEST: usize = 1 << 20;
/// The longest body of an answer that plugins are shown: Docker's limit. Longer ones are sent unseen.
const ANSWER: u64 = 64 << 10;
/// Secrets of the client's that are nobody's business.
const UNSHOWN: [&str; 2] = ["x-registry-auth", "x-registry-config"];

/// Whom to ask, in this order; about answers in the other.
#[derive(Debug)]
pub struct Authorization {
    names: Vec<String>,
    plugins: Arc<Plugins>,
}

/// Who is asked now. What begins is asked about as it is; others take over when the configuration is read again.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<RwLock<Option<Arc<Authorization>>>>);

impl Gate {
    pub fn new(authorization: Option<Authorization>) -> Self {
        Self(Arc::new(RwLock::new(authorization.map(Arc::new))))
    }

    pub fn put(&self, authorization: Option<Authorization>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = authorization.map(Arc::new);
    }

    pub(crate) fn now(&self) -> Option<Arc<Authorization>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a plugin is told.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(rename = "UserAuthNMethod", skip_serializing_if = "String::is_empty")]
    user_authn_method: String,
    request_method: String,
    request_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    request_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    request_peer_certificates: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    response_headers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Verdict {
    allow: bool,
    msg: String,
    err: String,
}

/// A request that has been allowed, until its answer is.
pub(crate) struct Allowed {
    authorization: Arc<Authorization>,
    question: Question,
}

impl Authorization {
    /// Fails when one of them is not there, or is something else: a daemon that should ask and cannot must not start.
    /// Nobody is asked where there are none.
    pub fn new(names: Vec<String>, plugins: Arc<Plugins>) -> Result<Option<Self>> {
        for name in &names {
            plugins.get(name, INTERFACE, Patience::Long).map_err(|cause| {
                Error::invalid("failed to validate authorization plugin").caused_by(cause)
            })?;
        }
        Ok((!names.is_empty()).then_some(Self { names, plugins }))
    }

    /// Asks about a request, and gives back the same.
    pub(crate) async fn request<B>(
        self: Arc<Self>,
        request: Request<B>,
        peer: &Peer,
    ) -> Result<(Request<Body>, Allowed), Response>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let mut question = Question {
            user: peer.user.clone(),
            user_authn_method: if peer.user.is_empty() { "" } else { "TLS" }.to_owned(),
            request_method: parts.method.to_string(),
            request_uri: parts.uri.to_string(),
            request_headers: shown(&parts.headers),
            request_peer_certificates: peer.certificates.clone(),
            ..Question::default()
        };
        let body = if shows_body(parts.uri.path(), &parts.headers) {
            let Ok(whole) = Limited::new(body, REQUEST).collect().await else {
                return Err(error::message(
                    StatusCode::FORBIDDEN,
                    &format!(
                        "authorization denied: the request's body is longer than the {REQUEST} bytes that authorization \
                         plugins are shown, or cannot be read"
                    ),
                ));
            };
            let bytes = whole.to_bytes();
            question.request_body = (!bytes.is_empty()).then(|| STANDARD.encode(&bytes));
            Body::from(bytes)
        } else {
            Body::new(body)
        };
        let allowed = Allowed { authorization: self, question };
        allowed.ask("AuthZPlugin.AuthZReq").await?;
        Ok((Request::from_parts(parts, body), allowed))
    }

    fn judge(&self, method: &str, question: &Question) -> Result<()> {
        let about_answer = method == "AuthZPlugin.AuthZRes";
        let mut names: Vec<&String> = self.names.iter().collect();
        if about_answer {
            names.reverse();
        }
        for name in names {
            let verdict: Result<Verdict> = self
                .plugins
                .get(name, INTERFACE, Patience::None)
                .and_then(|plugin| Ok(plugin.call(method, question, THOUGHT, Patience::None)?));
            let failed =
                |words: &str| Error::internal(format!("plugin {name} failed with error: {words}"));
            match verdict {
                Err(error) => return Err(failed(&error.chain())),
                Ok(Verdict { err, .. }) if !err.is_empty() => return Err(failed(&err)),
                Ok(Verdict { allow: true, .. }) => {}
                Ok(Verdict { msg, .. }) => {
                    return Err(Error::forbidden(format!(
                        "authorization denied by plugin {name}: {msg}"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Allowed {
    /// Asks about the answer, and gives back the same, or a refusal in its place.
    pub(crate) async fn response(mut self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        self.question.response_status_code = Some(parts.status.as_u16());
        self.question.response_headers = shown(&parts.headers);
        let short = body.size_hint().exact().is_some_and(|length| length <= ANSWER);
        let path = self.question.request_uri.split('?').next().unwrap_or_default();
        let body = if short && shows_body(path, &parts.headers) {
            match body.collect().await {
                Err(error) => {
                    let error = Error::internal("cannot read the answer").caused_by(error);
                    return Refusal::from(error).into_response();
                }
                Ok(whole) => {
                    let bytes = whole.to_bytes();
                    self.question.response_body =
                        (!bytes.is_empty()).then(|| STANDARD.encode(&bytes));
                    Body::from(bytes)
                }
            }
        } else {
            body
        };
        match self.ask("AuthZPlugin.AuthZRes").await {
            Ok(()) => Response::from_parts(parts, body),
            Err(refusal) => refusal,
        }
    }

    async fn ask(&self, method: &'static str) -> Result<(), Response> {
        let (authorization, question) = (Arc::clone(&self.authorization), self.question.clone());
        let verdict = tokiox::blocking(move || authorization.judge(method, &question)).await;
        verdict.map_err(|error| Refusal::from(error).into_response())
    }
}

/// JSON is shown, and what does not say what it is and would be taken for it; but not a login.
fn shows_body(path: &str, headers: &HeaderMap) -> bool {
    let login = path.trim_end_matches('/').ends_with("/auth");
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let json = kind.is_none_or(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    });
    json && !login
}

/// Headers as Go writes their names; several of one name are one, with commas.
fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for name in headers.keys().filter(|name| !UNSHOWN.contains(&name.as_str())) {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        shown.insert(canonical(name.as_str()), values.join(","));
    }
    shown
}

/// `content-type` is `Content-Type`.
fn canonical(name: &str) -> String {
    let mut start = true;
    let upper = |letter: char| {
        let cased = if start { letter.to_ascii_uppercase() } else { letter };
        start = letter == '-';
        cased
    };
    name.chars().map(upper).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn which_bodies_are_shown() {
        let json = headers(&[("content-type", "application/json; charset=utf-8")]);
        assert!(shows_body("/v1.41/containers/create", &json));
        assert!(shows_body("/containers/create", &headers(&[])));
        assert!(!shows_body("/v1.41/auth", &json) && !shows_body("/auth/", &json));
        assert!(!shows_body("/build", &headers(&[("content-type", "application/x-tar")])));
    }

    #[test]
    fn which_headers_are_shown() {
        let mut headers = headers(&[("x-registry-auth", "secret"), ("accept", "a")]);
        headers.append("accept", HeaderValue::from_static("b"));
        headers.append("content-type", HeaderValue::from_static("c"));
        let expected = [("Accept", "a,b"), ("Content-Type", "c")];
        assert_eq!(shown(&headers), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    }
}
