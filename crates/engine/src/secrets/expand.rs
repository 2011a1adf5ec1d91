//! Secrets and configs that are templates (`--template-driver golang`): what they become for one container. Pure.
//!
//! A template knows what it knows in a swarm. Where there is none, the container is its own service and its own task.

use stdx::{Error, Result};
use template::{Absent, Functions, Row, Template, Value};

use super::Sort;
use crate::container::record::Record as Container;

/// The only language there is.
pub(super) const DRIVER: &str = "golang";

/// Whom a template is expanded for.
pub(super) struct Receiver<'a> {
    pub(super) container: &'a Container,
    /// This engine's identity, and its host's name.
    pub(super) engine: (&'a str, &'a str),
    pub(super) architecture: &'a str,
    /// What a secret or config holds, by its id.
    pub(super) data: &'a dyn Fn(Sort, &str) -> Result<Vec<u8>>,
}

pub(super) fn expand(sort: Sort, text: &[u8], receiver: &Receiver<'_>) -> Result<Vec<u8>> {
    let failed = |cause: String| {
        Error::invalid(format!("failed to expand templated {}: {cause}", sort.word()))
    };
    let text = std::str::from_utf8(text).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    let expanded = Template::with("expansion", text, Given(receiver))
        .and_then(|template| template.run(&receiver.picture(), Absent::Error))
        .map_err(failed)?;
    match expanded.len() < sort.limit() {
        true => Ok(expanded.into_bytes()),
        false => Err(failed(format!("it is not less than {} bytes", sort.limit()))),
    }
}

impl Receiver<'_> {
    fn picture(&self) -> Value {
        let container = self.container;
        let id = || Value::text(container.id.as_str());
        let name = || Value::text(&container.name);
        let labels = container.config.labels.iter().flatten();
        let row = |type_name, columns: Vec<(&'static str, Value)>| {
            Value::Row(std::rc::Rc::new(Row { type_name, columns, labels: Vec::new() }))
        };
        let labels = Value::map(labels.map(|(name, value)| (name, Value::text(value))));
        let platform =
            vec![("Architecture", Value::text(self.architecture)), ("OS", Value::text("linux"))];
        let node = vec![
            ("ID", Value::text(self.engine.0)),
            ("Hostname", Value::text(self.engine.1)),
            ("Platform", row("template.Platform", platform)),
        ];
        let service = vec![("ID", id()), ("Name", name()), ("Labels", labels)];
        let task = vec![("ID", id()), ("Name", name()), ("Slot", Value::text("1"))];
        let all = vec![
            ("Service", row("struct", service)),
            ("Node", row("struct", node)),
            ("Task", row("struct", task)),
        ];
        row("template.PayloadContext", all)
    }
}

/// What can be called in such a template.
struct Given<'a>(&'a Receiver<'a>);

impl Functions for Given<'_> {
    fn takes(&self, name: &str) -> Option<(usize, usize)> {
        match name {
            "secret" | "config" | "env" => Some((1, 1)),
            "join" => Some((1, usize::MAX)),
            _ => None,
        }
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String> {
        let texts: Option<Vec<&str>> = args.iter().map(Value::as_str).collect();
        let texts = texts.ok_or("wrong type for value; expected string")?;
        let container = self.0.container;
        let word = texts[0];
        let found = match name {
            "join" => return Ok(Value::text(texts[1..].join(word))),
            "env" => {
                let pairs = container.config.env.iter().flatten();
                let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
                let value = pairs.find(|(name, _)| *name == word).map_or("", |(_, value)| value);
                return Ok(Value::text(value));
            }
            "secret" => {
                let mut all = container.host().secrets.iter();
                let found = all.find(|reference| reference.file.name == word);
                found.map(|reference| (Sort::Secret, &reference.secret_id))
            }
            _ => {
                let mut all = container.host().configs.iter();
                let found = all.find(|reference| reference.file.name == word);
                found.map(|reference| (Sort::Config, &reference.config_id))
            }
        };
        let (sort, id) = found.ok_or_else(|| format!("{name} target {word} not found"))?;
        let data = (self.0.data)(sort, id).map_err(|error| error.chain())?;
        Ok(Value::text(String::from_utf8_lossy(&data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String> {
        let container = serde_json::json!({
            "id": "a".repeat(64), "name": "web", "created": "2026-01-01T00:00:00Z",
            "image": format!("sha256:{}", "0".repeat(64)), "chain": [],
            "config": {"Env": ["MODE=fast", "BARE"], "Labels": {"tier": "front"}},
            "host_config": {
                "Secrets": [{"SecretID": "s1", "SecretName": "password", "File": {"Name": "pw"}}],
            },
            "platform": "linux", "driver": "overlay2", "mounts": [], "own_volumes": [], "endpoints": {},
            "state": serde_json::to_value(crate::container::state::State::default()).unwrap(),
            "restart_count": 0, "stopped_by_hand": false,
        });
        let container: Container = serde_json::from_value(container).unwrap();
        let data = |sort: Sort, id: &str| Ok(format!("{} {id}", sort.word()).into_bytes());
        let receiver = Receiver {
            container: &container,
            engine: ("engine", "host"),
            architecture: "amd64",
            data: &data,
        };
        expand(Sort::Config, text.as_bytes(), &receiver)
            .map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn what_a_template_knows() {
        for (text, expected) in [
            ("{{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}}", "web.1 on host"),
            (
                "{{.Node.ID}} {{.Node.Platform.Architecture}}/{{.Node.Platform.OS}}",
                "engine amd64/linux",
            ),
            ("{{index .Service.Labels \"tier\"}} {{.Service.Labels.tier}}", "front front"),
            ("{{env \"MODE\"}}[{{env \"BARE\"}}{{env \"NONE\"}}]", "fast[]"),
            ("{{if eq (env \"MODE\") \"fast\"}}workers={{else}}none={{end}}4", "workers=4"),
            ("user=me password={{secret \"pw\"}}", "user=me password=secret s1"),
            ("{{join \"-\" \"a\" \"b\"}}", "a-b"),
        ] {
            assert_eq!(expanded(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_it_cannot_be() {
        for (text, words) in [
            ("{{", "template: expansion:1: unclosed action"),
            (
                "{{secret \"no\"}}",
                "template: expansion:1:2: executing \"expansion\" at <secret \"no\">: error calling secret: secret target no not found",
            ),
            ("{{upper \"a\"}}", "template: expansion:1: function \"upper\" not defined"),
            (
                "{{.Nope}}",
                "template: expansion:1:2: executing \"expansion\" at <.Nope>: can't evaluate field Nope in type template.PayloadContext",
            ),
        ] {
            let error = expanded(text).unwrap_err();
            assert_eq!(error.to_string(), format!("failed to expand templated config: {words}"));
        }
    }
}
