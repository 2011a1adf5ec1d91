//! `system df`: what takes space, and how much of it could be had back.

use stdx::units::{human_size, human_size_precise};

use crate::command::{Call, Command, about};
use crate::commands::container::ls as containers;
use crate::commands::image::ls as images;
use crate::commands::short_id;
use crate::commands::volume::ls as volumes;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::{self, Heading};
use crate::format::{Absent, Row, Template, Value, with_go_types};
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["system df"],
    usage: "[OPTIONS]",
    about: "Show docker disk usage",
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new("verbose", Kind::Switch, "Show detailed information on space usage").short('v'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const TABLE: &str = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const RAW: &str = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n";
const CACHE_RAW: &str = "build_cache_id: {{.ID}}\nparent_id: {{.Parent}}\nbuild_cache_type: {{.CacheType}}\ndescription: {{.Description}}\ncreated_at: {{.CreatedAt}}\ncreated_since: {{.CreatedSince}}\nlast_used_at: {{.LastUsedAt}}\nlast_used_since: {{.LastUsedSince}}\nusage_count: {{.UsageCount}}\nin_use: {{.InUse}}\nshared: {{.Shared}}\n";

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let answer: Value = call.cli.client()?.get("/system/df").query("verbose", "1").fetch().await?;
    let usage = Usage::of(&answer);
    let text = match (flags.on("verbose"), flags.text("format")) {
        (true, "" | "table") => tables(&usage)?,
        (true, "raw") => everything(&raw(), &usage)?,
        (true, "json") => everything("{{json .}}", &usage)?,
        (true, format) => everything(format, &usage)?,
        (false, format) => {
            let format = match format {
                "" | "table" => TABLE,
                "raw" => RAW,
                format => format,
            };
            listing::render(format, &HEADINGS, usage.summary()).map_err(Failure::words)?
        }
    };
    call.cli.printer.text(&text)
}

/// What the daemon answered, in the shape of any API version.
struct Usage<'a> {
    layers: i64,
    images: &'a [Value],
    containers: &'a [Value],
    volumes: &'a [Value],
    cache: &'a [Value],
}

impl<'a> Usage<'a> {
    fn of(answer: &'a Value) -> Self {
        let items = |new: &str, old: &str| match answer.items_at(&format!("{new}.Items")) {
            [] => answer.items_at(old),
            items => items,
        };
        let layers = answer
            .get("LayersSize")
            .map_or_else(|| answer.int_at("ImageUsage.TotalSize"), |_| answer.int_at("LayersSize"));
        Self {
            layers,
            images: items("ImageUsage", "Images"),
            containers: items("ContainerUsage", "Containers"),
            volumes: items("VolumeUsage", "Volumes"),
            cache: items("BuildCacheUsage", "BuildCache"),
        }
    }

    fn summary(&self) -> Vec<Row> {
        let sum = |items: &[Value], key: &str| {
            items.iter().map(|item| item.int_at(key).max(0)).sum::<i64>()
        };
        let used: i64 = self
            .images
            .iter()
            .filter(|image| image.int_at("Containers") != 0)
            .filter(|image| image.int_at("Size") != -1 && image.int_at("SharedSize") != -1)
            .map(|image| image.int_at("Size") - image.int_at("SharedSize"))
            .sum();
        let of_images = row(
            "Images",
            self.images.len(),
            self.images.iter().filter(|image| image.int_at("Containers") > 0).count(),
            self.layers,
            percent(self.layers - used, self.layers),
        );
        let idle = |container: &&Value| {
            !matches!(container.str_at("State"), "running" | "paused" | "restarting")
        };
        let (size, free) = (
            sum(self.containers, "SizeRw"),
            self.containers.iter().filter(idle).map(|container| container.int_at("SizeRw")).sum(),
        );
        let active = self.containers.len() - self.containers.iter().filter(idle).count();
        let of_containers =
            row("Containers", self.containers.len(), active, size, percent(free, size));
        let unused = |volume: &&Value| volume.int_at("UsageData.RefCount") == 0;
        let (size, free) = (
            sum(self.volumes, "UsageData.Size"),
            self.volumes
                .iter()
                .filter(unused)
                .map(|volume| volume.int_at("UsageData.Size").max(0))
                .sum(),
        );
        let active =
            self.volumes.iter().filter(|volume| volume.int_at("UsageData.RefCount") > 0).count();
        let of_volumes =
            row("Local Volumes", self.volumes.len(), active, size, percent(free, size));
        let own = |item: &&Value| !item.bool_at("Shared");
        let size: i64 = self.cache.iter().filter(own).map(|item| item.int_at("Size")).sum();
        let free: i64 = self
            .cache
            .iter()
            .filter(own)
            .filter(|item| !item.bool_at("InUse"))
            .map(|item| item.int_at("Size"))
            .sum();
        let active = self.cache.iter().filter(|item| item.bool_at("InUse")).count();
        let of_cache = row("Build Cache", self.cache.len(), active, size, human_size(free as f64));
        vec![of_images, of_containers, of_volumes, of_cache]
    }
}

fn percent(free: i64, size: i64) -> String {
    match size {
        size if size > 0 => format!("{} ({}%)", human_size(free as f64), free * 100 / size),
        _ => human_size(free as f64),
    }
}

fn row(kind: &'static str, total: usize, active: usize, size: i64, reclaimable: String) -> Row {
    Row {
        type_name: match kind {
            "Images" => "*formatter.diskUsageImagesContext",
            "Containers" => "*formatter.diskUsageContainersContext",
            "Local Volumes" => "*formatter.diskUsageVolumesContext",
            _ => "*formatter.diskUsageBuilderContext",
        },
        columns: vec![
            ("Active", Value::text(active.to_string())),
            ("Reclaimable", Value::text(reclaimable)),
            ("Size", Value::text(human_size(size as f64))),
            ("TotalCount", Value::text(total.to_string())),
            ("Type", Value::text(kind)),
        ],
        labels: Vec::new(),
    }
}

/// Whether a column is as short as in a table, or whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Short,
    Whole,
}

impl Usage<'_> {
    fn image_rows(&self, width: Width) -> Vec<Row> {
        let row = |image| images::first_row(image, width == Width::Short);
        self.images.iter().map(row).collect()
    }

    /// Without what their images take.
    fn container_rows(&self, width: Width) -> Vec<Row> {
        let row = |container: &Value| {
            let mut row = containers::row(container, width == Width::Short);
            let own = human_size_precise(container.int_at("SizeRw") as f64, 3);
            for (_, value) in row.columns.iter_mut().filter(|(name, _)| *name == "Size") {
                *value = Value::text(&own);
            }
            row
        };
        self.containers.iter().map(row).collect()
    }

    fn volume_rows(&self) -> Vec<Row> {
        self.volumes.iter().map(volumes::row).collect()
    }

    fn cache_rows(&self, width: Width) -> Vec<Row> {
        self.cache.iter().map(|item| cache_row(item, width)).collect()
    }
}

/// A template over all of it at once: `.Images`, `.Containers`, `.Volumes` and `.BuildCache`.
fn everything(format: &str, usage: &Usage<'_>) -> Result<String> {
    let format = format.strip_prefix("table").unwrap_or(format).trim_matches(' ');
    let format = format.replace("\\t", "\t").replace("\\n", "\n");
    let template = Template::parse(&format)
        .map_err(|err| Failure::words(format!("template parsing error: {err}")))?;
    let list = |rows: Vec<Row>| Value::list(rows.into_iter().map(|row| Value::Row(row.into())));
    let all = Value::fields(
        "*formatter.diskUsageContext",
        [
            ("Images", list(usage.image_rows(Width::Whole))),
            ("Containers", list(usage.container_rows(Width::Whole))),
            ("Volumes", list(usage.volume_rows())),
            ("BuildCache", list(usage.cache_rows(Width::Whole))),
        ],
    );
    let types = [("Images", "[]*formatter.imageContext")];
    template.run(&all, Absent::NoValue).map_err(|err| Failure::words(with_go_types(err, &types)))
}

/// `--verbose --format raw`.
fn raw() -> String {
    let each = |list: &str, kind: &str, raw: &str| {
        format!("{{{{range .{list}}}}}type: {kind}\n{raw}\n{{{{end -}}}}\n")
    };
    let of_containers = format!("{}{}", containers::RAW, containers::RAW_SIZE);
    let all = each("Images", "Image", images::RAW_WITH_DIGEST)
        + &each("Containers", "Container", &of_containers)
        + &each("Volumes", "Volume", volumes::RAW)
        + &each("BuildCache", "Build Cache", CACHE_RAW);
    all.trim_end().to_owned()
}

fn tables(usage: &Usage<'_>) -> Result<String> {
    let images = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
    let of_images = [
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ];
    let container_table = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    let volume_table = "table {{.Name}}\t{{.Links}}\t{{.Size}}";
    let of_volumes = [("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
    let cache_table = "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}";
    let of_cache = [
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ];
    let cache_size: i64 = usage
        .cache
        .iter()
        .filter(|item| !item.bool_at("Shared"))
        .map(|item| item.int_at("Size"))
        .sum();
    let render = |format: &str, headings: &[Heading], rows: Vec<Row>| {
        listing::render(format, headings, rows).map_err(Failure::words)
    };
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        render(images, &of_images, usage.image_rows(Width::Short))?,
        render(container_table, &containers::HEADINGS, usage.container_rows(Width::Short))?,
        render(volume_table, &of_volumes, usage.volume_rows())?,
        human_size(cache_size as f64),
        render(cache_table, &of_cache, usage.cache_rows(Width::Short))?,
    ))
}

fn cache_row(item: &Value, width: Width) -> Row {
    let time =
        |key: &str| stdx::time::Timestamp::parse(item.str_at(key)).ok().filter(|at| !at.is_never());
    let at = |key: &str| Value::text(time(key).map_or(String::new(), |at| times::go(at.unix())));
    let since =
        |key: &str| Value::text(time(key).map_or(String::new(), |at| times::ago(at.unix())));
    let text = |key: &str| Value::text(item.str_at(key));
    let marked = if item.bool_at("InUse") { "*" } else { "" };
    let short = width == Width::Short;
    Row {
        type_name: "*formatter.buildCacheContext",
        columns: vec![
            ("CacheType", text("Type")),
            ("CreatedAt", at("CreatedAt")),
            ("CreatedSince", since("CreatedAt")),
            ("Description", text("Description")),
            ("ID", Value::text(format!("{}{marked}", short_id(item.str_at("ID"), short)))),
            ("InUse", Value::text(item.bool_at("InUse").to_string())),
            ("LastUsedAt", at("LastUsedAt")),
            ("LastUsedSince", since("LastUsedAt")),
            ("Parent", Value::text(short_id(item.str_at("Parent"), short))),
            ("Shared", Value::text(item.bool_at("Shared").to_string())),
            ("Size", Value::text(human_size_precise(item.int_at("Size") as f64, 3))),
            ("UsageCount", Value::text(item.int_at("UsageCount").to_string())),
        ],
        labels: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, expected: &str) {
        let answer: Value = serde_json::from_str(
            r#"{"LayersSize": 7, "Images": [{"Id": "sha256:0123456789abcdef", "RepoTags": ["a:1"], "Size": 7, "SharedSize": 0}],
                "Containers": [{"Id": "fedcba9876543210", "Names": ["/web"], "SizeRw": 3, "SizeRootFs": 10}],
                "Volumes": [{"Name": "data", "Driver": "local", "UsageData": {"Size": 2, "RefCount": 1}}]}"#,
        )
        .unwrap();
        let shown = everything(format, &Usage::of(&answer));
        assert_eq!(shown.unwrap_or_else(|failure| format!("{failure:?}")), expected);
    }

    #[test]
    fn one_object_for_all() {
        check("{{len .Images}} {{len .BuildCache}}", "1 0");
        let none = serde_json::from_str("{}").unwrap();
        let shown = everything("{{json .}}", &Usage::of(&none)).unwrap();
        assert_eq!(shown, r#"{"Images":[],"Containers":[],"Volumes":[],"BuildCache":[]}"#);
        check("{{range .Images}}{{.ID}} {{.Digest}}|{{end}}", "sha256:0123456789abcdef |");
        check("{{range .Containers}}{{.ID}} {{.Size}}{{end}}", "fedcba9876543210 3B");
        check("table {{range .Volumes}}{{.Name}}\\t{{.Links}}{{end}}", "data\t1");
    }
}
