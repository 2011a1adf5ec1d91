//! What a container has mounted, of all the ways to say it: `-v`, `--mount`, `--tmpfs`, an image's volumes.

use std::collections::BTreeMap;

use api::container::{Config, HostConfig, Mount};
use stdx::{Error, Result};

use crate::container::owners::Owners;

use crate::container::mounts::{
    self, By, Making, Missing, MountPlan, Origin, ReadOnlyBinds, Recursive, Source,
};

pub(super) fn all_mounts(
    config: &Config,
    host: &HostConfig,
    read_only_binds: ReadOnlyBinds,
) -> Result<Vec<MountPlan>> {
    let mut all = Vec::new();
    // `--volume-driver` is for those that have no way to name one.
    let driven = |mut plan: MountPlan| {
        match &mut plan.source {
            Source::Volume { making, .. } => making.driver.clone_from(&host.volume_driver),
            Source::Bind { recursive, .. }
                if plan.read_only && read_only_binds == ReadOnlyBinds::Alone =>
            {
                *recursive = Recursive::Writable;
            }
            _ => {}
        }
        plan
    };
    for bind in host.binds.iter().flatten() {
        mounts::add(&mut all, driven(mounts::parse_bind(bind)?))?;
    }
    let binds = all.len();
    for mount in &host.mounts {
        mounts::add(&mut all, typed_mount(mount)?)?;
    }
    for (written, options) in &host.tmpfs {
        let bad = || {
            Error::invalid(format!("invalid mount path: '{written}' mount path must be absolute"))
        };
        let target = mounts::absolute(written).ok_or_else(bad)?;
        if target == "/" {
            return Err(Error::invalid("invalid specification: destination can't be '/'"));
        }
        let options: Vec<String> =
            options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        for option in &options {
            check_tmpfs_option(option)?;
        }
        let read_only = options.iter().any(|option| option == "ro");
        let plan = MountPlan {
            target,
            read_only,
            source: Source::Tmpfs { options, by: By::Tmpfs },
            mode: String::new(),
            owners: Owners::default(),
            origin: Origin::Request,
        };
        // Docker compares what was written with the places of `-v`. Whatever else is there is covered.
        if all[..binds].iter().any(|bind| bind.target == *written) {
            return Err(Error::invalid(format!("Duplicate mount point: {written}")));
        }
        all.push(plan);
    }
    // The image's and `-v /path` volumes, where nothing else was asked for.
    for path in config.volumes.iter().flat_map(BTreeMap::keys) {
        let target = mounts::absolute(path)
            .filter(|target| target != "/")
            .ok_or_else(|| Error::invalid(format!("invalid volume specification: '{path}'")))?;
        if !all.iter().any(|other| other.target == target) {
            all.push(driven(MountPlan {
                target,
                read_only: false,
                source: Source::volume(),
                mode: String::new(),
                owners: Owners::default(),
                origin: Origin::Image,
            }));
        }
    }
    Ok(all)
}

fn typed_mount(mount: &Mount) -> Result<MountPlan> {
    let bad = |why: String| {
        Error::invalid(format!("invalid mount config for type \"{}\": {why}", mount.r#type))
    };
    let target = match mount.target.as_str() {
        "" => return Err(bad("field Target must not be empty".to_owned())),
        text => mounts::absolute(text).ok_or_else(|| {
            bad(format!("invalid mount path: '{text}' mount path must be absolute"))
        })?,
    };
    if target == "/" {
        return Err(bad("invalid specification: destination can't be '/'".to_owned()));
    }
    let source = match mount.r#type.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".to_owned()));
            }
            if mount.volume_options.is_some() {
                return Err(bad("field VolumeOptions must not be specified".to_owned()));
            }
            let path = mounts::absolute(&mount.source).ok_or_else(|| {
                bad(format!("invalid mount path: '{}' mount path must be absolute", mount.source))
            })?;
            let options = mount.bind_options.clone().unwrap_or_default();
            const PROPAGATIONS: [&str; 7] =
                ["", "private", "rprivate", "slave", "rslave", "shared", "rshared"];
            if !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(bad(format!("invalid propagation mode: {}", options.propagation)));
            }
            Source::Bind {
                path,
                missing: if options.create_mountpoint { Missing::Create } else { Missing::Refuse },
                propagation: options.propagation,
                recursive: match (
                    options.non_recursive,
                    options.read_only_non_recursive,
                    options.read_only_force_recursive,
                ) {
                    (true, _, _) => Recursive::Disabled,
                    (_, true, _) => Recursive::Writable,
                    (_, _, true) => Recursive::Readonly,
                    _ => Recursive::Enabled,
                },
            }
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            let making =
                Making { driver: driver.name, options: driver.options, labels: options.labels };
            if mount.bind_options.is_some() {
                return Err(bad("field BindOptions must not be specified".to_owned()));
            }
            if mount.source.is_empty() && !options.subpath.is_empty() {
                return Err(bad("must not set Subpath when using anonymous volumes".to_owned()));
            }
            check_subpath(&options.subpath).map_err(bad)?;
            if mount.source.is_empty() && mount.read_only {
                return Err(bad(
                    "must not set ReadOnly mode when using anonymous volumes".to_owned()
                ));
            }
            if !mount.source.is_empty() {
                mounts::check_volume_name(&mount.source)?;
            }
            Source::Volume {
                name: (!mount.source.is_empty()).then(|| mount.source.clone()),
                copy_up: !options.no_copy,
                subpath: (!options.subpath.is_empty()).then_some(options.subpath),
                making,
            }
        }
        "image" => {
            if mount.bind_options.is_some() {
                return Err(bad("field BindOptions must not be specified".to_owned()));
            }
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".to_owned()));
            }
            let subpath = mount.image_options.clone().unwrap_or_default().subpath;
            check_subpath(&subpath).map_err(bad)?;
            let subpath = (!subpath.is_empty()).then_some(subpath);
            Source::Image { name: mount.source.clone(), subpath }
        }
        "tmpfs" => {
            if mount.bind_options.is_some() {
                return Err(bad("field BindOptions must not be specified".to_owned()));
            }
            if !mount.source.is_empty() {
                return Err(bad("field Source must not be specified".to_owned()));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut words = Vec::new();
            if options.size_bytes != 0 {
                words.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                words.push(format!("mode={:o}", options.mode));
            }
            for option in &options.options {
                let word = option.join("=");
                check_tmpfs_option(&word)?;
                words.push(word);
            }
            Source::Tmpfs { options: words, by: By::Mount }
        }
        _ => return Err(bad("mount type unknown".to_owned())),
    };
    Ok(MountPlan {
        target,
        read_only: mount.read_only,
        source,
        mode: String::new(),
        owners: owners(mount).map_err(bad)?,
        origin: Origin::Request,
    })
}

/// Whose the files are inside; those of other kinds have no other owners.
fn owners(mount: &Mount) -> Result<Owners, String> {
    let words = mount.ids.split(',').filter(|word| !word.is_empty());
    match mount.r#type.as_str() {
        "bind" | "volume" => {
            Owners::parse(words).ok_or_else(|| format!("invalid Ids: {:?}", mount.ids))
        }
        _ if mount.ids.is_empty() => Ok(Owners::default()),
        _ => Err("field Ids must not be specified".to_owned()),
    }
}

/// A path that stays where it begins, as it is written.
fn check_subpath(path: &str) -> Result<(), String> {
    let mut depth = 0_i32;
    let leaves = path.starts_with('/')
        || path.split('/').any(|part| {
            depth += match part {
                "" | "." => 0,
                ".." => -1,
                _ => 1,
            };
            depth < 0
        });
    match leaves {
        true => Err("subpath must be a relative path within the volume".to_owned()),
        false => Ok(()),
    }
}

fn check_tmpfs_option(option: &str) -> Result<()> {
    const FLAGS: &str = "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime private rprivate shared rshared slave rslave unbindable runbindable bind rbind";
    const KEYS: &str = "mode uid gid size nr_inodes nr_blocks mpol huge";
    let known = match option.split_once('=') {
        Some((key, _)) => KEYS.split(' ').any(|name| name == key),
        None => FLAGS.split(' ').any(|name| name == option),
    };
    if known { Ok(()) } else { Err(Error::invalid(format!("invalid tmpfs option [\"{option}\"]"))) }
}
