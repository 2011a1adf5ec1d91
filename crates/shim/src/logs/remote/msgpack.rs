//! MessagePack, as far as fluentd's forward protocol needs it: written as tersely as it can be, and enough read of it to
//! understand an acknowledgement.

pub(super) fn array(length: u8, out: &mut Vec<u8>) {
    out.push(0x90 | (length & 0x0f));
}

pub(super) fn map(length: usize, out: &mut Vec<u8>) {
    match u16::try_from(length) {
        Ok(length @ 0..16) => out.push(0x80 | length.to_le_bytes()[0]),
        Ok(length) => {
            out.push(0xde);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(0xdf);
            out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    match u32::try_from(text.len()).unwrap_or(u32::MAX) {
        length @ 0..32 => out.push(0xa0 | length.to_le_bytes()[0]),
        length @ 32..256 => out.extend_from_slice(&[0xd9, length.to_le_bytes()[0]]),
        length @ 256..65536 => {
            out.push(0xda);
            out.extend_from_slice(&length.to_be_bytes()[2..]);
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// Seconds since 1970.
pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(0xd2);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Err(_) => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Fluentd's time with nanoseconds: extension 0 of eight bytes.
pub(super) fn event_time(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd7, 0x00]);
    out.extend_from_slice(&u32::try_from(seconds).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&nanos.to_be_bytes());
}

/// Not what was expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rubbish;

/// A name and what it says.
type Pair = (Vec<u8>, Vec<u8>);

/// What a map of two strings says: `{"ack": "…"}`. `Ok(None)` when more must be read first.
pub(super) fn one_pair(bytes: &[u8]) -> Result<Option<Pair>, Rubbish> {
    let Some((head, rest)) = bytes.split_first() else { return Ok(None) };
    if *head != 0x81 {
        return Err(Rubbish);
    }
    let Some((key, rest)) = read_string(rest)? else { return Ok(None) };
    let Some((value, _)) = read_string(rest)? else { return Ok(None) };
    Ok(Some((key.to_vec(), value.to_vec())))
}

/// A string, and what is behind it.
type Read<'a> = Result<Option<(&'a [u8], &'a [u8])>, Rubbish>;

fn read_string(bytes: &[u8]) -> Read<'_> {
    let Some((head, rest)) = bytes.split_first() else { return Ok(None) };
    let width = match head {
        0xa0..=0xbf => return Ok(rest.split_at_checked(usize::from(head & 0x1f))),
        0xd9 | 0xc4 => 1,
        0xda | 0xc5 => 2,
        _ => return Err(Rubbish),
    };
    let Some((length, rest)) = rest.split_at_checked(width) else { return Ok(None) };
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    Ok(rest.split_at_checked(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_width() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            out
        };
        assert_eq!(written(&|out| string(b"ab", out)), b"\xa2ab");
        assert_eq!(written(&|out| string(&[b'x'; 40], out))[..2], [0xd9, 40]);
        assert_eq!(written(&|out| string(&[b'x'; 300], out))[..3], [0xda, 1, 44]);
        assert_eq!(written(&|out| string(&[b'x'; 70_000], out))[..5], [0xdb, 0, 1, 0x11, 0x70]);
        assert_eq!(written(&|out| map(3, out)), [0x83]);
        assert_eq!(written(&|out| map(16, out)), [0xde, 0, 16]);
        assert_eq!(written(&|out| integer(1, out)), [0xd2, 0, 0, 0, 1]);
        assert_eq!(written(&|out| integer(1 << 32, out)), [0xd3, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(written(&|out| event_time(2, 3, out)), [0xd7, 0, 0, 0, 0, 2, 0, 0, 0, 3]);
    }

    #[test]
    fn an_acknowledgement() {
        let whole = b"\x81\xa3ack\xd9\x04abcd";
        for cut in 0..whole.len() {
            assert_eq!(one_pair(&whole[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(one_pair(whole), Ok(Some((b"ack".to_vec(), b"abcd".to_vec()))));
        assert_eq!(one_pair(b"HTTP"), Err(Rubbish));
    }
}
