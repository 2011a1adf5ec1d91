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

fn value(action: &str, named: &Named<'_>) -> Result<String> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let bare = named.image_id.trim_start_matches("sha256:");
    Ok(match action {
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
        _ => match indexed(action) {
            Some(label) => named.labels.get(label).cloned().unwrap_or_default(),
            None => {
                return Err(Error::invalid(format!(
                    "template: log-tag:1: executing \"log-tag\" at <{action}>: can't evaluate it in type *logger.Info"
                )));
            }
        },
    })
}

/// `index .ContainerLabels "name"`
fn indexed(action: &str) -> Option<&str> {
    let rest = action.strip_prefix("index")?.trim_start().strip_prefix(".ContainerLabels")?;
    rest.trim().strip_prefix('"')?.strip_suffix('"')
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
            ("{{.DaemonName}}@{{.Hostname}}: {{.Command}}", "docker@host: nginx -g"),
        ] {
            assert_eq!(render(template, &named).unwrap(), tag, "{template}");
        }
        assert!(check("{{.Nope}}").is_err());
        assert!(check("{{.ID").is_err());
    }
}
