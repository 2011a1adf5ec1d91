//! Flags as runc takes them: one dash or two, `--flag value` or `--flag=value`, all before the first plain argument.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use stdx::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    name: &'static str,
    short: Option<&'static str>,
    takes_value: bool,
}

impl Flag {
    pub(super) const fn value(name: &'static str) -> Self {
        Self { name, short: None, takes_value: true }
    }

    pub(super) const fn switch(name: &'static str) -> Self {
        Self { name, short: None, takes_value: false }
    }

    pub(super) const fn or(self, short: &'static str) -> Self {
        Self { short: Some(short), ..self }
    }
}

#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
    rest: Vec<OsString>,
}

const HELP: Flag = Flag::switch("help").or("h");

impl Flags {
    pub(super) fn parse(known: &'static [Flag], args: &[OsString]) -> Result<Self> {
        Self::parse_all(known, args)
    }

    /// As [`parse`](Self::parse), and `--help` is a flag too.
    pub(super) fn parse_help(known: &'static [Flag], args: &[OsString]) -> Result<Self> {
        Self::parse_all(&known.iter().copied().chain([HELP]).collect::<Vec<_>>(), args)
    }

    fn parse_all(known: &[Flag], args: &[OsString]) -> Result<Self> {
        let mut flags = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let bytes = arg.as_bytes();
            let Some(word) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")) else {
                flags.rest.push(arg.clone());
                break;
            };
            if bytes == b"-" {
                flags.rest.push(arg.clone());
                break;
            }
            if word.is_empty() {
                break;
            }
            let (name, value) = match word.iter().position(|byte| *byte == b'=') {
                Some(equals) => (&word[..equals], Some(text(&word[equals + 1..])?)),
                None => (word, None),
            };
            let name = text(name)?;
            let matches = |flag: &&Flag| flag.name == name || flag.short == Some(name.as_str());
            let Some(flag) = known.iter().find(matches) else {
                return Err(Error::invalid(format!("flag provided but not defined: -{name}")));
            };
            let value = match (flag.takes_value, value) {
                (true, Some(value)) => value,
                (true, None) => match args.next() {
                    Some(value) => text(value.as_bytes())?,
                    None => return Err(Error::invalid(format!("flag needs an argument: -{name}"))),
                },
                (false, None) => "true".to_owned(),
                (false, Some(value)) => match value.as_str() {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
                    _ => {
                        return Err(Error::invalid(format!(
                            "invalid boolean value {value:?} for -{name}"
                        )));
                    }
                },
            };
            flags.given.push((flag.name, value));
        }
        flags.rest.extend(args.cloned());
        Ok(flags)
    }

    /// The last value given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let parsed = value.parse().map_err(|_| {
            Error::invalid(format!("invalid value {value:?} for flag -{name}: parse error"))
        });
        parsed.map(Some)
    }

    pub(super) fn rest(&self) -> &[OsString] {
        &self.rest
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    let text = OsString::from_vec(bytes.to_vec()).into_string();
    text.map_err(|text| Error::invalid(format!("{text:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        Flag::value("env").or("e"),
        Flag::switch("tty").or("t"),
        Flag::switch("detach").or("d"),
        Flag::value("cwd"),
    ];

    fn parse(args: &[&str]) -> Result<Flags> {
        Flags::parse(KNOWN, &args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_end_at_the_first_plain_word() {
        let flags =
            parse(&["-t", "--env", "A=b", "-e=C=d", "--detach=false", "id", "-t", "--", "x"])
                .unwrap();
        assert!(flags.has("tty") && !flags.has("detach"));
        assert_eq!(flags.all("env").collect::<Vec<_>>(), ["A=b", "C=d"]);
        assert_eq!(flags.rest(), ["id", "-t", "--", "x"]);
        assert_eq!(parse(&["--", "-t"]).unwrap().rest(), ["-t"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refusal = |args: &[&str]| parse(args).unwrap_err().to_string();
        assert_eq!(refusal(&["--nope"]), "flag provided but not defined: -nope");
        assert_eq!(refusal(&["--cwd"]), "flag needs an argument: -cwd");
        assert_eq!(refusal(&["-t=maybe"]), "invalid boolean value \"maybe\" for -t");
        assert!(parse(&["--cwd", "x"]).unwrap().number::<u32>("cwd").is_err());
    }
}
