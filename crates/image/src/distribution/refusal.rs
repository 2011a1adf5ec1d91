//! What a registry answers instead of what was asked for, turned into Docker's words.

use http::StatusCode;
use oci::Reference;
use serde::Deserialize;
use stdx::{Error, Kind};

/// A refusal: the distribution specification's code and message, where the registry spoke so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// `MANIFEST_UNKNOWN`; empty when the body was something else.
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
    /// Some token servers answer so.
    #[serde(default)]
    details: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// Reads a refusal from the status, the `error` parameter of a bearer challenge and the beginning of the body.
    pub(super) fn read(status: StatusCode, challenge_error: Option<&str>, body: &[u8]) -> Self {
        let refusal = |code: &str, message: &str| Self {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        match challenge_error {
            Some("insufficient_scope") => {
                return refusal("DENIED", "requested access to the resource is denied");
            }
            Some("invalid_token") => return refusal("UNAUTHORIZED", "authentication required"),
            _ => {}
        }
        if !status.is_client_error() {
            let words = format!("received unexpected HTTP status: {status}");
            return refusal("", &words);
        }
        let Ok(parsed) = serde_json::from_slice::<Body>(body) else {
            if status == StatusCode::UNAUTHORIZED {
                return refusal("UNAUTHORIZED", "authentication required");
            }
            let text: String = String::from_utf8_lossy(body).chars().take(256).collect();
            let words = format!("error parsing HTTP {} response body: {text:?}", status.as_u16());
            return refusal("", &words);
        };
        match parsed.errors.first() {
            Some(entry) if entry.message.is_empty() => {
                refusal(&entry.code, &entry.code.to_lowercase().replace('_', " "))
            }
            Some(entry) => refusal(&entry.code, &entry.message),
            None if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN => {
                let said =
                    [parsed.details, parsed.message].into_iter().find(|text| !text.is_empty());
                let code = if status == StatusCode::FORBIDDEN { "DENIED" } else { "UNAUTHORIZED" };
                refusal(code, &said.unwrap_or_else(|| "authentication required".to_owned()))
            }
            None => refusal(
                "",
                &format!(
                    "error parsing HTTP {} response body: no error details found in HTTP response body",
                    status.as_u16()
                ),
            ),
        }
    }

    /// As Docker prints a registry's error: `manifest unknown: manifest unknown`.
    pub(super) fn words(&self) -> String {
        // What a registry says ends up on terminals: no control characters.
        let message: String = self.message.chars().filter(|c| !c.is_control()).collect();
        match self.code.as_str() {
            "" => message,
            code => format!("{}: {message}", code.to_lowercase().replace('_', " ")),
        }
    }

    /// Worth asking again after a while.
    pub(super) fn may_pass(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// What it means to somebody who wanted `reference`.
    pub(super) fn for_pull(&self, reference: &Reference) -> Error {
        let words = self.words();
        match self.code.as_str() {
            "DENIED" => Error::not_found(format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': {words}",
                reference.familiar_name()
            )),
            "MANIFEST_UNKNOWN" => Error::not_found(format!(
                "manifest for {} not found: {words}",
                reference.familiar()
            )),
            "NAME_UNKNOWN" => Error::not_found(format!(
                "repository {} not found: {words}",
                reference.familiar_name()
            )),
            "UNAUTHORIZED" => Error::unauthorized(words),
            _ if self.may_pass() => Error::unavailable(words),
            _ => Error::new(Kind::Internal, words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_dockers() {
        let reference = Reference::parse_normalized("x:y").unwrap();
        let check = |status: u16, challenge: Option<&str>, body: &str, words: &str| {
            let refusal =
                Refusal::read(StatusCode::from_u16(status).unwrap(), challenge, body.as_bytes());
            assert_eq!(refusal.for_pull(&reference).to_string(), words);
        };
        check(
            404,
            None,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"y"}}]}"#,
            "manifest for x:y not found: manifest unknown: manifest unknown",
        );
        check(
            404,
            None,
            r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#,
            "repository x not found: name unknown: name unknown",
        );
        check(
            401,
            Some("insufficient_scope"),
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access \
             to the resource is denied",
        );
        check(401, None, "no", "unauthorized: authentication required");
        check(
            401,
            None,
            r#"{"details":"incorrect username or password"}"#,
            "unauthorized: incorrect username or password",
        );
        check(
            429,
            None,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u001b[2J down"}]}"#,
            "toomanyrequests: slow[2J down",
        );
        check(500, None, "{}", "received unexpected HTTP status: 500 Internal Server Error");
        check(404, None, "<html>", "error parsing HTTP 404 response body: \"<html>\"");
    }
}
