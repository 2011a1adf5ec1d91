//! The rows.

use std::collections::BTreeSet;

const TABLE: &str = include_str!("table.txt");

/// One command line, and what is changed of it while it runs.
pub(crate) struct Row {
    pub(crate) text: &'static str,
    /// Of `docker run`, up to the image.
    pub(crate) options: Vec<String>,
    /// The image and what follows.
    pub(crate) command: Vec<String>,
    /// Runs on, and is changed by `docker update` with these, if there are any.
    pub(crate) update: Option<Vec<String>>,
    /// The client refuses to ask an old daemon for it, so ours alone is asked, and this must be seen.
    pub(crate) alone: Option<(String, String)>,
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut before = Vec::new();
    for line in TABLE.lines().map(str::trim) {
        match line.strip_prefix('=') {
            Some(flags) => before = words(flags),
            None if line.is_empty() || line.starts_with('#') => {}
            None => {
                let row = Row::parse(line);
                let options = before.iter().cloned().chain(row.options).collect();
                rows.push(Row { options, ..row });
            }
        }
    }
    rows
}

impl Row {
    fn parse(text: &'static str) -> Self {
        let (line, alone) = match text.split_once(" => ") {
            Some((line, seen)) => {
                let (path, value) = seen.split_once(" = ").expect("what is seen where");
                (line, Some((path.to_owned(), value.to_owned())))
            }
            None => (text, None),
        };
        let (line, update) = match line.split_once(" ~") {
            Some((line, update)) => (line, Some(words(update))),
            None => (line, None),
        };
        let (options, command) = match line.split_once(" @ ") {
            Some((options, command)) => (words(options), words(command)),
            None => (words(line), vec!["probe".to_owned()]),
        };
        Self { text, options, command, update, alone }
    }

    /// The long names of its flags.
    pub(crate) fn flags(&self) -> Vec<String> {
        let long = |word: &String| match word.as_str() {
            "-i" => "--interactive".to_owned(),
            "-t" => "--tty".to_owned(),
            word => word.split('=').next().unwrap_or_default().to_owned(),
        };
        self.options.iter().filter(|word| word.starts_with('-')).map(long).collect()
    }
}

/// Words as a shell takes them, with single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// `--name` for each line of the help that begins with one.
pub(crate) fn flags_of_help(help: &str) -> BTreeSet<String> {
    help.lines()
        .filter_map(|line| {
            let at = line.find("--").filter(|at| *at <= 6)?;
            Some(line[at..].split_whitespace().next()?.to_owned())
        })
        .collect()
}
