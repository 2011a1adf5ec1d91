//! Readers with a budget: what comes from outside never decides how much memory we use.

use std::io::Read;

use crate::{Error, Result};

/// Reads to the end, but never more than `limit` bytes; more is refused with a sentence that names `what`.
pub fn read_to_end(reader: impl Read, limit: usize, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(Error::invalid(format!("{what} is larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_kept() {
        assert_eq!(read_to_end(&b"abc"[..], 3, "it").unwrap(), b"abc");
        assert_eq!(
            read_to_end(&b"abcd"[..], 3, "it").unwrap_err().to_string(),
            "it is larger than 3 bytes"
        );
    }
}
