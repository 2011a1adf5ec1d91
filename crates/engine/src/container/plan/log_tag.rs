//! `--log-opt tag`: a template of what messages are said to be of. Pure.

use std::collections::BTreeMap;

use stdx::{Error, Result};
use template::{Absent, Docker, Row, Template, Value};

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

pub(crate) fn render(template: &str, named: &Named<'_>) -> Result<String> {
    let template = Template::with("log-tag", template, Docker).map_err(Error::invalid)?;
    template.run(&value(named), Absent::NoValue).map_err(Error::invalid)
}

/// Go's `logger.Info`, as far as a tag can make use of it.
fn value(named: &Named<'_>) -> Value {
    let short = |id: &str| Value::text(id.chars().take(12).collect::<String>());
    let text = |text: &str| Value::text(text);
    let labels = named.labels.iter().map(|(name, label)| (name, Value::text(label)));
    let columns = vec![
        ("ID", short(named.id)),
        ("FullID", text(named.id)),
        ("ContainerID", text(named.id)),
        ("Name", text(named.name)),
        ("ContainerName", Value::text(format!("/{}", named.name))),
        ("ImageID", short(named.image_id.trim_start_matches("sha256:"))),
        ("ImageFullID", text(named.image_id)),
        ("ContainerImageID", text(named.image_id)),
        ("ImageName", text(named.image_name)),
        ("ContainerImageName", text(named.image_name)),
        ("Command", text(named.command)),
        ("Hostname", text(named.hostname)),
        ("DaemonName", text("docker")),
        ("ContainerLabels", Value::map(labels)),
    ];
    Value::Row(Row { type_name: "*logger.Info", columns, labels: Vec::new() }.into())
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
            ("{{if eq .Name \"web\"}}it{{else}}{{.Name}}{{end}}", "it"),
        ] {
            assert_eq!(render(template, &named).unwrap(), tag, "{template}");
        }
        for (template, words) in [
            (
                "{{.Nope}}",
                "template: log-tag:1:2: executing \"log-tag\" at <.Nope>: can't evaluate field Nope in type *logger.Info",
            ),
            ("{{shout .Name}}", "template: log-tag:1: function \"shout\" not defined"),
            ("{{}}", "template: log-tag:1: missing value for command"),
            ("{{.ID", "template: log-tag:1: unclosed action"),
        ] {
            assert_eq!(render(template, &named).unwrap_err().to_string(), words, "{template}");
        }
    }
}
