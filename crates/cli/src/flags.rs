//! Flags: the tables commands are made of, and the parser for them.
//!
//! The rules are those of Docker's parser: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, switches
//! combined behind one dash, `--` ending it all, flags and arguments mixed unless the command says otherwise. Values are
//! understood once, here, so that a wrong one is refused before anything is asked of a daemon.

use std::borrow::Cow;

use stdx::{Error, Result, duration, units};

/// What sort of value a flag takes. The word shown in help is [`Kind::word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Text,
    /// May be given several times.
    List,
    /// May be given several times, and each may hold several values separated by commas.
    Strings,
    /// `key=value`, several times.
    Map,
    Int,
    Uint,
    Uint16,
    Bytes,
    /// The same, or -1 for no end.
    SwapBytes,
    Duration,
    Decimal,
    Filter,
    GpuRequest,
    Mount,
    Network,
    Ulimit,
    StringToString,
}

impl Kind {
    /// The word behind the flag in help.
    fn word(self) -> &'static str {
        match self {
            Self::Switch => "",
            Self::Text => "string",
            Self::List => "list",
            Self::Strings => "strings",
            Self::Map => "map",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Uint16 => "uint16",
            Self::Bytes | Self::SwapBytes => "bytes",
            Self::Duration => "duration",
            Self::Decimal => "decimal",
            Self::Filter => "filter",
            Self::GpuRequest => "gpu-request",
            Self::Mount => "mount",
            Self::Network => "network",
            Self::Ulimit => "ulimit",
            Self::StringToString => "stringToString",
        }
    }

    /// Refuses what is not of this kind, in Go's words.
    fn check(self, value: &str) -> Result<()> {
        match self {
            Self::Switch => parse_bool(value).map(drop),
            Self::Int => parse_int(value).map(drop),
            Self::Uint => parse_uint(value, u64::MAX).map(drop),
            Self::Uint16 => parse_uint(value, u64::from(u16::MAX)).map(drop),
            Self::SwapBytes if value == "-1" => Ok(()),
            Self::Bytes | Self::SwapBytes => units::ram_in_bytes(value).map(drop),
            Self::Duration => duration::parse(value).map(drop),
            Self::Decimal => nano_cpus(value).map(drop),
            Self::Filter => filter(value).map(drop),
            Self::StringToString => match value.contains('=') {
                true => Ok(()),
                false => Err(Error::invalid(format!("{value} must be formatted as key=value"))),
            },
            _ => Ok(()),
        }
    }
}

/// Where help speaks of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// Where Docker's does.
    Docker,
    /// In a part of its own, unless the command is called `docker`: scripts compare.
    Beyond,
    Hidden,
}

/// One flag of a command.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
    pub(crate) help: Help,
    /// Beyond the kind: what a value must look like.
    pub(crate) check: Option<fn(&str) -> Result<()>>,
    /// The flag whose older name this is.
    pub(crate) alias_of: Option<&'static str>,
}

impl Flag {
    pub(crate) const fn new(long: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { long, short: None, kind, about, help: Help::Docker, check: None, alias_of: None }
    }

    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    pub(crate) const fn hidden(mut self) -> Self {
        self.help = Help::Hidden;
        self
    }

    /// One that Docker's command does not have.
    pub(crate) const fn beyond(mut self) -> Self {
        self.help = Help::Beyond;
        self
    }

    pub(crate) const fn check(mut self, check: fn(&str) -> Result<()>) -> Self {
        self.check = Some(check);
        self
    }

    /// An older name of another flag of the same table, not shown in help.
    pub(crate) const fn alias(long: &'static str, of: &'static str) -> Self {
        let mut flag = Self::new(long, Kind::List, "");
        flag.help = Help::Hidden;
        flag.alias_of = Some(of);
        flag
    }

    fn named(&self) -> Cow<'static, str> {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.long).into(),
            None => format!("--{}", self.long).into(),
        }
    }
}

/// Whether flags may stand behind the first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Mixed,
    /// Everything from the first argument on belongs to somebody else (`run`, `exec`, `docker` itself).
    FlagsFirst,
}

/// What a command line came to.
#[derive(Debug)]
pub(crate) struct Parsed {
    table: &'static [Flag],
    values: Vec<(usize, String)>,
    pub(crate) args: Vec<String>,
}

/// Why parsing stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    Help,
    /// `-h` where it is not a flag of the command: help, and a warning about its age.
    ShortHelp,
    Wrong(Error),
}

impl Parsed {
    pub(crate) fn parse(
        table: &'static [Flag],
        order: Order,
        words: &[String],
    ) -> Result<Self, Stop> {
        let mut parsed = Self { table, values: Vec::new(), args: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                parsed.args.extend(words.cloned());
                break;
            }
            if let Some(rest) = word.strip_prefix("--") {
                parsed.long(rest, &mut words)?;
            } else if word.len() > 1 && word.starts_with('-') {
                parsed.letters(word, &mut words)?;
            } else {
                parsed.args.push(word.clone());
                if order == Order::FlagsFirst {
                    parsed.args.extend(words.cloned());
                    break;
                }
            }
        }
        Ok(parsed)
    }

    fn long<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Stop> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(Stop::Wrong(Error::invalid(format!("bad flag syntax: --{word}"))));
        }
        let Some(index) = self.table.iter().position(|flag| flag.long == name) else {
            return Err(match name {
                "help" => Stop::Help,
                _ => Stop::Wrong(Error::invalid(format!("unknown flag: --{name}"))),
            });
        };
        let value = match (value, self.table[index].kind) {
            (Some(value), _) => value,
            (None, Kind::Switch) => "true",
            (None, _) => match words.next() {
                Some(value) => value,
                None => {
                    return Err(Stop::Wrong(Error::invalid(format!(
                        "flag needs an argument: --{name}"
                    ))));
                }
            },
        };
        self.set(index, value)
    }

    fn letters<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Stop> {
        let mut rest = &word[1..];
        while let Some(letter) = rest.chars().next() {
            let shown = rest;
            rest = &rest[letter.len_utf8()..];
            let Some(index) = self.table.iter().position(|flag| flag.short == Some(letter)) else {
                return Err(match letter {
                    'h' => Stop::ShortHelp,
                    _ => Stop::Wrong(Error::invalid(format!(
                        "unknown shorthand flag: '{letter}' in -{shown}"
                    ))),
                });
            };
            if let Some(value) = rest.strip_prefix('=') {
                return self.set(index, value);
            }
            if self.table[index].kind == Kind::Switch {
                self.set(index, "true")?;
                continue;
            }
            if !rest.is_empty() {
                return self.set(index, rest);
            }
            return match words.next() {
                Some(value) => self.set(index, value),
                None => Err(Stop::Wrong(Error::invalid(format!(
                    "flag needs an argument: '{letter}' in -{shown}"
                )))),
            };
        }
        Ok(())
    }

    fn set(&mut self, index: usize, value: &str) -> Result<(), Stop> {
        let flag = &self.table[index];
        if flag.long == "help" {
            return Err(Stop::Help);
        }
        let target = flag.alias_of.and_then(|name| self.position(name)).unwrap_or(index);
        let flag = &self.table[target];
        let checked =
            flag.kind.check(value).and_then(|()| flag.check.map_or(Ok(()), |check| check(value)));
        if let Err(err) = checked {
            let words = format!(
                "invalid argument {value:?} for \"{}\" flag: {}",
                flag.named(),
                err.chain()
            );
            return Err(Stop::Wrong(Error::invalid(words)));
        }
        self.values.push((target, value.to_owned()));
        Ok(())
    }

    fn position(&self, long: &str) -> Option<usize> {
        self.table.iter().position(|flag| flag.long == long)
    }

    /// What was given for a flag; nothing for one this command does not have.
    fn each(&self, long: &str) -> impl DoubleEndedIterator<Item = &str> {
        let index = self.position(long);
        self.values
            .iter()
            .filter(move |(at, _)| Some(*at) == index)
            .map(|(_, value)| value.as_str())
    }

    /// A switch's state; off when not given.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.each(long).next_back().is_some_and(|value| parse_bool(value).unwrap_or(false))
    }

    /// A switch's state where not given means something of its own.
    pub(crate) fn switch(&self, long: &str) -> Option<bool> {
        self.each(long).next_back().map(|value| parse_bool(value).unwrap_or(false))
    }

    /// Whether any flag was given at all.
    pub(crate) fn any(&self) -> bool {
        !self.values.is_empty()
    }

    pub(crate) fn given(&self, long: &str) -> bool {
        self.each(long).next().is_some()
    }

    /// The last value, if the flag was given.
    pub(crate) fn get(&self, long: &str) -> Option<&str> {
        self.each(long).next_back()
    }

    /// The last value, or nothing.
    pub(crate) fn text(&self, long: &str) -> &str {
        self.get(long).unwrap_or_default()
    }

    /// Every value, in the order given.
    pub(crate) fn list(&self, long: &str) -> Vec<&str> {
        match self.position(long).map(|index| self.table[index].kind) {
            Some(Kind::Strings) => self.each(long).flat_map(|value| value.split(',')).collect(),
            _ => self.each(long).collect(),
        }
    }

    /// Every `key=value`; a key alone has an empty value.
    pub(crate) fn map(&self, long: &str) -> Vec<(&str, &str)> {
        self.list(long).into_iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
    }

    pub(crate) fn int(&self, long: &str) -> Option<i64> {
        self.get(long).and_then(|value| parse_int(value).ok())
    }

    pub(crate) fn bytes(&self, long: &str) -> Option<i64> {
        self.get(long).and_then(|value| {
            if value == "-1" { Some(-1) } else { units::ram_in_bytes(value).ok() }
        })
    }

    /// The `--filter` values as the API wants them: `{"status":{"running":true}}`. Empty when none was given.
    pub(crate) fn filters(&self, long: &str) -> Filters {
        let mut filters = Filters::default();
        for (key, value) in
            self.list(long).into_iter().filter_map(|text| filter(text).ok().flatten())
        {
            filters.add(&key, value);
        }
        filters
    }
}

/// Conditions a listing is narrowed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(
    std::collections::BTreeMap<String, std::collections::BTreeMap<String, bool>>,
);

impl Filters {
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned(), true);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flat_map(|values| values.keys()).map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The query parameter, if there is anything to say.
    pub(crate) fn query(&self) -> Option<String> {
        (!self.0.is_empty())
            .then(|| serde_json::to_string(&self.0).expect("maps of text can be written"))
    }
}

/// Understands one `--filter`; an empty one means nothing.
fn filter(text: &str) -> Result<Option<(String, &str)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::invalid("bad format of filter (expected name=value)"))?;
    Ok(Some((key.trim().to_lowercase(), value.trim())))
}

fn parse_bool(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

fn parse_int(text: &str) -> Result<i64> {
    let (digits, radix) = radix(text);
    i64::from_str_radix(&digits, radix).map_err(|err| number_error("ParseInt", text, err.kind()))
}

fn parse_uint(text: &str, most: u64) -> Result<u64> {
    let (digits, radix) = radix(text);
    if digits.starts_with(['+', '-']) {
        return Err(number_error("ParseUint", text, &std::num::IntErrorKind::InvalidDigit));
    }
    let value = u64::from_str_radix(&digits, radix)
        .map_err(|err| number_error("ParseUint", text, err.kind()))?;
    if value > most {
        return Err(number_error("ParseUint", text, &std::num::IntErrorKind::PosOverflow));
    }
    Ok(value)
}

/// Go reads numbers with base 0: `0x10`, `0o17`, `017`, `0b1`.
fn radix(text: &str) -> (String, u32) {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = rest.to_ascii_lowercase();
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&rest[2..], 16),
        Some("0o") => (&rest[2..], 8),
        Some("0b") => (&rest[2..], 2),
        Some(_) if rest.starts_with('0') => (&rest[1..], 8),
        _ => (rest, 10),
    };
    (format!("{sign}{digits}"), radix)
}

fn number_error(function: &str, text: &str, kind: &std::num::IntErrorKind) -> Error {
    let words = match kind {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
            "value out of range"
        }
        _ => "invalid syntax",
    };
    Error::invalid(format!("strconv.{function}: parsing {text:?}: {words}"))
}

/// `1.5` CPUs as billionths of one.
pub(crate) fn nano_cpus(text: &str) -> Result<i64> {
    let bad = || Error::invalid(format!("failed to parse {text} as a rational number"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if (whole.is_empty() && fraction.is_empty()) || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return Err(bad());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err(Error::invalid("value is too precise"));
    }
    let negative = whole.starts_with('-');
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let nanos: i64 =
        format!("{:0<9.9}", fraction.trim_end_matches('0')).parse().map_err(|_| bad())?;
    let nanos = if negative { -nanos } else { nanos };
    whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(nanos)).ok_or_else(bad)
}

/// The block of help that describes those flags of `table` that belong into it, wrapped to `columns`.
pub(crate) fn usage(table: &[Flag], part: Help, columns: usize) -> String {
    let flags = table.iter().filter(|flag| flag.help == part);
    usage_with(flags.map(|flag| (flag, flag.about)), columns)
}

/// As [`usage`], of these flags, in these words.
pub(crate) fn usage_with<'a>(
    flags: impl Iterator<Item = (&'a Flag, &'a str)>,
    columns: usize,
) -> String {
    let mut lines = Vec::new();
    for (flag, about) in flags {
        let mut head = match flag.short {
            Some(letter) => format!("  -{letter}, --{}", flag.long),
            None => format!("      --{}", flag.long),
        };
        if flag.kind != Kind::Switch {
            head.push(' ');
            head.push_str(flag.kind.word());
        }
        lines.push((head, about));
    }
    let widest = lines.iter().map(|(head, _)| head.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (head, about) in lines {
        let indent = widest + 3;
        out.push_str(&format!("{head:<indent$}{}\n", wrap(indent, columns, about)));
    }
    out
}

/// Breaks `text` into lines that leave `indent` columns free, a little over where that avoids an orphaned word.
fn wrap(mut indent: usize, columns: usize, text: &str) -> String {
    const SLOP: usize = 5;
    let mut out = String::new();
    let mut width = columns.saturating_sub(indent);
    if width < 24 {
        indent = 16;
        width = columns.saturating_sub(indent);
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    }
    let newline = format!("\n{}", " ".repeat(indent));
    if width < 24 {
        return text.replace('\n', &newline);
    }
    let mut rest = text;
    let mut first = true;
    while first || !rest.is_empty() {
        let (line, after) = wrap_line(width - SLOP, SLOP, rest);
        if !first {
            out.push_str(&newline);
        }
        out.push_str(&line.replace('\n', &newline));
        rest = after;
        first = false;
    }
    out
}

fn wrap_line(width: usize, slop: usize, text: &str) -> (&str, &str) {
    if width + slop > text.len() {
        return (text, "");
    }
    let head = &text.as_bytes()[..width];
    let Some(mut at) =
        head.iter().rposition(|c| matches!(c, b' ' | b'\t' | b'\n')).filter(|at| *at > 0)
    else {
        return (text, "");
    };
    if let Some(newline) = head.iter().rposition(|c| *c == b'\n').filter(|newline| *newline > 0) {
        at = at.min(newline);
    }
    (&text[..at], &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: [Flag; 5] = [
        Flag::new("detach", Kind::Switch, "").short('d'),
        Flag::new("env", Kind::List, "").short('e'),
        Flag::new("memory", Kind::Bytes, "").short('m'),
        Flag::new("tty", Kind::Switch, "").short('t'),
        Flag::new("alias", Kind::Strings, ""),
    ];

    fn parse(order: Order, line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Parsed::parse(&TABLE, order, &words).map_err(|stop| match stop {
            Stop::Wrong(err) => err.to_string(),
            stop => format!("{stop:?}"),
        })
    }

    #[test]
    fn every_spelling() {
        let parsed =
            parse(Order::Mixed, "-dt a -e X=1 --env=Y=2 -eZ=3 b -m=1g --tty=false -- -d").unwrap();
        assert_eq!(parsed.args, ["a", "b", "-d"]);
        assert_eq!(parsed.list("env"), ["X=1", "Y=2", "Z=3"]);
        assert_eq!((parsed.on("detach"), parsed.on("tty")), (true, false));
        assert_eq!(parsed.bytes("memory"), Some(1 << 30));
        assert_eq!(
            parse(Order::Mixed, "--alias a,b --alias c").unwrap().list("alias"),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn the_image_ends_the_flags_of_run() {
        let parsed = parse(Order::FlagsFirst, "-d busybox -t -- x").unwrap();
        assert_eq!(parsed.args, ["busybox", "-t", "--", "x"]);
        assert!(!parsed.on("tty"));
    }

    #[test]
    fn refusals_in_dockers_words() {
        let refused = |line| parse(Order::Mixed, line).unwrap_err();
        assert_eq!(refused("--foo"), "unknown flag: --foo");
        assert_eq!(refused("-dZ x"), "unknown shorthand flag: 'Z' in -Z");
        assert_eq!(refused("--memory"), "flag needs an argument: --memory");
        assert_eq!(refused("-dm"), "flag needs an argument: 'm' in -m");
        assert_eq!(
            refused("-m x"),
            "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"
        );
        assert_eq!(
            refused("-d=x"),
            "invalid argument \"x\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \"x\": invalid syntax"
        );
        assert_eq!(refused("--help"), "Help");
        assert_eq!(refused("-h"), "ShortHelp");
    }

    #[test]
    fn cpus() {
        assert_eq!(nano_cpus("1.5").unwrap(), 1_500_000_000);
        assert_eq!(nano_cpus(".5").unwrap(), 500_000_000);
        assert_eq!(
            nano_cpus("x").unwrap_err().to_string(),
            "failed to parse x as a rational number"
        );
    }

    #[test]
    fn numbers_as_go_reads_them() {
        assert_eq!(parse_int("0x10").unwrap(), 16);
        assert_eq!(parse_int("-010").unwrap(), -8);
        assert_eq!(parse_int("0").unwrap(), 0);
        assert_eq!(
            parse_uint("70000", 65535).unwrap_err().to_string(),
            "strconv.ParseUint: parsing \"70000\": value out of range"
        );
    }
}
