//! What a request says: query parameters and bodies, read as Docker reads them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use api::ApiVersion;
use api::json;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use bytes::Bytes;
use engine::Filters;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stdx::time::Timestamp;
use stdx::{Error, Result};

use crate::error::{self, Refusal};

/// More than any honest JSON body.
const BODY: usize = 4 << 20;

/// The version the client speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version(pub(crate) ApiVersion);

impl<S: Sync> FromRequestParts<S> for Version {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().copied().unwrap_or_default()))
    }
}

/// The parameters behind the question mark, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(error::message(StatusCode::BAD_REQUEST, "invalid query parameters")),
        }
    }
}

impl Query {
    /// The first value of `name`; an empty one is as good as none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Anything is true but nothing, `0`, `no`, `false` and `none`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() { self.flag(name) } else { default }
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Error::invalid(format!("strconv.Atoi: parsing {text:?}: {}", number_words(text)))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// One of the two sides of a terminal.
    pub(crate) fn side(&self, name: &str) -> Result<u16> {
        let text = self.all(name).next().unwrap_or_default();
        let what = if name == "h" { "height" } else { "width" };
        let words = || format!("invalid resize {what} {text:?}: {}", number_words(text));
        text.parse::<u32>()
            .map(|size| u16::try_from(size).unwrap_or(u16::MAX))
            .map_err(|_| Error::invalid(words()))
    }

    pub(crate) fn filters(&self) -> Result<Filters> {
        Filters::parse(self.get("filters").unwrap_or_default())
    }

    /// The same as plain lists, for rooms that understand filters themselves.
    pub(crate) fn filter_lists(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let Some(text) = self.get("filters") else { return Ok(BTreeMap::new()) };
        let given: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|cause| Error::invalid("invalid filter").caused_by(cause))?;
        let list = |values| match values {
            Values::List(list) => list,
            Values::Set(set) => {
                set.into_iter().filter_map(|(value, wanted)| wanted.then_some(value)).collect()
            }
        };
        Ok(given.into_iter().map(|(name, values)| (name, list(values))).collect())
    }

    pub(crate) fn moment(&self, name: &str) -> Result<Option<Timestamp>> {
        self.get(name).map(Timestamp::parse_api).transpose()
    }

    /// A moment; `0` is none.
    pub(crate) fn moment_unless_zero(&self, name: &str) -> Result<Option<Timestamp>> {
        if self.get(name) == Some("0") { Ok(None) } else { self.moment(name) }
    }
}

/// The two spellings of a filter's values: `["exited"]` and `{"exited":true}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

/// Go's reasons.
fn number_words(text: &str) -> &'static str {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if number { "value out of range" } else { "invalid syntax" }
}

/// A JSON body; none at all is the default.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        match read_json(request).await? {
            None => Ok(Self(T::default())),
            Some(value) => Ok(Self(value)),
        }
    }
}

/// A JSON body that must be there.
pub(crate) struct RequiredJson<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for RequiredJson<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let empty = || invalid(json::Refusal::Empty.to_string());
        read_json(request).await?.map(Self).ok_or_else(empty)
    }
}

async fn read_json<T: DeserializeOwned>(request: Request) -> Result<Option<T>, Response> {
    let (parts, body) = request.into_parts();
    let bytes = read(body).await?;
    if bytes.is_empty() && !parts.headers.contains_key(header::CONTENT_TYPE) {
        return Ok(None);
    }
    check_type(&parts.headers).map_err(invalid)?;
    match bytes.is_empty() {
        true => Ok(None),
        false => json::from_slice(&bytes).map(Some).map_err(|refusal| invalid(refusal.to_string())),
    }
}

fn invalid(words: String) -> Response {
    Refusal::from(Error::invalid(words)).into_response()
}

async fn read(body: Body) -> Result<Bytes, Response> {
    match Limited::new(body, BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(error::message(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large"))
        }
        Err(error) => Err(invalid(format!("invalid JSON: {error}"))),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), String> {
    let text =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    match kind {
        "" => Err(format!("malformed Content-Type header ({text}): mime: no media type")),
        kind if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(format!("unsupported Content-Type header ({text}): must be 'application/json'")),
    }
}

/// The login in `X-Registry-Auth`: JSON in base64, with or without padding. What cannot be read is no login, as in Docker.
pub(crate) fn registry_auth(headers: &HeaderMap) -> Option<api::system::AuthConfig> {
    let text = headers.get("x-registry-auth")?.to_str().ok()?.trim_end_matches('=');
    let alphabets = [
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        &base64::engine::general_purpose::STANDARD_NO_PAD,
    ];
    let bytes = alphabets.iter().find_map(|alphabet| alphabet.decode(text).ok())?;
    let auth: api::system::AuthConfig = json::from_slice(&bytes).ok()?;
    (auth != api::system::AuthConfig::default()).then_some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let uri = format!("/?{text}").parse().unwrap();
        Query(axum::extract::Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn flags_as_docker_takes_them() {
        let query = query("a=1&b=False&c=&d&e=anything&f=0");
        let flags = ["a", "b", "c", "d", "e", "f", "g"].map(|name| query.flag(name));
        assert_eq!(flags, [true, false, false, false, true, false, false]);
        assert!(query.flag_or("g", true));
    }

    #[test]
    fn numbers_in_gos_words() {
        let query = query("t=5&x=five&h=24&w=&big=99999999999999999999");
        assert_eq!(query.number("t").unwrap(), Some(5));
        assert_eq!(
            query.number("x").unwrap_err().to_string(),
            "strconv.Atoi: parsing \"five\": invalid syntax"
        );
        assert_eq!(
            query.number("big").unwrap_err().to_string(),
            "strconv.Atoi: parsing \"99999999999999999999\": value out of range"
        );
        assert_eq!(query.side("h").unwrap(), 24);
        assert_eq!(
            query.side("w").unwrap_err().to_string(),
            "invalid resize width \"\": invalid syntax"
        );
    }

    #[test]
    fn logins_with_and_without_padding() {
        for text in ["eyJ1c2VybmFtZSI6ImEifQ==", "eyJ1c2VybmFtZSI6ImEifQ"] {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-registry-auth"),
                text.parse().unwrap(),
            )]);
            assert_eq!(registry_auth(&headers).unwrap().username, "a");
        }
    }
}
