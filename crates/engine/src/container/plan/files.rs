//! Secrets and configs that a container was made with: where they lie inside, and whose they are. Pure.

use api::container::HostConfig;
use api::secret::FileTarget;
use stdx::{Error, Result};

use crate::container::mounts::{MountPlan, absolute};
use crate::container::signal;
use crate::secrets::Sort;

/// Where containers look for their secrets.
pub(crate) const PLACE: &str = "/run/secrets";

/// One file in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    pub sort: Sort,
    pub id: String,
    pub place: FilePlace,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// For the first process, when the data has been replaced.
    pub signal: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilePlace {
    /// Below [`PLACE`]: can be replaced while the container runs.
    Common(String),
    /// Anywhere, as a mount of its own.
    Alone(String),
}

pub(super) fn files(host: &HostConfig, mounts: &[MountPlan]) -> Result<Vec<FilePlan>> {
    let mut all: Vec<FilePlan> = Vec::new();
    for wanted in &host.secrets {
        let signal = match wanted.signal.as_str() {
            "" => None,
            text => Some(signal::parse(text)?),
        };
        let file = file(Sort::Secret, &wanted.secret_id, &wanted.file)?;
        add(&mut all, FilePlan { signal, ..file }, &wanted.secret_name)?;
    }
    for wanted in &host.configs {
        let file = file(Sort::Config, &wanted.config_id, &wanted.file)?;
        add(&mut all, file, &wanted.config_name)?;
    }
    let common = all.iter().any(|file| matches!(file.place, FilePlace::Common(_)));
    let taken = mounts.iter().find(|mount| {
        (common && mount.target == PLACE)
            || all.iter().any(|file| file.place == FilePlace::Alone(mount.target.clone()))
    });
    match taken {
        Some(mount) => Err(Error::invalid(format!("Duplicate mount point: {}", mount.target))),
        None => Ok(all),
    }
}

fn file(sort: Sort, id: &str, target: &FileTarget) -> Result<FilePlan> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| Error::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    };
    let base = match sort {
        _ if target.name.starts_with('/') => "",
        Sort::Secret => PLACE,
        Sort::Config => "",
    };
    let bad = || {
        Error::invalid(format!(
            "invalid {} reference: invalid target {:?}",
            sort.word(),
            target.name
        ))
    };
    let path = absolute(&format!("{base}/{}", target.name)).ok_or_else(bad)?;
    if path == "/" || path == PLACE || target.name.ends_with('/') || target.name.is_empty() {
        return Err(bad());
    }
    let place = match path.strip_prefix(PLACE).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => FilePlace::Common(rest.to_owned()),
        None => FilePlace::Alone(path),
    };
    Ok(FilePlan {
        sort,
        id: id.to_owned(),
        place,
        uid: number(&target.uid)?,
        gid: number(&target.gid)?,
        mode: target.mode & 0o7777,
        signal: None,
    })
}

fn add(all: &mut Vec<FilePlan>, file: FilePlan, name: &str) -> Result<()> {
    // A file cannot be where another needs a directory.
    let path = |file: &FilePlan| match &file.place {
        FilePlace::Common(below) => format!("{PLACE}/{below}"),
        FilePlace::Alone(path) => path.clone(),
    };
    let own = path(&file);
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    let clash = all
        .iter()
        .map(path)
        .any(|other| other == own || below(&own, &other) || below(&other, &own));
    if clash {
        let sort = file.sort.word();
        return Err(Error::invalid(format!("duplicate {sort} target for {name} not allowed")));
    }
    all.push(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::secret::{ConfigReference, SecretReference};

    use super::*;

    fn host(secrets: &[&str], configs: &[&str]) -> HostConfig {
        let file = |name: &&str| FileTarget { name: (*name).to_owned(), ..FileTarget::default() };
        HostConfig {
            secrets: secrets
                .iter()
                .map(|name| SecretReference {
                    file: file(name),
                    secret_name: "s".to_owned(),
                    ..SecretReference::default()
                })
                .collect(),
            configs: configs
                .iter()
                .map(|name| ConfigReference {
                    file: file(name),
                    config_name: "c".to_owned(),
                    ..ConfigReference::default()
                })
                .collect(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn places() {
        let places = |host: &HostConfig| -> Vec<FilePlace> {
            files(host, &[]).unwrap().into_iter().map(|file| file.place).collect()
        };
        let common = |text: &str| FilePlace::Common(text.to_owned());
        let alone = |text: &str| FilePlace::Alone(text.to_owned());
        assert_eq!(
            places(&host(
                &["a", "b/c", "/etc/x", "/run/secrets/d", "../y"],
                &["e", "/run/secrets/f"]
            )),
            [
                common("a"),
                common("b/c"),
                alone("/etc/x"),
                common("d"),
                alone("/run/y"),
                alone("/e"),
                common("f"),
            ]
        );
    }

    #[test]
    fn what_is_refused() {
        let refusal = |host: &HostConfig| files(host, &[]).unwrap_err().to_string();
        for same in [["a", "a"], ["a", "./a"], ["a", "a/b"], ["a/b", "a"]] {
            assert_eq!(refusal(&host(&same, &[])), "duplicate secret target for s not allowed");
        }
        assert_eq!(refusal(&host(&["/x"], &["x"])), "duplicate config target for c not allowed");
        for wrong in ["", "/", ".", "a/"] {
            assert!(refusal(&host(&[wrong], &[])).starts_with("invalid secret reference"));
        }
        let mut strange = host(&["a"], &[]);
        strange.secrets[0].file.uid = "root".to_owned();
        assert_eq!(refusal(&strange), "strconv.Atoi: parsing \"root\": invalid syntax");
    }
}
