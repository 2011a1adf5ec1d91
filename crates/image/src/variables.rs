//! The words of a Dockerfile's instructions: quotes, escapes and variables, as its reference has them. Pure.

use std::iter::Peekable;
use std::str::Chars;

use stdx::{Error, Result};

/// Splits at white space outside of quotes. Quotes and escapes stay.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if quote.is_none() && c.is_whitespace() => {
                words.extend(word.take());
                continue;
            }
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            _ => {}
        }
        let word = word.get_or_insert_default();
        word.push(c);
        if c == '\\' && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    words.extend(word);
    words
}

/// A word without its quotes and escapes, with the values of `env` (`KEY=value`) in place of variables. One that nobody has
/// set is empty.
///
/// # Errors
/// Where a `${` is not closed, its modifier is unknown, or it asks for a refusal (`${a:?why}`).
pub(crate) fn expand(word: &str, env: &[String]) -> Result<String> {
    let mut reader = Reader { chars: word.chars().peekable(), env };
    let failed = |error: Error| {
        Error::new(error.kind(), format!("failed to process {word:?}")).caused_by(error)
    };
    reader.until(None).map_err(failed)
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    env: &'a [String],
}

impl Reader<'_> {
    /// Up to `end` outside of quotes, which is taken too; or all.
    fn until(&mut self, end: Option<char>) -> Result<String> {
        let mut out = String::new();
        let mut quote = None;
        while let Some(c) = self.chars.next() {
            match (quote, c) {
                (None, c) if end == Some(c) => return Ok(out),
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                (Some('\''), c) => out.push(c),
                (Some(_), '\\') => {
                    match self.chars.next_if(|next| matches!(next, '"' | '$' | '\\')) {
                        Some(next) => out.push(next),
                        None => out.push('\\'),
                    }
                }
                (None, '\\') => out.extend(self.chars.next()),
                (_, '$') => out.push_str(&self.variable()?),
                (_, c) => out.push(c),
            }
        }
        let wrong = match (quote, end) {
            (Some('\''), _) => {
                "unexpected end of statement while looking for matching single-quote"
            }
            (Some(_), _) => "unexpected end of statement while looking for matching double-quote",
            (None, Some(_)) => "syntax error: missing '}'",
            (None, None) => return Ok(out),
        };
        Err(Error::invalid(wrong))
    }

    /// What stands after a `$`.
    fn variable(&mut self) -> Result<String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(match name.is_empty() {
                true => "$".to_owned(),
                false => self.value(&name).unwrap_or_default(),
            });
        }
        let name = self.name();
        if name.is_empty() {
            return Err(Error::invalid("syntax error: bad substitution"));
        }
        let value = self.value(&name);
        let colon = self.chars.next_if_eq(&':').is_some();
        // With the colon, what is empty counts as not set.
        let there = value.clone().filter(|value| !(colon && value.is_empty()));
        match self.chars.next() {
            Some('}') if !colon => Ok(value.unwrap_or_default()),
            Some('-') => {
                let instead = self.until(Some('}'))?;
                Ok(there.unwrap_or(instead))
            }
            Some('+') => {
                let instead = self.until(Some('}'))?;
                Ok(if there.is_some() { instead } else { String::new() })
            }
            Some('?') => {
                let why = self.until(Some('}'))?;
                let why =
                    if why.is_empty() { "is not allowed to be unset".to_owned() } else { why };
                there.ok_or_else(|| Error::invalid(format!("{name}: {why}")))
            }
            Some(other) => {
                Err(Error::invalid(format!("unsupported modifier ({other}) in substitution")))
            }
            None => Err(Error::invalid("syntax error: missing '}'")),
        }
    }

    /// A name, or one of the shell's parameters of a single character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let special = |c: &char| c.is_ascii_digit() || "@*#?-$!".contains(*c);
        if let Some(c) = self.chars.next_if(special) {
            name.push(c);
            return name;
        }
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        let pairs = self.env.iter().filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_their_values() {
        assert_eq!(split(r#"a "b c"  'd e'f \ g"#), ["a", r#""b c""#, "'d e'f", r"\ g"]);
        let env = ["PATH=/bin".to_owned(), "EMPTY=".to_owned()];
        let of = |word: &str| expand(word, &env).unwrap();
        assert_eq!(of("/usr/bin:$PATH"), "/usr/bin:/bin");
        assert_eq!(of("${PATH}x$PATHx"), "/binx");
        assert_eq!(of(r#""$PATH" '$PATH' \$PATH "\$PATH""#), "/bin $PATH $PATH $PATH");
        assert_eq!(
            of("${NONE:-a ${PATH}} ${EMPTY:-b} ${EMPTY-b} ${PATH:+c}${NONE+d}"),
            "a /bin b  c"
        );
        assert_eq!(of("100$ $1"), "100$ ");
        let refused = |word: &str| expand(word, &env).unwrap_err().chain();
        assert_eq!(refused("${PATH"), r#"failed to process "${PATH": syntax error: missing '}'"#);
        assert_eq!(
            refused("${NONE:?is wanted}"),
            r#"failed to process "${NONE:?is wanted}": NONE: is wanted"#
        );
        assert!(refused("${PATH:x}").contains("unsupported modifier (x) in substitution"));
        assert!(refused("'a").contains("matching single-quote"));
    }
}
