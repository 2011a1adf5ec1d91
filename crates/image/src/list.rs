//! `docker images`: which images are shown, and what of them.

use std::collections::{BTreeMap, BTreeSet};

use api::image::Summary;
use oci::{Digest, Reference};
use stdx::time::Timestamp;
use stdx::{Error, Result};

use crate::Images;
use crate::catalog::{Catalog, Entry};

/// Which images are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Intermediate images too.
    pub all: bool,
    /// Compute how much of each image other images share.
    pub shared_size: bool,
    pub filters: Filters,
}

/// The filters of the API, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only images without a tag; or only those with one.
    pub dangling: Option<bool>,
    /// `key` or `key=value`: an image must have all of them.
    pub labels: Vec<String>,
    /// And none of these.
    pub without_labels: Vec<String>,
    /// Patterns of names: one must match.
    pub references: Vec<String>,
    /// Names of images: only those created before the oldest of these.
    pub before: Vec<String>,
    /// Only those created after the youngest of these.
    pub since: Vec<String>,
    /// Only those created before this moment.
    pub until: Option<Timestamp>,
}

impl Filters {
    /// Understands the filters of `GET /images/json`.
    pub fn for_list(given: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        Self::parse(given, &["before", "dangling", "label", "reference", "since", "until"])
    }

    /// Understands the filters of `POST /images/prune`.
    pub fn for_prune(given: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        Self::parse(given, &["dangling", "label", "label!", "until"])
    }

    fn parse(given: &BTreeMap<String, Vec<String>>, allowed: &[&str]) -> Result<Self> {
        let mut filters = Self::default();
        for (name, values) in given {
            if !allowed.contains(&name.as_str()) {
                return Err(Error::invalid(format!("invalid filter '{name}'")));
            }
            match name.as_str() {
                "dangling" => filters.dangling = yes_or_no(name, values)?,
                "label" => filters.labels.clone_from(values),
                "label!" => filters.without_labels.clone_from(values),
                "reference" => {
                    if !values.iter().all(|pattern| is_pattern(pattern)) {
                        return Err(Error::invalid("syntax error in pattern"));
                    }
                    filters.references.clone_from(values);
                }
                "before" => filters.before.clone_from(values),
                "since" => filters.since.clone_from(values),
                // Of several the earliest counts, but not where something is to be removed.
                _ if values.len() > 1 && !allowed.contains(&"since") => {
                    return Err(Error::invalid("more than one until filter specified"));
                }
                _ => {
                    let moments = values.iter().map(|one| moment(one));
                    filters.until = moments.collect::<Result<Vec<_>>>()?.into_iter().min();
                }
            }
        }
        Ok(filters)
    }

    /// The image has the labels asked for.
    pub(crate) fn labels_match(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.labels.iter().all(has) && !self.without_labels.iter().any(has)
    }

    pub(crate) fn until_matches(&self, entry: &Entry) -> bool {
        self.until.is_none_or(|until| entry.config.created.is_some_and(|created| created <= until))
    }
}

/// Of several values one must say yes or no, and none the opposite.
fn yes_or_no(name: &str, values: &[String]) -> Result<Option<bool>> {
    let says = |words: [&str; 2]| values.iter().any(|value| words.contains(&value.as_str()));
    match (says(["1", "true"]), says(["0", "false"])) {
        (true, false) => Ok(Some(true)),
        (false, true) => Ok(Some(false)),
        _ if values.is_empty() => Ok(None),
        _ => Err(Error::invalid(format!("invalid filter '{name}=[{}]'", values.join(" ")))),
    }
}

/// A moment, or how long ago: `10m`, `24h`.
fn moment(text: &str) -> Result<Timestamp> {
    match stdx::duration::parse(text) {
        Ok(ago) if !text.bytes().all(|c| c.is_ascii_digit() || c == b'.') => {
            Ok(Timestamp::from_unix_nanos(Timestamp::now().unix_nanos() - ago.as_nanos() as i128))
        }
        _ => Timestamp::parse_api(text).map_err(|_| {
            Error::invalid(format!("failed to parse value as time or duration: {text:?}"))
        }),
    }
}

impl Images {
    /// The image and all that were made of it here, and of these.
    pub fn with_descendants(&self, id: &Digest) -> BTreeSet<Digest> {
        let catalog = self.catalog();
        let mut family = BTreeSet::new();
        let mut next = vec![id.clone()];
        while let Some(id) = next.pop() {
            next.extend(catalog.children(&id).map(|entry| entry.record.id.clone()));
            family.insert(id);
        }
        family
    }

    /// The images that `options` ask for, the youngest first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Summary>> {
        let catalog = self.catalog();
        select(&catalog, options)
    }

    /// What images take on disk, for `docker system df`: each layer counted once.
    pub async fn usage(&self) -> Result<api::system::Usage<Summary>> {
        let catalog = self.catalog();
        let options = ListOptions { all: true, shared_size: true, ..ListOptions::default() };
        let mut items = select(&catalog, &options)?;
        let mut active = BTreeSet::new();
        for item in &mut items {
            let Ok(id) = item.id.parse::<Digest>() else { continue };
            item.containers = catalog.holders(&id).count() as i64;
            if item.containers > 0 {
                active.insert(id);
            }
        }
        let size_of = |wanted: &dyn Fn(&Entry) -> bool| {
            let images = catalog.images.values().filter(|entry| wanted(entry));
            let layers: BTreeMap<_, _> = images
                .flat_map(|entry| {
                    entry.record.layers.iter().map(|layer| (&layer.chain, layer.size))
                })
                .collect();
            layers.values().sum::<u64>() as i64
        };
        let total = size_of(&|_| true);
        let used = size_of(&|entry| active.contains(&entry.record.id));
        Ok(api::system::Usage {
            active_count: active.len() as i64,
            total_count: items.len() as i64,
            total_size: total,
            reclaimable: total - used,
            items,
        })
    }
}

fn select(catalog: &Catalog, options: &ListOptions) -> Result<Vec<Summary>> {
    let filters = &options.filters;
    let created = |names: &[String]| -> Result<Vec<Timestamp>> {
        names
            .iter()
            .map(|name| Ok(catalog.resolve(name)?.config.created.unwrap_or_default()))
            .collect()
    };
    let before = created(&filters.before)?.into_iter().min();
    let since = created(&filters.since)?.into_iter().max();
    let mut names: BTreeMap<&Digest, Vec<&Reference>> = BTreeMap::new();
    for (name, id) in catalog.names() {
        names.entry(id).or_default().push(name);
    }
    let parents: BTreeSet<&Digest> =
        catalog.images.values().filter_map(|entry| entry.record.parent.as_ref()).collect();
    let mut shown = Vec::new();
    for entry in catalog.images.values() {
        let id = &entry.record.id;
        let at = entry.config.created.unwrap_or_default();
        if before.is_some_and(|before| at >= before) || since.is_some_and(|since| at <= since) {
            continue;
        }
        // Strictly, where `prune` means the moment too.
        let late =
            filters.until.is_some_and(|until| entry.config.created.is_none_or(|at| at >= until));
        if late || !filters.labels_match(&entry.config.config.labels) {
            continue;
        }
        let own: Vec<&Reference> = names
            .get(id)
            .into_iter()
            .flatten()
            .copied()
            .filter(|name| matches_any(name, &filters.references))
            .collect();
        let tagged = own.iter().any(|name| name.digest().is_none());
        let wanted = match filters.dangling {
            // Somebody's parent is not dangling.
            Some(true) => !tagged && !parents.contains(id),
            Some(false) => tagged,
            None => tagged || !own.is_empty() || options.all || !parents.contains(id),
        };
        if !wanted || (own.is_empty() && !filters.references.is_empty()) {
            continue;
        }
        shown.push((at, summary(catalog, entry, &own, options)));
    }
    shown.sort_by(|(a, first), (b, second)| b.cmp(a).then_with(|| first.id.cmp(&second.id)));
    Ok(shown.into_iter().map(|(_, summary)| summary).collect())
}

fn summary(
    catalog: &Catalog,
    entry: &Entry,
    names: &[&Reference],
    options: &ListOptions,
) -> Summary {
    let familiar = |digests: bool| {
        names
            .iter()
            .filter(|name| name.digest().is_some() == digests)
            .map(|name| name.familiar())
            .collect()
    };
    let labels = &entry.config.config.labels;
    Summary {
        containers: -1,
        created: entry.config.created.map_or(0, Timestamp::unix),
        id: entry.record.id.to_string(),
        labels: (!labels.is_empty()).then(|| labels.clone()),
        parent_id: entry.record.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests: familiar(true),
        repo_tags: familiar(false),
        shared_size: if options.shared_size { shared_size(catalog, entry) as i64 } else { -1 },
        size: entry.record.layers.iter().map(|layer| layer.size).sum::<u64>() as i64,
        ..Summary::default()
    }
}

/// Bytes of the layers that other images have too.
fn shared_size(catalog: &Catalog, entry: &Entry) -> u64 {
    let others = catalog.images.values().filter(|other| other.record.id != entry.record.id);
    let theirs: BTreeSet<_> =
        others.flat_map(|other| other.record.layers.iter().map(|layer| &layer.chain)).collect();
    entry
        .record
        .layers
        .iter()
        .filter(|layer| theirs.contains(&layer.chain))
        .map(|layer| layer.size)
        .sum()
}

fn matches_any(name: &Reference, patterns: &[String]) -> bool {
    patterns.is_empty()
        || patterns
            .iter()
            .any(|pattern| glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_name()))
}

/// Whether Go's `path.Match` understands it.
fn is_pattern(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let understood = match c {
            '\\' => rest.next().is_some(),
            '[' => skip_set(&mut rest).is_some(),
            _ => true,
        };
        if !understood {
            return false;
        }
    }
    true
}

/// What follows a bracket, up to the one that closes it: one character or range at least.
fn skip_set(rest: &mut std::str::Chars<'_>) -> Option<()> {
    fn one(rest: &mut std::str::Chars<'_>) -> Option<char> {
        match rest.next()? {
            '-' | ']' => None,
            '\\' => rest.next(),
            c => Some(c),
        }
    }
    if rest.as_str().starts_with('^') {
        rest.next();
    }
    loop {
        one(rest)?;
        if rest.as_str().starts_with('-') {
            rest.next();
            one(rest)?;
        }
        if rest.as_str().starts_with(']') {
            return rest.next().map(drop);
        }
    }
}

/// Go's `path.Match`: `*` and `?` stop at slashes, `[…]` is a set. A pattern that makes no sense matches nothing.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            retry = Some((p, t));
            p += 1;
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if let Some(next) = text.get(t).and_then(|c| step(&pattern, p, *c)) {
            (p, t) = (next, t + 1);
            continue;
        }
        match retry {
            Some((star, from)) if from < text.len() && text[from] != '/' => {
                retry = Some((star, from + 1));
                (p, t) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// Where the pattern goes on after it has taken `c` at `p`.
fn step(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' if c != '/' => Some(p + 1),
        '?' => None,
        '\\' => (*pattern.get(p + 1)? == c).then_some(p + 2),
        '[' => {
            let mut at = p + 1;
            let negated = pattern.get(at) == Some(&'^');
            at += usize::from(negated);
            let mut found = false;
            let first = at;
            while at == first || *pattern.get(at)? != ']' {
                let low = literal(pattern, &mut at)?;
                let high = if pattern.get(at) == Some(&'-') {
                    at += 1;
                    literal(pattern, &mut at)?
                } else {
                    low
                };
                found |= (low..=high).contains(&c);
            }
            (found != negated).then_some(at + 1)
        }
        literal => (literal == c).then_some(p + 1),
    }
}

fn literal(pattern: &[char], at: &mut usize) -> Option<char> {
    if pattern.get(*at) == Some(&'\\') {
        *at += 1;
    }
    let c = *pattern.get(*at)?;
    *at += 1;
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::add;

    fn check(catalog: &Catalog, options: &ListOptions, expected: &[&Digest]) {
        let found: Vec<String> =
            select(catalog, options).unwrap().into_iter().map(|summary| summary.id).collect();
        let expected: Vec<String> = expected.iter().map(|id| id.to_string()).collect();
        assert_eq!(found, expected, "{options:?}");
    }

    fn filtered(filters: Filters) -> ListOptions {
        ListOptions { filters, ..ListOptions::default() }
    }

    #[test]
    fn what_is_shown() {
        let mut catalog = Catalog::default();
        let base = add(&mut catalog, "base", None, &["base:1", "owner/base:2"]);
        let middle = add(&mut catalog, "middle", Some(&base), &[]);
        let top = add(&mut catalog, "top", Some(&middle), &["top"]);
        let lost = add(&mut catalog, "lost", None, &[]);
        let by_digest = add(&mut catalog, "digest", None, &[&format!("only@{}", Digest::of(b"m"))]);
        check(&catalog, &ListOptions::default(), &[&by_digest, &lost, &top, &base]);
        check(
            &catalog,
            &ListOptions { all: true, ..ListOptions::default() },
            &[&by_digest, &lost, &top, &middle, &base],
        );
        check(
            &catalog,
            &filtered(Filters { dangling: Some(true), ..Filters::default() }),
            &[&by_digest, &lost],
        );
        check(
            &catalog,
            &filtered(Filters { dangling: Some(false), ..Filters::default() }),
            &[&top, &base],
        );
        let reference = |pattern: &str| {
            filtered(Filters { references: vec![pattern.to_owned()], ..Filters::default() })
        };
        check(&catalog, &reference("top"), &[&top]);
        check(&catalog, &reference("b*:1"), &[&base]);
        check(&catalog, &reference("*/*"), &[&base]);
        check(&catalog, &reference("nothing"), &[]);
        check(
            &catalog,
            &filtered(Filters { before: vec!["top".to_owned()], ..Filters::default() }),
            &[&base],
        );
        check(
            &catalog,
            &filtered(Filters { since: vec!["top".to_owned()], ..Filters::default() }),
            &[&by_digest, &lost],
        );
    }

    #[test]
    fn shared_layers_are_measured() {
        let mut catalog = Catalog::default();
        let base = add(&mut catalog, "base", None, &["base"]);
        add(&mut catalog, "top", Some(&base), &["top"]);
        let listed =
            select(&catalog, &ListOptions { shared_size: true, ..ListOptions::default() }).unwrap();
        let sizes: Vec<(i64, i64)> =
            listed.iter().map(|summary| (summary.size, summary.shared_size)).collect();
        assert_eq!(sizes, [(200, 100), (100, 100)]);
    }

    #[test]
    fn filters_are_understood_or_refused() {
        let parse = |name: &str, value: &str| {
            Filters::for_list(&BTreeMap::from([(name.to_owned(), vec![value.to_owned()])]))
                .map_err(|error| error.to_string())
        };
        assert_eq!(parse("dangling", "1").unwrap().dangling, Some(true));
        assert_eq!(parse("dangling", "maybe").unwrap_err(), "invalid filter 'dangling=[maybe]'");
        assert_eq!(parse("colour", "red").unwrap_err(), "invalid filter 'colour'");
        assert!(parse("reference", "a[^b-d]\\*").is_ok());
        for pattern in ["[", "a[]", "[-a]", "[a-]", "[a", "a\\", "[\\"] {
            assert_eq!(parse("reference", pattern).unwrap_err(), "syntax error in pattern");
        }
        let words = "failed to parse value as time or duration: \"soon\"";
        assert_eq!(parse("until", "soon").unwrap_err(), words);
        assert!(parse("until", "10m").unwrap().until.unwrap() < Timestamp::now());
        assert_eq!(parse("until", "1700000000").unwrap().until.unwrap().unix(), 1_700_000_000);
    }

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("busy*", "owner/busybox", false),
            ("*/busy?ox", "owner/busybox", true),
            ("*", "a/b", false),
            ("**", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[", "[", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("\\*", "*", true),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
