//! `gantry system check`: do records, kernel and disk agree?
//!
//! The first look disturbs nobody, so it may see something halfway. What it finds is looked at again with every container
//! held still; only what is there both times is true. Repairs are made in that second look.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;

use runtime::cgroup::{Driver, Location};
use stdx::{Context, Id, Kind, Result};
use storage::{Depth, Remedy};

use crate::container::Container;
use crate::container::plan::default_cgroup_parent;
use crate::container::spec::{cgroups_path, id_of_cgroup};
use crate::system::{CheckOptions, Finding, System};

/// What one look found.
#[derive(Default)]
struct Look {
    findings: Vec<Finding>,
    /// Damage inside of layers and content: it takes long to find and does not go away by itself.
    damage: Vec<Finding>,
}

impl System {
    /// Compares records, kernel and disk. An empty answer means that they agree.
    pub async fn check(&self, options: CheckOptions) -> Result<Vec<Finding>> {
        let first = self.look(CheckOptions { repair: false, ..options }, None).await?;
        if first.findings.is_empty() && first.damage.is_empty() {
            return Ok(Vec::new());
        }
        let cells = self.rooms().registry.all();
        let mut gates = Vec::with_capacity(cells.len());
        for cell in &cells {
            gates.push(cell.gate.lock().await);
        }
        let still: BTreeSet<Id> = cells.iter().map(|cell| cell.id.clone()).collect();
        let depth = CheckOptions { strict: options.repair && options.strict, ..options };
        let second = self.look(depth, Some(still)).await?;
        let mut findings = second.findings;
        findings.retain(|finding| first.findings.iter().any(|other| other.is_about(finding)));
        let new = |finding: &Finding| !second.damage.iter().any(|other| other.is_about(finding));
        findings.extend(first.damage.into_iter().filter(new));
        findings.extend(second.damage);
        Ok(findings)
    }

    /// Looks at everything once. `still` are the containers that cannot change meanwhile.
    async fn look(&self, options: CheckOptions, still: Option<BTreeSet<Id>>) -> Result<Look> {
        let mut look = Look::default();
        for container in self.containers.all() {
            look.findings.extend(container.check().await?);
        }
        let this = self.clone();
        let rooms = tokiox::blocking(move || this.look_at_rooms(options, still.as_ref())).await?;
        look.findings.extend(rooms.findings);
        look.damage = rooms.damage;
        Ok(look)
    }

    /// What the rooms below can say when told who lives.
    fn look_at_rooms(&self, options: CheckOptions, still: Option<&BTreeSet<Id>>) -> Result<Look> {
        let rooms = self.rooms();
        // Nobody comes into being while something may be taken for nobody's.
        let _nobody =
            still.map(|_| rooms.creations.write().unwrap_or_else(PoisonError::into_inner));
        let all = self.containers.all();
        let lives = |container: &&Container| {
            container.record().state.phase.is_up()
                || still.is_some_and(|still| !still.contains(container.id()))
        };
        let up: Vec<Id> = all.iter().filter(lives).map(|c| c.id().clone()).collect();
        let mut look = Look::default();
        let mut known = rooms.images.known()?;
        known.containers.extend(all.iter().map(|container| container.id().to_string()));
        for container in &all {
            known.layers.extend(container.record().chain.iter().cloned());
        }
        let depth = if options.strict { Depth::Strict } else { Depth::Quick };
        let stored = rooms.storage.check(depth, &known)?;
        if options.repair {
            rooms.storage.repair(&stored)?;
        }
        for found in &stored {
            let finding = Finding {
                repaired: options.repair && found.remedy == Remedy::Remove,
                ..Finding::new("I8", "storage".to_owned(), found.to_string())
            };
            let list = if found.damage { &mut look.damage } else { &mut look.findings };
            list.push(finding);
        }
        let stray = || -> Result<Vec<Finding>> {
            rooms.networks.settle();
            let networks = rooms.networks.check(&up)?.into_iter();
            let mut strays = self.strays(&all)?;
            strays.extend(
                networks.map(|found| Finding::new(found.invariant, found.subject, found.problem)),
            );
            Ok(strays)
        };
        let mut swept = stray()?;
        if options.repair && !swept.is_empty() {
            self.containers.sweep(&up)?;
            let left = stray()?;
            for finding in &mut swept {
                finding.repaired = !left.iter().any(|other| other.is_about(finding));
            }
        }
        look.findings.extend(swept);
        look.findings.extend(self.mounts_on_the_host()?);
        Ok(look)
    }

    /// I2: processes, and directories, of containers that no record knows.
    fn strays(&self, all: &[Container]) -> Result<Vec<Finding>> {
        let settings = &self.rooms().settings();
        let known: BTreeSet<&str> = all.iter().map(|container| container.id().as_str()).collect();
        let mut findings = Vec::new();
        let mut cgroups = cgroups_below(settings.cgroup_driver, &settings.cgroup_parent)?;
        // Of the same daemon when it left them to somebody else. One that has a place of its own is beside another, whose
        // those may be.
        let other = match settings.cgroup_driver {
            Driver::Cgroupfs => Driver::Systemd,
            Driver::Systemd => Driver::Cgroupfs,
        };
        let usual = |driver| default_cgroup_parent(driver, false);
        if settings.cgroup_parent == usual(settings.cgroup_driver) && !settings.rootless {
            match cgroups_below(other, usual(other)) {
                Err(error) if error.kind() == Kind::NotImplemented => {}
                found => cgroups.extend(found?),
            }
        }
        let run = names_in(&settings.exec_root.join("containers"))?;
        let data = names_in(&settings.data_root.join("containers"))?;
        for (what, names) in [("cgroup", cgroups), ("run directory", run), ("data directory", data)]
        {
            for name in names.into_iter().filter(|name| !known.contains(name.as_str())) {
                findings.push(Finding::new(
                    "I2",
                    format!("{what} {name}"),
                    "belongs to no container".to_owned(),
                ));
            }
        }
        Ok(findings)
    }

    /// I3: no mount of ours is ever to be seen on the host, but for those that keep networks.
    fn mounts_on_the_host(&self) -> Result<Vec<Finding>> {
        let settings = &self.rooms().settings();
        let networks = self.rooms().networks.mounts();
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let ours = |target: &str| {
            [&settings.data_root, &settings.exec_root].iter().any(|root| {
                Path::new(target).starts_with(root) && Path::new(target) != root.as_path()
            })
        };
        Ok(table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|target| ours(target) && !networks.iter().any(|one| one == Path::new(target)))
            .map(|target| {
                Finding::new(
                    "I3",
                    format!("mount {target}"),
                    "is on the host's mount table".to_owned(),
                )
            })
            .collect())
    }
}

impl Finding {
    fn new(id: &str, object: String, problem: String) -> Self {
        Self { id: id.to_owned(), object, problem, repaired: false }
    }

    fn is_about(&self, other: &Self) -> bool {
        (&self.object, &self.problem) == (&other.object, &other.problem)
    }
}

/// The containers that have control groups right below `parent`, in whichever hierarchy. What else a user keeps there
/// (`--cgroup-parent`) is the user's.
fn cgroups_below(driver: Driver, parent: &str) -> Result<Vec<String>> {
    let location = Location::by(driver, &cgroups_path(driver, parent, "any"), "any")?;
    let names: BTreeSet<String> = location
        .v1()
        .iter()
        .chain(location.unified())
        .filter_map(|place| std::fs::read_dir(place.full_path().parent()?).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| id_of_cgroup(driver, entry.file_name().to_str()?))
        .map(|id| id.to_string())
        .collect();
    Ok(names.into_iter().collect())
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).context(|| format!("cannot read {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
