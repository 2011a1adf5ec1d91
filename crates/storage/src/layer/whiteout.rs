//! How a layer says that something below it is gone: `.wh.name`, and `.wh..wh..opq` for all of a directory.

use stdx::{Error, Result};

pub(crate) const PREFIX: &[u8] = b".wh.";
/// Files of AUFS's own at the top of old layers.
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the name of an entry says besides itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// Nothing below this layer of that name.
    Gone(&'a [u8]),
    /// Nothing below this layer in the directory that the entry is in.
    Opaque,
    /// A leftover of AUFS that means nothing.
    Ignored,
}

/// Reads the cleaned path of an entry.
pub(crate) fn parse<'a>(path: &[u8], name: &'a [u8]) -> Result<Option<Marker<'a>>> {
    if name == OPAQUE {
        return Ok(Some(Marker::Opaque));
    }
    if path.starts_with(META) {
        return Ok(Some(Marker::Ignored));
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err(Error::invalid("invalid whiteout name")),
        Some(gone) => Ok(Some(Marker::Gone(gone))),
    }
}

/// `a/b` is gone: `a/.wh.b`.
pub(crate) fn mark(path: &[u8]) -> Vec<u8> {
    let (parent, name) = crate::walk::split(path);
    crate::walk::join(parent, &[PREFIX, name].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_more() {
        let of = |path: &'static [u8]| parse(path, crate::walk::split(path).1);
        assert_eq!(of(b"a/b").unwrap(), None);
        assert_eq!(of(b"a/.wh.b").unwrap(), Some(Marker::Gone(b"b")));
        assert_eq!(of(b"a/.wh..wh..opq").unwrap(), Some(Marker::Opaque));
        assert_eq!(of(b".wh..wh..opq").unwrap(), Some(Marker::Opaque));
        assert_eq!(of(b".wh..wh.plnk/12.3").unwrap(), Some(Marker::Ignored));
        assert_eq!(of(b"a/.wh..wh.b").unwrap(), Some(Marker::Gone(b".wh.b")));
        for path in [&b"a/.wh."[..], b"a/.wh..", b"a/.wh..."] {
            assert_eq!(of(path).unwrap_err().to_string(), "invalid whiteout name");
        }
        assert_eq!(mark(b"a/b"), b"a/.wh.b");
        assert_eq!(mark(b"b"), b".wh.b");
    }
}
