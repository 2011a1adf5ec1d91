//! Records back: the last so many, between two moments, and on and on while the container speaks.
//!
//! The reader holds the file it reads, so rotation cannot take a line from it; only when it is slower than all the files
//! there may be does it miss some, and says so.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use stdx::{Context, Result};

use super::parse::{Parsed, parse};
use super::segment::{self, Segment};
use crate::logs::stamp::Reading;
use crate::logs::{Entry, Follow, Next, Options};

const BLOCK: usize = 128 * 1024;
/// No record of ours is longer: 16 KiB of control characters are 96 KiB, and attributes are a few.
const LONGEST: usize = 4 << 20;

#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    options: Options,
    current: Option<Segment>,
    newer: VecDeque<Segment>,
    buffer: Buffer,
    text: Vec<u8>,
    clock: Reading,
    wake: Option<Wake>,
    lost: u64,
    done: bool,
}

/// What to report, without a borrow of the reader yet.
enum Step {
    Entry(Parsed, std::ops::Range<usize>),
    Lost(u64),
    Wait,
    End,
}

impl Reader {
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        // Before the first look, so that no write after it goes unnoticed.
        let wake = match options.follow {
            Follow::Yes => Some(Wake::on(path)?),
            Follow::No => None,
        };
        let mut newer = VecDeque::from(segment::all(path)?);
        if let Some(since) = options.since {
            while newer.len() > 1 && newer[0].is_before(since) {
                newer.pop_front();
            }
        }
        if let Some(wanted) = options.tail {
            newer = tail(newer, wanted)
                .context(|| format!("cannot read the log {}", path.display()))?;
        }
        let current = newer.pop_front();
        let buffer = Buffer::default();
        let done = options.tail == Some(0) && options.follow == Follow::No;
        Ok(Self {
            path: path.to_owned(),
            options,
            current,
            newer,
            buffer,
            text: Vec::new(),
            clock: Reading::default(),
            wake,
            lost: 0,
            done,
        })
    }

    /// The next record, or what to do until there is one.
    #[expect(
        clippy::should_implement_trait,
        reason = "it fails, and what it lends is the reader's"
    )]
    pub fn next(&mut self) -> Result<Next<'_>> {
        let step =
            self.step().context(|| format!("cannot read the log {}", self.path.display()))?;
        Ok(match step {
            Step::Entry(Parsed { at, stream, attrs }, line) => {
                let attrs = attrs.map(|range| &self.buffer.bytes[line][range]);
                Next::Entry(Entry { at, stream, line: &self.text, attrs })
            }
            Step::Lost(files) => Next::Lost(files),
            Step::Wait => Next::Wait,
            Step::End => Next::End,
        })
    }

    /// Readable when, after [`Next::Wait`], there may be more.
    pub fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(Wake::as_fd)
    }

    /// The container has ended: what is written is all there will be.
    pub fn finish(&mut self) {
        self.options.follow = Follow::No;
    }

    fn step(&mut self) -> Result<Step> {
        loop {
            if self.done {
                return Ok(Step::End);
            }
            while let Some(line) = self.buffer.line() {
                if let Some(segment) = &mut self.current
                    && segment.skip > 0
                {
                    segment.skip -= 1;
                    continue;
                }
                if let Some(parsed) = self.accept(line.clone()) {
                    return Ok(Step::Entry(parsed, line));
                }
                if self.done {
                    return Ok(Step::End);
                }
            }
            if self.fill()? {
                continue;
            }
            // The file is at its end. What it has without a newline may be a record that was written in two halves (wait
            // for the other), or that a power cut has torn (nothing). What was lost is told here, between the two files.
            if self.lost > 0 && !self.newer.is_empty() {
                return Ok(Step::Lost(std::mem::take(&mut self.lost)));
            }
            if let Some(next) = self.newer.pop_front() {
                self.current = Some(next);
                self.buffer.clear();
                continue;
            }
            if self.options.follow == Follow::No {
                // A follower that was behind when the container ended has the files to read that came since it looked last.
                if self.wake.is_some() && self.has_moved_on()? {
                    continue;
                }
                self.done = true;
                let rest = self.buffer.rest();
                return Ok(match self.accept(rest.clone()) {
                    Some(parsed) => Step::Entry(parsed, rest),
                    None => Step::End,
                });
            }
            if let Some(wake) = &self.wake {
                wake.hear()?;
            }
            // Once more after hearing: a write from now on wakes us again.
            if self.fill()? {
                continue;
            }
            if self.has_moved_on()? {
                continue;
            }
            return Ok(Step::Wait);
        }
    }

    fn accept(&mut self, line: std::ops::Range<usize>) -> Option<Parsed> {
        let parsed = parse(&self.buffer.bytes[line], &mut self.text, &mut self.clock)?;
        if self.options.since.is_some_and(|since| parsed.at < since) {
            return None;
        }
        if self.options.until.is_some_and(|until| parsed.at > until) {
            self.done = true;
            return None;
        }
        Some(parsed)
    }

    fn fill(&mut self) -> Result<bool> {
        match &mut self.current {
            Some(segment) => Ok(self.buffer.fill(segment)?),
            None => Ok(false),
        }
    }

    /// Whether there is more than the end of the file in hand.
    fn has_moved_on(&mut self) -> Result<bool> {
        Ok(self.truncated()? || self.look_for_newer()?)
    }

    fn truncated(&mut self) -> Result<bool> {
        let Some(segment) = &mut self.current else { return Ok(false) };
        let again = segment.rewind_if_truncated()?;
        if again {
            self.buffer.clear();
        }
        Ok(again)
    }

    /// Whether the log has been rotated: then the files after the current one wait in `newer`.
    fn look_for_newer(&mut self) -> Result<bool> {
        let mut found = VecDeque::from(segment::all(&self.path)?);
        if let Some(current) = &self.current {
            match found.iter().position(|segment| segment.is(current)) {
                Some(at) => drop(found.drain(..=at)),
                // It is gone already. Its number tells which files came after it, and whether some are gone too.
                None => {
                    if let Some(number) = current.number {
                        found.retain(|segment| segment.number.is_none_or(|other| other > number));
                        if let Some(next) = found.front().and_then(|segment| segment.number) {
                            self.lost += next.saturating_sub(number + 1);
                        }
                    } else if found.len() > 1 {
                        found.drain(..found.len() - 1);
                        self.lost += 1;
                    }
                }
            }
        }
        self.newer = found;
        Ok(!self.newer.is_empty())
    }
}

/// Drops what is before the last `wanted` lines of all files together.
fn tail(mut segments: VecDeque<Segment>, wanted: u64) -> io::Result<VecDeque<Segment>> {
    let mut kept = VecDeque::new();
    let mut missing = wanted;
    while let Some(mut segment) = segments.pop_back() {
        if missing == 0 {
            // A follower still needs the newest file, from its end on.
            if kept.is_empty() {
                segment.seek_to_end()?;
                kept.push_front(segment);
            }
            break;
        }
        missing -= segment.tail(missing)?;
        kept.push_front(segment);
    }
    Ok(kept)
}

/// Bytes read and not yet given out.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
    /// Up to where there is no newline for sure.
    searched: usize,
}

impl Buffer {
    /// Takes the next whole line.
    fn line(&mut self) -> Option<std::ops::Range<usize>> {
        let found = memchr::memchr(b'\n', &self.bytes[self.searched..self.end]);
        match found {
            Some(at) => {
                let line = self.begin..self.searched + at;
                self.begin = line.end + 1;
                self.searched = self.begin;
                Some(line)
            }
            None => {
                self.searched = self.end;
                None
            }
        }
    }

    /// What there is without a newline.
    fn rest(&self) -> std::ops::Range<usize> {
        self.begin..self.end
    }

    fn clear(&mut self) {
        (self.begin, self.end, self.searched) = (0, 0, 0);
    }

    /// Reads once; whether there was anything.
    fn fill(&mut self, segment: &mut Segment) -> io::Result<bool> {
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end, self.searched) =
            (0, self.end - self.begin, self.searched - self.begin);
        if self.end >= LONGEST {
            // Not a record, whatever it is.
            self.clear();
        }
        if self.bytes.len() < self.end + BLOCK {
            self.bytes.resize(self.end + BLOCK, 0);
        }
        loop {
            match segment.read(&mut self.bytes[self.end..]) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                // A compressed file that a crash cut short gives what it has.
                Err(err)
                    if matches!(
                        err.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
                    ) =>
                {
                    return Ok(false);
                }
                Err(err) => return Err(err),
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
            }
        }
    }
}

/// How a follower hears of more.
#[derive(Debug)]
enum Wake {
    Inotify(OwnedFd),
    /// The kernel gives a user 128 inotify instances by default; the follower after these looks ten times a second.
    Timer(OwnedFd),
}

impl Wake {
    fn on(path: &Path) -> Result<Self> {
        use inotify::{CreateFlags, WatchFlags};
        let Ok(inotify) = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) else {
            return Self::timer();
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        match inotify::add_watch(&inotify, dir, events) {
            Ok(_) => Ok(Self::Inotify(inotify)),
            Err(rustix::io::Errno::NOSPC) => Self::timer(),
            Err(errno) => Err(errno).context(|| format!("cannot watch {}", dir.display())),
        }
    }

    fn timer() -> Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .context(|| "cannot follow the log".to_owned())?;
        let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: tenth, it_value: tenth },
        )
        .context(|| "cannot follow the log".to_owned())?;
        Ok(Self::Timer(timer))
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Inotify(fd) | Self::Timer(fd) => fd.as_fd(),
        }
    }

    /// Takes the news off the descriptor, so that it is readable again only for later ones.
    fn hear(&self) -> Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match rustix::io::read(self.as_fd(), &mut bytes) {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;
    use crate::logs::json_file::Writer;
    use crate::logs::{Config, Stamp};
    use crate::protocol::Stream;

    /// A log in a directory of its own, of numbered lines one second apart.
    struct Log {
        dir: tempfile::TempDir,
        writer: Writer,
        next: i64,
    }

    impl Log {
        fn new(config: Config) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let writer = Writer::open(&Config { path: dir.path().join("log"), ..config }).unwrap();
            Self { dir, writer, next: 0 }
        }

        fn say(&mut self, lines: i64) {
            for _ in 0..lines {
                let line = self.next.to_string();
                self.writer.write(Stamp::at(self.next, 0), Stream::Stdout, line.as_bytes(), true);
                self.next += 1;
            }
            self.writer.flush();
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn open(&self, options: Options) -> Reader {
            Reader::open(&self.path(), options).unwrap()
        }

        /// Five files of ten lines, the oldest two compressed.
        fn rotated() -> Self {
            let mut log = Self::new(Config { compress: true, ..Config::default() });
            for file in 0..4 {
                log.say(10);
                log.writer.rotate().unwrap();
                let work = log.writer.compress().unwrap();
                if file < 2 {
                    work.run().unwrap();
                }
                log.writer.compressed();
            }
            log.say(10);
            log
        }
    }

    /// All there is now: numbers, `lost N`, and how it stopped.
    fn all(reader: &mut Reader) -> (Vec<i64>, &'static str) {
        let mut numbers = Vec::new();
        loop {
            match reader.next().unwrap() {
                Next::Entry(entry) => {
                    numbers.push(std::str::from_utf8(entry.line).unwrap().trim().parse().unwrap())
                }
                Next::Lost(files) => numbers.push(-i64::try_from(files).unwrap()),
                Next::Wait => return (numbers, "wait"),
                Next::End => return (numbers, "end"),
            }
        }
    }

    fn range(range: std::ops::Range<i64>) -> Vec<i64> {
        range.collect()
    }

    #[test]
    fn all_files_are_one_log() {
        let log = Log::rotated();
        assert_eq!(all(&mut log.open(Options::default())), (range(0..50), "end"));
    }

    #[test]
    fn the_tail_goes_back_through_rotated_files() {
        let log = Log::rotated();
        for wanted in [0, 1, 9, 10, 11, 25, 35, 45, 50, 60] {
            let options = Options { tail: Some(wanted), ..Options::default() };
            let from = 50 - i64::try_from(wanted).unwrap().min(50);
            assert_eq!(all(&mut log.open(options)), (range(from..50), "end"), "tail {wanted}");
        }
    }

    #[test]
    fn between_two_moments() {
        let log = Log::rotated();
        let at = |second: i64| Some(Stamp::at(second, 0).timestamp());
        let options = Options { since: at(17), until: at(33), ..Options::default() };
        assert_eq!(all(&mut log.open(options)), (range(17..34), "end"));
        let options = Options { since: at(17), tail: Some(5), ..Options::default() };
        assert_eq!(all(&mut log.open(options)), (range(45..50), "end"));
    }

    #[test]
    fn a_follower_sees_every_line_once_across_rotations() {
        let mut log = Log::new(Config { max_file: 5, ..Config::default() });
        log.say(3);
        let mut reader = log.open(Options { follow: Follow::Yes, ..Options::default() });
        assert_eq!(all(&mut reader), (range(0..3), "wait"));
        log.say(2);
        assert_eq!(all(&mut reader), (range(3..5), "wait"));
        log.say(1);
        log.writer.rotate().unwrap();
        log.say(1);
        log.writer.rotate().unwrap();
        log.writer.rotate().unwrap();
        log.say(1);
        assert_eq!(all(&mut reader), (range(5..8), "wait"));
        // The end comes before it has looked.
        log.say(1);
        log.writer.rotate().unwrap();
        log.say(2);
        reader.finish();
        assert_eq!(all(&mut reader), (range(8..11), "end"));
    }

    #[test]
    fn a_follower_of_one_file_only_is_told_what_it_missed() {
        let mut log = Log::new(Config { max_file: 1, ..Config::default() });
        log.say(1);
        let mut reader = log.open(Options { follow: Follow::Yes, ..Options::default() });
        log.say(1);
        log.writer.rotate().unwrap();
        log.say(2);
        // One rotation costs nothing: the old file is still held.
        assert_eq!(all(&mut reader), (range(0..4), "wait"));
        for _ in 0..3 {
            log.writer.rotate().unwrap();
            log.say(1);
        }
        assert_eq!(all(&mut reader), (vec![-2, 6], "wait"));
    }

    /// Between a follower's reading the last of a file and his looking for others, there is more in it, and it is gone.
    #[test]
    fn what_is_missed_is_told_where_it_is_missing() {
        let mut log = Log::new(Config { max_file: 1, ..Config::default() });
        log.say(1);
        let mut reader = log.open(Options { follow: Follow::Yes, ..Options::default() });
        assert_eq!(all(&mut reader), (range(0..1), "wait"));
        log.say(1);
        for _ in 0..3 {
            log.writer.rotate().unwrap();
            log.say(1);
        }
        assert!(reader.has_moved_on().unwrap());
        assert_eq!(all(&mut reader), (vec![1, -2, 4], "wait"));
    }

    #[test]
    fn a_follower_waits_for_a_log_that_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader =
            Reader::open(&path, Options { follow: Follow::Yes, ..Options::default() }).unwrap();
        assert_eq!(all(&mut reader), (vec![], "wait"));
        let mut writer = Writer::open(&Config { path, ..Config::default() }).unwrap();
        writer.write(Stamp::at(0, 0), Stream::Stdout, b"7", true);
        writer.flush();
        assert_eq!(all(&mut reader), (vec![7], "wait"));
    }

    #[test]
    fn a_file_cut_by_somebody_else_is_begun_again() {
        let mut log = Log::new(Config::default());
        log.say(5);
        let mut reader =
            log.open(Options { follow: Follow::Yes, tail: Some(0), ..Options::default() });
        assert_eq!(all(&mut reader), (vec![], "wait"));
        OpenOptions::new().write(true).open(log.path()).unwrap().set_len(0).unwrap();
        log.say(1);
        assert_eq!(all(&mut reader), (vec![5], "wait"));
    }

    #[test]
    fn half_a_record_is_waited_for_or_dropped() {
        let mut log = Log::new(Config::default());
        log.say(1);
        let mut file = OpenOptions::new().append(true).open(log.path()).unwrap();
        let record =
            b"{\"log\":\"1\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:00Z\"}\n";
        let mut reader = log.open(Options { follow: Follow::Yes, ..Options::default() });
        file.write_all(&record[..30]).unwrap();
        assert_eq!(all(&mut reader), (vec![0], "wait"));
        assert_eq!(all(&mut log.open(Options::default())), (vec![0], "end"));
        file.write_all(&record[30..]).unwrap();
        assert_eq!(all(&mut reader), (vec![1], "wait"));
    }

    #[test]
    fn rubbish_between_records_is_skipped() {
        let mut log = Log::new(Config::default());
        log.say(1);
        let mut file = OpenOptions::new().append(true).open(log.path()).unwrap();
        file.write_all(b"not json\n\0\0\0\0").unwrap();
        log.say(2);
        assert_eq!(all(&mut log.open(Options::default())), (range(0..3), "end"));
    }

    #[test]
    fn the_descriptor_tells_of_more() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut log = Log::new(Config::default());
        let mut reader = log.open(Options { follow: Follow::Yes, ..Options::default() });
        let ready = |reader: &Reader| {
            let wake = reader.wake().unwrap();
            poll(
                &mut [PollFd::new(&wake, PollFlags::IN)],
                Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
            )
            .unwrap()
                == 1
        };
        assert_eq!(all(&mut reader), (vec![], "wait"));
        assert!(!ready(&reader));
        log.say(1);
        assert!(ready(&reader));
        assert_eq!(all(&mut reader), (vec![0], "wait"));
        assert!(!ready(&reader));
    }
}
