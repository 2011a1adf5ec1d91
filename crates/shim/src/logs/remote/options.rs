//! Reading options, with Go's words where they are wrong.

use std::collections::BTreeMap;

use plugin::http::Target;
use plugin::{Address, TlsFiles};
use stdx::{Error, Result};

pub(super) type Options = BTreeMap<String, String>;

/// The value, if it says anything.
pub(super) fn given<'a>(options: &'a Options, name: &str) -> Option<&'a str> {
    options.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

/// `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

/// One that may be absent or empty.
pub(super) fn flag(options: &Options, name: &str, otherwise: bool) -> Result<bool> {
    given(options, name).map_or(Ok(otherwise), boolean)
}

/// `url.Parse` for what logging drivers are given: a scheme, an authority, a path, and whether there is anything behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) scheme: &'a str,
    /// `host` or `host:port`.
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    pub(super) query: bool,
}

pub(super) fn url(text: &str) -> Option<Url<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, behind) = rest.split_at(end);
    Some(Url { scheme, authority, path, query: !behind.is_empty() })
}

/// `host:port`, with brackets around an address of IPv6.
pub(super) fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return None;
    }
    Some((bare.unwrap_or(host), port.parse().ok()?))
}

/// The server of an address of the web, and what it is asked for there.
pub(super) fn web(text: &str, bad: impl FnOnce() -> Error) -> Result<(Target, &str)> {
    let parsed = url(text).filter(|url| matches!(url.scheme, "http" | "https")).ok_or_else(bad)?;
    let encrypted = parsed.scheme == "https";
    let usual = if encrypted { 443 } else { 80 };
    let (host, port) = host_and_port(parsed.authority).unwrap_or((parsed.authority, usual));
    let tls = encrypted.then(|| plugin::tls::config(&TlsFiles::default())).transpose()?;
    let address = Address::Tcp { host: host.to_owned(), port, tls: None };
    let path = if parsed.path.is_empty() { "/" } else { parsed.path };
    Ok((Target { address, tls, name: None }, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parsed = url("tcp://h:1/p?q").unwrap();
        let expected = Url { scheme: "tcp", authority: "h:1", path: "/p", query: true };
        assert_eq!(parsed, expected);
        assert_eq!(url("h:1"), None);
        assert_eq!(host_and_port("[::1]:5"), Some(("::1", 5)));
        assert_eq!(host_and_port("::1"), None);
        assert_eq!(host_and_port("h"), None);
        assert_eq!(host_and_port("h:x"), None);
        let of = |text| web(text, || Error::invalid("none")).map_err(|error| error.chain());
        let (target, path) = of("http://h").unwrap();
        assert_eq!((target.host(), path, target.tls.is_none()), ("h:80".to_owned(), "/", true));
        let (target, path) = of("https://h:1/p").unwrap();
        assert_eq!((target.host(), path, target.tls.is_some()), ("h:1".to_owned(), "/p", true));
        assert_eq!(of("ftp://h").err().unwrap(), "none");
    }
}
