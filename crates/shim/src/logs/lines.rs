//! A stream of bytes cut into lines as Docker cuts it: at newlines, and after 16 KiB without one.

use super::stamp::Stamp;

/// The longest piece of a line that is one record.
pub(crate) const LONGEST: usize = 16 * 1024;

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    carry: Vec<u8>,
    /// When the first piece of a line longer than a record was logged: its other pieces bear the same time.
    began: Option<Stamp>,
}

impl Lines {
    /// Cuts `bytes`; each piece goes to `log` without its newline, and whether it had one.
    pub(crate) fn push(&mut self, mut bytes: &[u8], log: &mut dyn FnMut(Stamp, &[u8], bool)) {
        while !bytes.is_empty() {
            let room = LONGEST - self.carry.len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.emit(&bytes[..end], true, log);
                    bytes = &bytes[end + 1..];
                }
                None if window.len() == room => {
                    self.emit(window, false, log);
                    bytes = &bytes[room..];
                }
                None => {
                    self.carry.extend_from_slice(window);
                    return;
                }
            }
        }
    }

    /// The stream is over: what is left of a line is a line.
    pub(crate) fn finish(&mut self, log: &mut dyn FnMut(Stamp, &[u8], bool)) {
        if !self.carry.is_empty() {
            self.emit(b"", false, log);
        }
    }

    fn emit(&mut self, rest: &[u8], ended: bool, log: &mut dyn FnMut(Stamp, &[u8], bool)) {
        let at = self.began.take().unwrap_or_else(Stamp::now);
        if !ended {
            self.began = Some(at);
        }
        if self.carry.is_empty() {
            log(at, rest, ended);
        } else {
            self.carry.extend_from_slice(rest);
            log(at, &self.carry, ended);
            // A program that prints whole lines has nothing to carry: hold no memory for it.
            if self.carry.capacity() > 1024 {
                self.carry = Vec::new();
            } else {
                self.carry.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<(usize, bool)> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        let mut log = |_: Stamp, line: &[u8], ended: bool| got.push((line.len(), ended));
        for part in parts {
            lines.push(part, &mut log);
        }
        lines.finish(&mut log);
        got
    }

    #[test]
    fn lines_are_lines_however_they_arrive() {
        assert_eq!(cut(&[b"a\nbb\n\nccc"]), [(1, true), (2, true), (0, true), (3, false)]);
        assert_eq!(
            cut(&[b"a", b"\nb", b"b\n", b"\n", b"cc", b"c"]),
            [(1, true), (2, true), (0, true), (3, false)]
        );
    }

    #[test]
    fn a_long_line_is_cut_where_docker_cuts_it() {
        let long = vec![b'x'; 2 * LONGEST];
        assert_eq!(cut(&[&long]), [(LONGEST, false), (LONGEST, false)]);
        assert_eq!(
            cut(&[&long, b"yy\nz\n"]),
            [(LONGEST, false), (LONGEST, false), (2, true), (1, true)]
        );
        assert_eq!(cut(&[&long[..LONGEST], b"\n"]), [(LONGEST, false), (0, true)]);
        assert_eq!(cut(&[&long[..LONGEST - 1], b"\n"]), [(LONGEST - 1, true)]);
        assert_eq!(cut(&[b"ab", &long[..LONGEST]]), [(LONGEST, false), (2, false)]);
    }

    #[test]
    fn pieces_of_one_line_bear_one_time() {
        let (mut lines, mut times) = (Lines::default(), Vec::new());
        lines.push(&vec![b'x'; LONGEST * 2 + 1], &mut |at, _, _| times.push(at));
        lines.push(b"\nnext\n", &mut |at, _, _| times.push(at));
        assert_eq!(times[0], times[1]);
        assert_eq!(times[1], times[2]);
        assert!(times[3] > times[0]);
    }
}
