//! The house rules that a compiler does not know: who may stand on whom, and what must not appear where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Which floor a crate is on. It may use every floor below.
const FLOORS: [(&str, u8); 24] = [
    ("stdx", 0),
    ("tls", 0),
    ("sys", 0),
    ("api", 0),
    ("template", 0),
    ("state", 1),
    ("dbus", 1),
    ("oci", 1),
    ("tokiox", 1),
    ("plugin", 1),
    ("rootless", 1),
    ("storage", 2),
    ("network", 2),
    ("runtime", 2),
    ("image", 3),
    ("shim", 3),
    ("engine", 4),
    ("client", 4),
    ("testkit", 5),
    ("e2e", 7),
    ("server", 6),
    ("cli", 6),
    ("gantry", 7),
    ("probe", 7),
];

/// The siblings a crate may use all the same.
const SIBLINGS: [(&str, &str); 2] = [("sys", "stdx"), ("api", "stdx")];

/// Rooms that block must not know the runtime that awaits.
const WITHOUT_TOKIO: [&str; 12] = [
    "stdx", "sys", "oci", "api", "template", "dbus", "plugin", "rootless", "state", "storage",
    "runtime", "shim",
];

/// Files too long to be read in one sitting must be tables, or have a reason here.
const LONGEST: usize = 1200;

/// Everything that is not as promised, one sentence each.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (name, dir) in crates(root)? {
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml"))?;
        complaints.extend(check_dependencies(&name, &dependencies(&manifest)));
        for file in sources(&dir)? {
            let text = std::fs::read_to_string(&file)?;
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            complaints.extend(check_source(&name, &shown, &text));
        }
    }
    Ok(complaints)
}

fn crates(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for folder in ["crates", "tests"] {
        for entry in
            std::fs::read_dir(root.join(folder)).with_context(|| format!("cannot read {folder}"))?
        {
            let dir = entry?.path();
            if dir.join("Cargo.toml").exists() {
                found.insert(
                    dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    dir,
                );
            }
        }
    }
    Ok(found)
}

/// The names under `[dependencies]`; what tests use is their own affair.
fn dependencies(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| {
            line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()).map(str::to_owned)
        })
        .collect()
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

fn check_dependencies(name: &str, uses: &[String]) -> Vec<String> {
    let Some(own) = floor(name) else {
        return vec![format!("{name} has no floor in xtask/src/tidy.rs")];
    };
    let mut complaints = Vec::new();
    for used in uses {
        if WITHOUT_TOKIO.contains(&name)
            && ["tokio", "tokiox", "axum", "hyper"].contains(&used.as_str())
        {
            complaints.push(format!("{name} blocks and must not know {used}"));
        }
        let Some(theirs) = floor(used) else { continue };
        let sibling = SIBLINGS.contains(&(name, used));
        if theirs >= own && !sibling {
            complaints
                .push(format!("{name} must not depend on {used}: it is not on a floor below"));
        }
    }
    complaints
}

fn check_source(name: &str, file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(format!("{file}: {what}"));
    let test = file.contains("/tests/") || file.starts_with("tests/") || name == "testkit";
    if !text.starts_with("//!") {
        complain("does not say in its first line what it is".to_owned());
    }
    if text.lines().count() > LONGEST && !text.contains("tidy: a table") {
        complain(format!("is longer than {LONGEST} lines: a room that wants a wall"));
    }
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
    if ["util", "utils", "common", "helpers", "misc", "types", "internal"].contains(&&*stem) {
        complain("has a name that says nothing".to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut at = |what: &str| complaints.push(format!("{file}:{}: {what}", number + 1));
        if name != "sys"
            && !test
            && code.contains("unsafe ")
            && !code.contains("unsafe_code")
            && !code.contains('"')
        {
            at("`unsafe` lives in sys");
        }
        if line.contains("todo!(") || line.contains("unimplemented!(") {
            at("unfinished");
        }
        if ["engine", "image", "network", "storage", "state"].contains(&name)
            && code.contains("StatusCode::")
            && !file.contains("distribution")
        {
            at("only the door knows HTTP codes");
        }
    }
    complaints
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(check(root).unwrap(), [] as [String; 0]);
    }

    #[test]
    fn looking_upward_is_noticed() {
        let complaints = check_dependencies("storage", &["engine".to_owned(), "tokio".to_owned()]);
        assert_eq!(
            complaints,
            [
                "storage must not depend on engine: it is not on a floor below",
                "storage blocks and must not know tokio",
            ]
        );
    }
}
