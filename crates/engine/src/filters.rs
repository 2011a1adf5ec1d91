//! The `filters` of a request: a map from name to wanted values, in either of the two spellings clients use.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::Deserialize;
use stdx::{Error, Result};

/// What a list is to be narrowed by. Several values of one name are alternatives, several names must all hold; labels
/// must all hold too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// `{"status": ["exited"]}` since 1.22, `{"status": {"exited": true}}` before and from Go's newer clients.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the query parameter; an empty text filters nothing.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let map: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|cause| Error::invalid("invalid filter").caused_by(cause))?;
        let values = |values| match values {
            Values::List(list) => list.into_iter().collect(),
            Values::Set(set) => {
                set.into_iter().filter_map(|(value, wanted)| wanted.then_some(value)).collect()
            }
        };
        Ok(Self(map.into_iter().map(|(name, wanted)| (name, values(wanted))).collect()))
    }

    /// Refuses names that the list does not know, in Docker's words.
    pub fn allow(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|values| !values.is_empty())
    }

    /// The values wanted of a name, in order; empty when it does not matter.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Does `value` equal one of those wanted? Nothing wanted matches everything.
    pub fn exact(&self, name: &str, value: &str) -> bool {
        !self.has(name) || self.values(name).any(|wanted| wanted == value)
    }

    /// As [`Filters::exact`] with a question of the caller's own.
    pub fn any(&self, name: &str, mut holds: impl FnMut(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).any(&mut holds)
    }

    /// Does `value` equal one of those wanted, or does one of them, read as a regular expression, occur in it? What is no
    /// regular expression occurs nowhere.
    pub fn matches(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| {
            wanted == value || Regex::new(wanted).is_ok_and(|pattern| pattern.is_match(value))
        })
    }

    /// `key` or `key=value`, all of which must be among `labels`.
    pub fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(name).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// A boolean filter: `None` when not asked for. Of several values one must say yes or no, and none the opposite.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        if !self.has(name) {
            return Ok(None);
        }
        let says = |words: [&str; 2]| self.values(name).any(|value| words.contains(&value));
        match (says(["1", "true"]), says(["0", "false"])) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ => {
                let values = self.values(name).collect::<Vec<_>>().join(" ");
                Err(Error::invalid(format!("invalid filter '{name}=[{values}]'")))
            }
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Filters {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, value) in pairs {
            map.entry(name.into()).or_default().insert(value.into());
        }
        Self(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings() {
        let list = Filters::parse(r#"{"status":["exited","created"]}"#).unwrap();
        assert_eq!(
            list,
            Filters::parse(r#"{"status":{"created":true,"exited":true,"dead":false}}"#).unwrap()
        );
        assert!(list.exact("status", "exited"));
        assert!(!list.exact("status", "running"));
        assert!(list.exact("name", "whatever"));
    }

    #[test]
    fn names_are_patterns() {
        let holds =
            |wanted: &str, name: &str| Filters::from_iter([("name", wanted)]).matches("name", name);
        for wanted in ["we", "^web$", "w.b", "eb$", "web|db", "web"] {
            assert!(holds(wanted, "web"), "{wanted}");
        }
        for wanted in ["^e", "we$", "webs", "("] {
            assert!(!holds(wanted, "web"), "{wanted}");
        }
        assert!(holds("a(", "a("), "the name itself, whatever it means as a pattern");
    }

    #[test]
    fn labels_must_all_hold() {
        let filters = Filters::from_iter([("label", "a"), ("label", "b=2")]);
        let labels = |text: &str| {
            text.split(' ')
                .filter_map(|l| l.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect()
        };
        assert!(filters.labels("label", &labels("a=1 b=2")));
        assert!(!filters.labels("label", &labels("a=1 b=3")));
    }

    #[test]
    fn yes_or_no() {
        let flag = |values: &[&str]| {
            Filters::from_iter(values.iter().map(|value| ("all", *value)))
                .flag("all")
                .map_err(|error| error.to_string())
        };
        assert_eq!(flag(&[]), Ok(None));
        assert_eq!(flag(&["1"]), Ok(Some(true)));
        assert_eq!(flag(&["false", "0"]), Ok(Some(false)));
        assert_eq!(flag(&["maybe", "true"]), Ok(Some(true)));
        assert_eq!(flag(&["t"]), Err("invalid filter 'all=[t]'".to_owned()));
        assert_eq!(flag(&["true", "0"]), Err("invalid filter 'all=[0 true]'".to_owned()));
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Filters::from_iter([("x", "y")]).allow(&["name"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'x'");
    }
}
