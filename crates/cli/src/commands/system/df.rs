//! `system df`: what takes space, and how much of it could be had back.

use stdx::units::{human_size, human_size_precise};

use crate::command::{Call, Command, about};
use crate::commands::container::ls as containers;
use crate::commands::short_id;
use crate::commands::volume::ls as volumes;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::{self, Heading};
use crate::format::{Row, Value};
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

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let answer: Value = call.cli.client()?.get("/system/df").query("verbose", "1").fetch().await?;
    let usage = Usage::of(&answer);
    let format = flags.text("format");
    if flags.on("verbose") && matches!(format, "" | "table") {
        return call.cli.printer.text(&verbose(&usage)?);
    }
    let format = if matches!(format, "" | "table") { TABLE } else { format };
    let text = listing::render(format, &HEADINGS, usage.summary()).map_err(Failure::words)?;
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

fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: String) -> Row {
    Row {
        type_name: "*formatter.diskUsageContext",
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

fn verbose(usage: &Usage<'_>) -> Result<String> {
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
    let image_rows = usage.images.iter().map(crate::commands::image::ls::first_row).collect();
    let container_table = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    let container_rows = usage
        .containers
        .iter()
        .map(|container| {
            let mut row = containers::row(container, true);
            for (name, value) in &mut row.columns {
                if *name == "Size" {
                    *value = Value::text(human_size_precise(container.int_at("SizeRw") as f64, 3));
                }
            }
            row
        })
        .collect();
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
    let cache_rows: Vec<Row> = usage.cache.iter().map(cache_row).collect();
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
        render(images, &of_images, image_rows)?,
        render(container_table, &containers::HEADINGS, container_rows)?,
        render(volume_table, &of_volumes, usage.volumes.iter().map(volumes::row).collect())?,
        human_size(cache_size as f64),
        render(cache_table, &of_cache, cache_rows)?,
    ))
}

fn cache_row(item: &Value) -> Row {
    let since = |key: &str| match stdx::time::Timestamp::parse(item.str_at(key)) {
        Ok(at) if !at.is_never() => times::ago(at.unix()),
        _ => String::new(),
    };
    let in_use = if item.bool_at("InUse") { "*" } else { "" };
    Row {
        type_name: "*formatter.buildCacheContext",
        columns: vec![
            ("CacheType", Value::text(item.str_at("Type"))),
            ("CreatedSince", Value::text(since("CreatedAt"))),
            ("ID", Value::text(format!("{}{in_use}", short_id(item.str_at("ID"), true)))),
            ("LastUsedSince", Value::text(since("LastUsedAt"))),
            ("Shared", Value::text(item.bool_at("Shared").to_string())),
            ("Size", Value::text(human_size_precise(item.int_at("Size") as f64, 3))),
            ("UsageCount", Value::text(item.int_at("UsageCount").to_string())),
        ],
        labels: Vec::new(),
    }
}
