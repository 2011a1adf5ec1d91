//! `--log-opt tag`: a template of what messages are said to be of. Go's templates, as far as a tag needs them. Pure.

use std::collections::BTreeMap;

use stdx::{Error, Result};

/// What a template can name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) image_id: &'a str,
    pub(crate) image_name: &'a str,
    pub(crate) command: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// Whether a template can be understood.
pub(crate) fn check(template: &str) -> Result<()> {
    let labels = BTreeMap::new();
    let nobody = Named {
        id: "",
        name: "",
        image_id: "",
        image_name: "",
        command: "",
        hostname: "",
        labels: &labels,
    };
    render(template, &nobody).map(drop)
}

pub(crate) fn render(template: &str, named: &Named<'_>) -> Result<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after
            .split_once("}}")
            .ok_or_else(|| Error::invalid("template: log-tag:1: unclosed action"))?;
        // Dashes take the white space on their side away.
        let before = if action.starts_with("- ") { before.trim_end() } else { before };
        let after = if action.ends_with(" -") { after.trim_start() } else { after };
        out.push_str(before);
        let action = action.trim_start_matches("- ").trim_end_matches(" -");
        out.push_str(&value(action.trim(), named)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What a step of a pipeline hands to the next: text, or Go's list of texts.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    List(Vec<String>),
    Labels(BTreeMap<String, String>),
}

impl Value {
    /// As Go prints it.
    fn print(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(list) => format!("[{}]", list.join(" ")),
            Self::Labels(labels) => {
                let pairs: Vec<_> =
                    labels.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Text(text) => serde_json::to_string(text),
            Self::List(list) => serde_json::to_string(list),
            Self::Labels(labels) => serde_json::to_string(labels),
        }
        .expect("texts")
    }
}

fn value(action: &str, named: &Named<'_>) -> Result<String> {
    let mut piped = None;
    for step in steps(action) {
        piped = Some(call(&words(&step)?, piped, &step, named)?);
    }
    Ok(piped.map(|value| value.print()).unwrap_or_default())
}

/// Between the bars, but for those in quotes or parentheses.
fn steps(action: &str) -> Vec<String> {
    let (mut steps, mut quoted, mut escaped, mut depth) = (vec![String::new()], None, false, 0);
    for character in action.chars() {
        match (quoted, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(mark), _) if mark == character => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quoted = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, '|') if depth == 0 => {
                steps.push(String::new());
                continue;
            }
            (None, _) => {}
        }
        if let Some(step) = steps.last_mut() {
            step.push(character);
        }
    }
    steps.iter().map(|step| step.trim().to_owned()).collect()
}

/// A name, a field, or a constant.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Name(String),
    Text(String),
    Number(i64),
    /// In parentheses.
    Pipeline(String),
}

fn words(step: &str) -> Result<Vec<Word>> {
    let bad = || Error::invalid(format!("template: log-tag:1: bad command {step:?}"));
    let (mut words, mut rest) = (Vec::new(), step.trim());
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            '"' => {
                let mut read = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let text = read.next().and_then(Result::ok).ok_or_else(bad)?;
                (Word::Text(text), read.byte_offset())
            }
            '`' => {
                let end = rest[1..].find('`').ok_or_else(bad)?;
                (Word::Text(rest[1..=end].to_owned()), end + 2)
            }
            '(' => {
                let end = rest.rfind(')').ok_or_else(bad)?;
                (Word::Pipeline(rest[1..end].trim().to_owned()), end + 1)
            }
            _ => {
                let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let text = &rest[..length];
                let word = match text.parse() {
                    Ok(number) => Word::Number(number),
                    Err(_) => Word::Name(text.to_owned()),
                };
                (word, length)
            }
        };
        words.push(word);
        rest = rest[length..].trim_start();
    }
    if words.is_empty() {
        Err(Error::invalid("template: log-tag:1: missing value for command"))
    } else {
        Ok(words)
    }
}

/// One step: what it names, or a function of its words and of what was piped into it.
fn call(words: &[Word], piped: Option<Value>, step: &str, named: &Named<'_>) -> Result<Value> {
    let (first, rest) = words.split_first().expect("a step has a word");
    let arguments = rest
        .iter()
        .map(|word| of_word(word, step, named))
        .chain(piped.map(Ok))
        .collect::<Result<Vec<_>>>()?;
    match first {
        Word::Name(name) if !name.starts_with('.') => function(name, &arguments, step),
        constant if arguments.is_empty() => of_word(constant, step, named),
        _ => Err(Error::invalid(format!(
            "template: log-tag:1: can't give argument to non-function {step}"
        ))),
    }
}

fn of_word(word: &Word, step: &str, named: &Named<'_>) -> Result<Value> {
    match word {
        Word::Text(text) => Ok(Value::Text(text.clone())),
        Word::Number(number) => Ok(Value::Text(number.to_string())),
        Word::Pipeline(inner) => {
            let mut piped = None;
            for step in steps(inner) {
                piped = Some(call(&self::words(&step)?, piped, &step, named)?);
            }
            piped.ok_or_else(|| Error::invalid(format!("template: log-tag:1: empty {step:?}")))
        }
        Word::Name(name) => field(name, named).ok_or_else(|| {
            Error::invalid(format!(
                "template: log-tag:1: executing \"log-tag\" at <{name}>: can't evaluate it in type *logger.Info"
            ))
        }),
    }
}

fn field(name: &str, named: &Named<'_>) -> Option<Value> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let bare = named.image_id.trim_start_matches("sha256:");
    Some(Value::Text(match name {
        ".ID" => short(named.id),
        ".FullID" | ".ContainerID" => named.id.to_owned(),
        ".Name" => named.name.to_owned(),
        ".ContainerName" => format!("/{}", named.name),
        ".ImageID" => short(bare),
        ".ImageFullID" | ".ContainerImageID" => named.image_id.to_owned(),
        ".ImageName" | ".ContainerImageName" => named.image_name.to_owned(),
        ".Command" => named.command.to_owned(),
        ".Hostname" => named.hostname.to_owned(),
        ".DaemonName" => "docker".to_owned(),
        ".ContainerLabels" => return Some(Value::Labels(named.labels.clone())),
        _ => return None,
    }))
}

/// What Docker's templates can call: its own functions, and Go's of those that a tag can make use of.
fn function(name: &str, arguments: &[Value], step: &str) -> Result<Value> {
    use Value::{Labels, List, Text};
    let text = |text: String| Ok(Text(text));
    match (name, arguments) {
        ("json", [value]) => text(value.json()),
        ("lower", [Text(value)]) => text(value.to_lowercase()),
        ("upper", [Text(value)]) => text(value.to_uppercase()),
        ("title", [Text(value)]) => text(title(value)),
        ("split", [Text(value), Text(by)]) => {
            Ok(List(value.split(by.as_str()).map(str::to_owned).collect()))
        }
        ("join", [List(list), Text(by)]) => text(list.join(by)),
        ("pad", [Text(value), Text(before), Text(after)]) => {
            match (before.parse(), after.parse()) {
                (Ok(before), Ok(after)) if !value.is_empty() => {
                    let spaces = |number: usize| " ".repeat(number.min(1024));
                    text(format!("{}{value}{}", spaces(before), spaces(after)))
                }
                (Ok::<usize, _>(_), Ok::<usize, _>(_)) => text(String::new()),
                _ => Err(wrong(name, step)),
            }
        }
        ("truncate", [Text(value), Text(length)]) => match length.parse() {
            Ok(length) => text(value.chars().take(length).collect()),
            Err(_) => Err(wrong(name, step)),
        },
        ("println", values) => text(format!("{}\n", printed(values, " "))),
        ("print", values) => text(printed(values, "")),
        ("len", [Text(value)]) => text(value.len().to_string()),
        ("len", [List(list)]) => text(list.len().to_string()),
        ("len", [Labels(labels)]) => text(labels.len().to_string()),
        ("index", [Labels(labels), Text(key)]) => {
            text(labels.get(key).cloned().unwrap_or_default())
        }
        ("index", [List(list), Text(place)]) => {
            let found = place.parse::<usize>().ok().and_then(|place| list.get(place));
            found.cloned().map(Text).ok_or_else(|| wrong(name, step))
        }
        (
            "json" | "lower" | "upper" | "title" | "split" | "join" | "pad" | "truncate" | "len"
            | "index",
            _,
        ) => Err(wrong(name, step)),
        _ => Err(Error::invalid(format!("template: log-tag:1: function {name:?} not defined"))),
    }
}

fn printed(values: &[Value], between: &str) -> String {
    values.iter().map(Value::print).collect::<Vec<_>>().join(between)
}

fn wrong(name: &str, step: &str) -> Error {
    Error::invalid(format!(
        "template: log-tag:1: executing \"log-tag\" at <{step}>: wrong arguments for {name}"
    ))
}

/// Every word begins large.
fn title(text: &str) -> String {
    let mut before = ' ';
    let large = |character: char| {
        let begins = !(before.is_alphanumeric() || matches!(before, '_' | '\''));
        before = character;
        if begins { character.to_uppercase().collect() } else { character.to_string() }
    };
    text.chars().map(large).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
        let named = Named {
            id: "0123456789abcdef",
            name: "web",
            image_id: "sha256:fedcba9876543210",
            image_name: "nginx:1",
            command: "nginx -g",
            hostname: "host",
            labels: &labels,
        };
        for (template, tag) in [
            ("{{.ID}}", "0123456789ab"),
            ("{{.ImageName}}/{{ .Name }}/{{.FullID}}", "nginx:1/web/0123456789abcdef"),
            ("{{.ImageID}} {{.ImageFullID}}", "fedcba987654 sha256:fedcba9876543210"),
            ("plain", "plain"),
            ("a {{- .Name -}} b", "awebb"),
            ("{{index .ContainerLabels \"tier\"}}{{index .ContainerLabels \"x\"}}", "front"),
            ("{{.Name | upper}} {{upper .Name}} {{title .Command}}", "WEB WEB Nginx -G"),
            ("{{truncate .FullID 4}}|{{.FullID | len}}", "0123|16"),
            ("{{split .ImageName \":\"}}", "[nginx 1]"),
            ("{{join (split .ImageName \":\") \"@\"}}", "nginx@1"),
            ("{{index (split .ImageName \":\") 0}}", "nginx"),
            ("{{json .Name}} {{json .ContainerLabels}}", "\"web\" {\"tier\":\"front\"}"),
            ("<{{pad .Name 1 2}}><{{lower `WEB`}}>", "< web  ><web>"),
            ("{{.ContainerLabels}} {{\"a|b\" | upper}}", "map[tier:front] A|B"),
            ("{{.DaemonName}}@{{.Hostname}}: {{.Command}}", "docker@host: nginx -g"),
        ] {
            assert_eq!(render(template, &named).unwrap(), tag, "{template}");
        }
        assert!(check("{{.Nope}}").is_err());
        for (template, words) in [
            ("{{shout .Name}}", "function \"shout\" not defined"),
            ("{{lower}}", "wrong arguments for lower"),
            ("{{.Name 1}}", "can't give argument to non-function"),
            ("{{}}", "missing value for command"),
            ("{{.Name |}}", "missing value for command"),
            ("{{upper \"a}}", "bad command"),
        ] {
            let refused = check(template).unwrap_err().to_string();
            assert!(refused.contains(words), "{template}: {refused}");
        }
        assert!(check("{{.ID").is_err());
    }
}
