//! Compressed streams: recognised by their first bytes, decoded in-process, within a budget.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

use stdx::Error;

use super::Limits;
use super::limits::exceeded;
use crate::durable::into_io;

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// Longest of the signatures below.
const SIGNATURE: usize = 6;
/// Compressed bytes read at a time.
const BUFFER: usize = 64 * 1024;

/// Recognises a stream by its beginning, of which six bytes are enough.
pub fn detect(beginning: &[u8]) -> Compression {
    match beginning {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        // A frame, or one of those that say nothing (RFC 8878, 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Decodes whatever `reader` brings, within the default budget.
pub fn decoder<'a>(reader: impl Read + Send + 'a) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    decoder_within(reader, &Limits::default())
}

/// Decodes whatever `reader` brings; the stream fails with a sentence when it costs more than `limits`.
pub fn decoder_within<'a>(
    mut reader: impl Read + Send + 'a,
    limits: &Limits,
) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    let mut beginning = Vec::with_capacity(SIGNATURE);
    reader.by_ref().take(SIGNATURE as u64).read_to_end(&mut beginning)?;
    let compression = detect(&beginning);
    let whole: Chain<_, _> = Cursor::new(beginning).chain(reader);
    if compression == Compression::None {
        return Ok(Box::new(whole));
    }
    let input = Counted { reader: BufReader::with_capacity(BUFFER, whole), taken: 0 };
    let given = Budget { out: 0, limits: limits.clone() };
    Ok(match compression {
        Compression::None => unreachable!("it was returned above"),
        Compression::Gzip => {
            Box::new(Bounded { decoder: flate2::bufread::MultiGzDecoder::new(input), given })
        }
        Compression::Bzip2 => {
            Box::new(Bounded { decoder: bzip2::bufread::MultiBzDecoder::new(input), given })
        }
        Compression::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(limits.xz_memory, flags)?;
            Box::new(Bounded {
                decoder: liblzma::bufread::XzDecoder::new_stream(input, stream),
                given,
            })
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(limits.zstd_window)?;
            Box::new(Bounded { decoder, given })
        }
    })
}

/// A reader that knows how much was taken from it.
struct Counted<R> {
    reader: R,
    taken: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(into)?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        self.reader.consume(count);
    }
}

/// What may still come out.
struct Budget {
    out: u64,
    limits: Limits,
}

impl Budget {
    fn spend(&mut self, count: usize, taken: u64) -> Result<(), Error> {
        self.out += count as u64;
        let limits = &self.limits;
        if self.out > limits.bytes {
            return Err(exceeded(limits.bytes, "bytes"));
        }
        if self.out > limits.free.saturating_add(taken.saturating_mul(limits.ratio)) {
            return Err(exceeded(format_args!("{}:1", limits.ratio), "for its compression"));
        }
        Ok(())
    }
}

/// A decoder that says how much it has taken in.
trait Takes: Read {
    fn taken(&self) -> u64;
}

impl<R: BufRead> Takes for flate2::bufread::MultiGzDecoder<Counted<R>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken
    }
}

impl<R: BufRead> Takes for bzip2::bufread::MultiBzDecoder<Counted<R>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken
    }
}

impl<R: BufRead> Takes for liblzma::bufread::XzDecoder<Counted<R>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken
    }
}

impl<R: BufRead> Takes for zstd::stream::read::Decoder<'_, Counted<R>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken
    }
}

struct Bounded<D> {
    decoder: D,
    given: Budget,
}

impl<D: Takes> Read for Bounded<D> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.decoder.read(into).map_err(damaged)?;
        self.given.spend(count, self.decoder.taken()).map_err(into_io)?;
        Ok(count)
    }
}

/// A stream that cannot be decoded is the sender's fault, whatever kind the decoder's library gives it.
fn damaged(io: std::io::Error) -> std::io::Error {
    if io.raw_os_error().is_some() || io.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return io;
    }
    match io.kind() {
        std::io::ErrorKind::Interrupted => io,
        std::io::ErrorKind::UnexpectedEof => into_io(Error::invalid("unexpected EOF")),
        _ => into_io(Error::invalid(format!("cannot decompress: {io}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_by_their_beginning() {
        assert_eq!(detect(b"\x1f\x8b\x08rest"), Compression::Gzip);
        assert_eq!(detect(b"BZh9"), Compression::Bzip2);
        assert_eq!(detect(b"\xfd7zXZ\0"), Compression::Xz);
        assert_eq!(detect(b"\x28\xb5\x2f\xfd"), Compression::Zstd);
        assert_eq!(detect(b"\x50\x2a\x4d\x18"), Compression::Zstd);
        assert_eq!(detect(b"\x1f\x8b"), Compression::None);
        assert_eq!(detect(b""), Compression::None);
    }
}
