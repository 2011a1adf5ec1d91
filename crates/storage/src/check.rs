//! Does the disk hold what the records say, and nothing else? The part of `gantry system check` that is about bytes.

use std::collections::BTreeSet;
use std::fmt;

use oci::{ChainId, Digest};
use stdx::{Result, time::Timestamp};

use crate::Storage;
use crate::layer::Depth;
use crate::snapshot::Garbage;

/// Downloads nobody has touched for so long are given up, in seconds.
const STALE: i64 = 7 * 24 * 3600;

/// Said of a blob that is not what its name says.
const DAMAGED: &str = "is damaged";

/// What somebody above still needs.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub layers: BTreeSet<ChainId>,
    pub containers: BTreeSet<String>,
    pub blobs: BTreeSet<Digest>,
    /// What work in progress has put its hand on, whether it is here yet or not.
    pub spared_layers: BTreeSet<ChainId>,
    pub spared_blobs: BTreeSet<Digest>,
}

impl Known {
    /// Something is being pulled, loaded or built: what is on its way cannot be told from what was left behind.
    fn work_in_progress(&self) -> bool {
        !self.spared_layers.is_empty() || !self.spared_blobs.is_empty()
    }
}

/// The thing a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Layer(ChainId),
    Container(String),
    Blob(Digest),
    /// A download that is not complete.
    Partial(String),
    Garbage(Garbage),
}

/// What can be done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nobody needs it: it can go.
    Remove,
    /// It is needed and must be fetched or unpacked again; what is there can go.
    Replace,
    /// A person has to decide.
    None,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: Subject,
    pub problem: String,
    pub remedy: Remedy,
    /// The bytes are not what they were: nothing that happens meanwhile explains it.
    pub damage: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Layer(chain) => write!(f, "layer {chain}: ")?,
            Subject::Container(name) => write!(f, "files of container {name}: ")?,
            Subject::Blob(digest) => write!(f, "content {digest}: ")?,
            Subject::Partial(key) => write!(f, "download {key}: ")?,
            Subject::Garbage(Garbage::Layer(name)) => write!(f, "directory layers/{name}: ")?,
            Subject::Garbage(Garbage::Container(name)) => {
                write!(f, "directory containers/{name}: ")?
            }
            Subject::Garbage(Garbage::Staging(name)) => write!(f, "directory staging/{name}: ")?,
        }
        f.write_str(&self.problem)
    }
}

impl Storage {
    /// Compares the disk with `known`. What is being removed meanwhile may be found: ask again before believing it.
    pub fn check(&self, depth: Depth, known: &Known) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        self.check_layers(depth, known, &mut findings)?;
        self.check_containers(known, &mut findings)?;
        self.check_blobs(depth, known, &mut findings)?;
        let garbage =
            if known.work_in_progress() { Vec::new() } else { self.snapshots.garbage()? };
        for garbage in garbage {
            findings.push(Finding {
                subject: Subject::Garbage(garbage),
                problem: "belongs to nothing".to_owned(),
                remedy: Remedy::Remove,
                damage: false,
            });
        }
        Ok(findings)
    }

    /// Removes what the findings say can go. What has to be replaced is left to those who know where to get it.
    pub fn repair(&self, findings: &[Finding]) -> Result<()> {
        for finding in findings.iter().filter(|finding| finding.remedy != Remedy::None) {
            match &finding.subject {
                Subject::Layer(chain) => {
                    self.snapshots.discard(&Garbage::Layer(chain.hex().to_owned()))?
                }
                Subject::Container(name) => self.snapshots.remove(name)?,
                Subject::Blob(digest) => self.content.delete(digest)?,
                Subject::Partial(key) => self.content.ingest(key)?.abort()?,
                Subject::Garbage(garbage) => self.snapshots.discard(garbage)?,
            }
        }
        Ok(())
    }

    fn check_layers(&self, depth: Depth, known: &Known, findings: &mut Vec<Finding>) -> Result<()> {
        let mut finding = |chain: &ChainId, problem: &str, remedy, damage| {
            findings.push(Finding {
                subject: Subject::Layer(chain.clone()),
                problem: problem.to_owned(),
                remedy,
                damage,
            });
        };
        let here: BTreeSet<ChainId> =
            self.snapshots.layers()?.into_iter().map(|layer| layer.chain).collect();
        for chain in known.layers.difference(&here) {
            finding(chain, "is missing", Remedy::Replace, false);
        }
        for chain in &here {
            let needed = known.layers.contains(chain);
            match self.snapshots.verify_layer(chain, depth)? {
                Some(problem) => {
                    let remedy = if needed { Remedy::Replace } else { Remedy::Remove };
                    finding(chain, &problem, remedy, true);
                }
                None if !needed && !known.spared_layers.contains(chain) => {
                    finding(chain, "is used by no image", Remedy::Remove, false)
                }
                None => {}
            }
        }
        Ok(())
    }

    fn check_containers(&self, known: &Known, findings: &mut Vec<Finding>) -> Result<()> {
        let mut finding = |name: &String, problem: &str, remedy| {
            findings.push(Finding {
                subject: Subject::Container(name.clone()),
                problem: problem.to_owned(),
                remedy,
                damage: false,
            });
        };
        let here: BTreeSet<String> = self.snapshots.names()?.into_iter().collect();
        for name in known.containers.difference(&here) {
            finding(name, "are missing", Remedy::None);
        }
        for name in here.difference(&known.containers) {
            finding(name, "belong to no container", Remedy::Remove);
        }
        Ok(())
    }

    fn check_blobs(&self, depth: Depth, known: &Known, findings: &mut Vec<Finding>) -> Result<()> {
        let mut finding = |subject, problem: &str, remedy| {
            let damage = problem == DAMAGED;
            findings.push(Finding { subject, problem: problem.to_owned(), remedy, damage });
        };
        let here: BTreeSet<Digest> =
            self.content.list()?.into_iter().map(|blob| blob.digest).collect();
        for digest in known.blobs.difference(&here) {
            finding(Subject::Blob(digest.clone()), "is missing", Remedy::Replace);
        }
        for digest in &here {
            let needed = known.blobs.contains(digest);
            if depth == Depth::Strict && !self.content.verify(digest)? {
                let remedy = if needed { Remedy::Replace } else { Remedy::Remove };
                finding(Subject::Blob(digest.clone()), DAMAGED, remedy);
            } else if !needed && !known.spared_blobs.contains(digest) {
                finding(Subject::Blob(digest.clone()), "is used by no image", Remedy::Remove);
            }
        }
        let now = Timestamp::now().unix();
        for partial in
            self.content.ingests()?.into_iter().filter(|partial| now - partial.modified > STALE)
        {
            finding(Subject::Partial(partial.key), "was given up", Remedy::Remove);
        }
        Ok(())
    }
}
