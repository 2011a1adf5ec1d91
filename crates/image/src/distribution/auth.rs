//! How we may ask: challenges understood, token servers judged, `Authorization` made.
//!
//! A registry tells where its token server is; whoever can speak as the registry could so collect credentials
//! (CVE-2020-15157 and its relatives). They are sent to a server of the registry's own site only; any other server is
//! asked without, and one that only makes sense to an attacker is not asked at all.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::uri::Scheme;
use serde::Deserialize;
use stdx::{Error, Result};

use super::{Credentials, host_of};

/// What a registry wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String, error: Option<String> },
}

/// Reads all challenges of a response.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(parse)
        .collect()
}

/// The `error` of a bearer challenge, where the real reason of a refusal stands.
pub(super) fn challenge_error(headers: &HeaderMap) -> Option<String> {
    challenges(headers).into_iter().find_map(|challenge| match challenge {
        Challenge::Bearer { error, .. } => error,
        Challenge::Basic => None,
    })
}

fn parse(text: &str) -> Option<Challenge> {
    let (scheme, parameters) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope, mut error) = (None, String::new(), String::new(), None);
    for (key, value) in parameters_of(parameters) {
        match key.as_str() {
            "realm" => realm = Some(value),
            "service" => service = value,
            "scope" => scope = value,
            "error" => error = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service, scope, error })
}

/// `key="value, quoted", key=value`
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        if after.starts_with('"') {
            chars.next();
            let mut escaped = false;
            for (at, c) in chars {
                match c {
                    _ if escaped => {
                        value.push(c);
                        escaped = false;
                    }
                    '\\' => escaped = true,
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    _ => value.push(c),
                }
            }
        } else {
            end = after.find(',').unwrap_or(after.len());
            after[..end].trim().clone_into(&mut value);
        }
        parameters.push((key.trim().to_ascii_lowercase(), value));
        rest = after[end..].trim_start_matches([',', ' ', '\t']);
    }
    parameters
}

/// A token server that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenServer {
    pub(super) uri: Uri,
    /// It may see the credentials.
    pub(super) trusted: bool,
}

/// Judges the token server that the registry at `registry` names.
pub(super) fn judge(registry: &Uri, realm: &str) -> Result<TokenServer> {
    let refuse = |why: &str| {
        Error::invalid(format!("registry {} names a token server that {why}", host_text(registry)))
    };
    let uri: Uri = realm.parse().map_err(|_| refuse("has no valid address"))?;
    let (Some(authority), Some(scheme)) = (uri.authority(), uri.scheme()) else {
        return Err(refuse("has no valid address"));
    };
    if authority.as_str().contains('@') {
        return Err(refuse("has a user in its address"));
    }
    let plain = *scheme == Scheme::HTTP;
    if !plain && *scheme != Scheme::HTTPS {
        return Err(refuse("does not speak HTTP"));
    }
    if plain && registry.scheme() != Some(&Scheme::HTTP) {
        return Err(refuse("does not use TLS"));
    }
    let (theirs, ours) = (host_of(authority.as_str()), host_of(host_text(registry)));
    let local = |host: &str| {
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    };
    if local(theirs) && !local(ours) {
        return Err(refuse("is on this host"));
    }
    let same_origin =
        uri.scheme() == registry.scheme() && port_of(&uri) == port_of(registry) && theirs == ours;
    let trusted = same_origin || (!plain && port_of(&uri) == 443 && same_site(ours, theirs));
    Ok(TokenServer { uri, trusted })
}

fn host_text(uri: &Uri) -> &str {
    uri.authority().map(http::uri::Authority::as_str).unwrap_or_default()
}

fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 })
}

/// Two names under one that somebody owns: `registry-1.docker.io` and `auth.docker.io`.
fn same_site(registry: &str, server: &str) -> bool {
    if registry == server {
        return true;
    }
    if registry.parse::<IpAddr>().is_ok() || server.parse::<IpAddr>().is_ok() {
        return false;
    }
    let (registry, server) = (registry.to_ascii_lowercase(), server.to_ascii_lowercase());
    let labels: Vec<&str> = registry.split('.').collect();
    let site = match labels.as_slice() {
        [_, _] => registry.as_str(),
        // `registry.co.uk` is a site; `co.uk` is not.
        [_, second, top] if top.len() == 2 && second.len() <= 3 => registry.as_str(),
        [_, _, _, ..] => registry.split_once('.').map_or("", |(_, site)| site),
        _ => return false,
    };
    server == site || server.strip_suffix(site).is_some_and(|rest| rest.ends_with('.'))
}

/// `Basic …`
pub(super) fn basic(credentials: &Credentials) -> Result<HeaderValue> {
    header(format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", credentials.username, credentials.password))
    ))
}

/// `Bearer …`
pub(super) fn bearer(token: &str) -> Result<HeaderValue> {
    header(format!("Bearer {token}"))
}

fn header(text: String) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Error::invalid("credentials with control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a token server's answer.
pub(super) fn token(body: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|cause| Error::internal("unable to decode token response").caused_by(cause))?;
    [answer.token, answer.access_token].into_iter().find(|token| !token.is_empty()).ok_or_else(
        || Error::internal("authorization server did not include a token in the response"),
    )
}

/// A query or form of `key=value` pairs, encoded.
pub(super) fn encode_query(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|c| match c {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(c).to_string()
                }
                _ => format!("%{c:02X}"),
            })
            .collect()
    };
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let check =
            |text: &str, expected: Option<Challenge>| assert_eq!(parse(text), expected, "{text}");
        check("Basic realm=\"x\"", Some(Challenge::Basic));
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_owned(),
                service: "registry.docker.io".to_owned(),
                scope: "repository:a/b:pull,push".to_owned(),
                error: None,
            }),
        );
        check(
            r#"bearer Realm=https://x/t , error="in\"sufficient""#,
            Some(Challenge::Bearer {
                realm: "https://x/t".to_owned(),
                service: String::new(),
                scope: String::new(),
                error: Some("in\"sufficient".to_owned()),
            }),
        );
        check("Bearer service=\"x\"", None);
        check("Negotiate", None);
        check("", None);
    }

    #[test]
    fn credentials_stay_on_the_registrys_site() {
        let judge = |registry: &str, realm: &str| match judge(&registry.parse().unwrap(), realm) {
            Ok(server) if server.trusted => "trusted",
            Ok(_) => "anonymous",
            Err(_) => "refused",
        };
        for (registry, realm, verdict) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", "trusted"),
            ("https://ghcr.io", "https://ghcr.io/token", "trusted"),
            ("https://quay.io", "https://auth.quay.io/token", "trusted"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", "trusted"),
            ("https://reg.example.com:5000", "https://reg.example.com/token", "trusted"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", "trusted"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", "anonymous"),
            ("http://reg.example", "http://auth.example/token", "anonymous"),
            ("https://ghcr.io", "https://evil.io/token", "anonymous"),
            ("https://registry.co.uk", "https://evil.co.uk/token", "anonymous"),
            ("https://registry-1.docker.io", "https://evildocker.io/token", "anonymous"),
            ("https://ghcr.io", "https://ghcr.io.evil.com/token", "anonymous"),
            ("https://10.0.0.1", "https://10.0.0.2/token", "anonymous"),
            ("https://ghcr.io", "http://ghcr.io/token", "refused"),
            ("https://ghcr.io", "https://user@ghcr.io/token", "refused"),
            ("https://ghcr.io", "https://127.0.0.1/token", "refused"),
            ("https://ghcr.io", "https://localhost/token", "refused"),
            ("https://ghcr.io", "https://[::1]/token", "refused"),
            ("https://ghcr.io", "file:///etc/passwd", "refused"),
            ("https://ghcr.io", "/token", "refused"),
        ] {
            assert_eq!(judge(registry, realm), verdict, "{registry} {realm}");
        }
    }

    #[test]
    fn tokens_by_either_name() {
        assert_eq!(token(br#"{"token":"a","access_token":"b"}"#).unwrap(), "a");
        assert_eq!(token(br#"{"access_token":"b","expires_in":60}"#).unwrap(), "b");
        assert!(token(b"{}").is_err());
        assert_eq!(
            encode_query(&[("scope", "repository:a/b:pull")]),
            "scope=repository%3Aa%2Fb%3Apull"
        );
    }
}
