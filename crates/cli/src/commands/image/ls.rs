//! `images`: which images there are.

use stdx::units::{human_size, human_size_precise};

use crate::command::{Args, Call, Command, about};
use crate::commands::{Words, listing_format, printed, short_id};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["image ls", "image list", "images"],
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    args: Args::AtMost(1),
    flags: &[
        Flag::new("all", Kind::Switch, "Show all images (default hides intermediate images)")
            .short('a'),
        Flag::new("digests", Kind::Switch, "Show digests"),
        Flag::new("filter", Kind::Filter, "Filter output based on conditions provided").short('f'),
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new("no-trunc", Kind::Switch, "Don't truncate output"),
        Flag::new("quiet", Kind::Switch, "Only show image IDs").short('q'),
        Flag::new("tree", Kind::Switch, "List multi-platform images as a tree (EXPERIMENTAL)"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 12] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Platform", "PLATFORM"),
];
const TABLE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const DIGESTS: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// `--format raw`.
const RAW: &str = "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";
pub(crate) const RAW_WITH_DIGEST: &str = "repository: {{.Repository}}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if flags.on("tree") {
        return Err(Failure::words("--tree is not supported yet"));
    }
    let digests = flags.on("digests");
    let (table, raw) = if digests { (DIGESTS, RAW_WITH_DIGEST) } else { (TABLE, RAW) };
    let words = Words { table, quiet: "{{.ID}}", raw: Some((raw, "image_id: {{.ID}}")) };
    let format = listing_format(call, "imagesFormat", &words)?;
    let mut filters = flags.filters("filter");
    if let Some(name) = call.args().first() {
        filters.add("reference", name);
    }
    let images: Value = call
        .cli
        .client()?
        .get("/images/json")
        .query_flag("all", flags.on("all"))
        .query_opt("filters", filters.query())
        .fetch()
        .await?;
    let shows =
        Shows { trunc: !flags.on("no-trunc"), digests: digests || format.contains(".Digest") };
    let mut images: Vec<&Value> = images.items().iter().collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.int_at("Created")));
    let rows: Vec<Row> = images.into_iter().flat_map(|image| rows(image, &shows)).collect();
    printed(call, &format, &HEADINGS, rows)
}

struct Shows {
    trunc: bool,
    digests: bool,
}

/// A row for each name; `<none>` for what has none.
fn rows(image: &Value, shows: &Shows) -> Vec<Row> {
    let texts = |key: &str| {
        let items = image.items_at(key).iter().filter_map(Value::as_str);
        items.filter(|text| !text.starts_with("<none>")).map(str::to_owned).collect::<Vec<_>>()
    };
    let tags = texts("RepoTags");
    let digests = texts("RepoDigests");
    let mut named: Vec<(String, String, String)> = Vec::new();
    for tag in &tags {
        let Some((repository, tag)) = tag.rsplit_once(':') else { continue };
        let of_repository: Vec<&str> = digests
            .iter()
            .filter_map(|digest| digest.split_once('@'))
            .filter(|(name, _)| *name == repository)
            .map(|(_, digest)| digest)
            .collect();
        match (shows.digests, of_repository.as_slice()) {
            (true, [_, ..]) => {
                named.extend(
                    of_repository.iter().map(|digest| {
                        (repository.to_owned(), tag.to_owned(), (*digest).to_owned())
                    }),
                );
            }
            _ => named.push((repository.to_owned(), tag.to_owned(), String::new())),
        }
    }
    for digest in &digests {
        let Some((repository, digest)) = digest.split_once('@') else { continue };
        let shown = named.iter().any(|(known, ..)| known == repository);
        if !shown {
            let digest = if shows.digests { digest.to_owned() } else { String::new() };
            named.push((repository.to_owned(), String::new(), digest));
        }
    }
    named.dedup();
    if named.is_empty() {
        named.push(Default::default());
    }
    named
        .into_iter()
        .map(|(repository, tag, digest)| row(image, shows, &repository, &tag, &digest))
        .collect()
}

/// The row `system df -v` shows for an image: that of its first name, and without a digest.
pub(crate) fn first_row(image: &Value, trunc: bool) -> Row {
    let mut row = rows(image, &Shows { trunc, digests: false }).swap_remove(0);
    for (_, value) in row.columns.iter_mut().filter(|(name, _)| *name == "Digest") {
        *value = Value::text("");
    }
    row
}

fn row(image: &Value, shows: &Shows, repository: &str, tag: &str, digest: &str) -> Row {
    let or_none = |text: &str| Value::text(if text.is_empty() { "<none>" } else { text });
    let created = image.int_at("Created");
    let size = |bytes: i64| human_size_precise(bytes as f64, 3);
    let (whole, shared) = (image.int_at("Size"), image.int_at("SharedSize"));
    let known = |bytes: i64| image.get("SharedSize").is_some() && shared != -1 && bytes != -1;
    let containers = image.int_at("Containers");
    Row {
        type_name: "*formatter.imageContext",
        columns: vec![
            (
                "Containers",
                Value::text(if containers < 0 { "N/A".to_owned() } else { containers.to_string() }),
            ),
            ("CreatedAt", Value::text(times::go(created))),
            (
                "CreatedSince",
                Value::text(if created == 0 { "N/A".to_owned() } else { times::ago(created) }),
            ),
            ("Digest", or_none(digest)),
            ("ID", Value::text(short_id(image.str_at("Id"), shows.trunc))),
            ("Repository", or_none(repository)),
            (
                "SharedSize",
                Value::text(if known(shared) {
                    human_size(shared as f64)
                } else {
                    "N/A".to_owned()
                }),
            ),
            ("Size", Value::text(size(whole))),
            ("Tag", or_none(tag)),
            (
                "UniqueSize",
                Value::text(if known(shared) {
                    human_size((whole - shared) as f64)
                } else {
                    "N/A".to_owned()
                }),
            ),
            ("VirtualSize", Value::text(human_size(whole as f64))),
        ],
        labels: crate::commands::labels(image.entries_at("Labels")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str, digests: bool) -> Vec<String> {
        let image: Value = serde_json::from_str(json).unwrap();
        let column = |row: &Row, name: &str| {
            row.columns
                .iter()
                .find(|(known, _)| *known == name)
                .unwrap()
                .1
                .as_str()
                .unwrap()
                .to_owned()
        };
        rows(&image, &Shows { trunc: true, digests })
            .iter()
            .map(|row| {
                format!(
                    "{} {} {}",
                    column(row, "Repository"),
                    column(row, "Tag"),
                    column(row, "Digest")
                )
            })
            .collect()
    }

    #[test]
    fn a_row_for_each_name() {
        let image = r#"{"RepoTags":["a:1","a:2","r:5000/b:x"],"RepoDigests":["a@sha256:1"]}"#;
        assert_eq!(names(image, false), ["a 1 <none>", "a 2 <none>", "r:5000/b x <none>"]);
        assert_eq!(names(image, true), ["a 1 sha256:1", "a 2 sha256:1", "r:5000/b x <none>"]);
        assert_eq!(
            names(r#"{"RepoTags":["<none>:<none>"],"RepoDigests":["<none>@<none>"]}"#, false),
            ["<none> <none> <none>"]
        );
        assert_eq!(
            names(r#"{"RepoTags":[],"RepoDigests":["a@sha256:1"]}"#, true),
            ["a <none> sha256:1"]
        );
    }
}
