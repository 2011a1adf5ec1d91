//! `docker rmi`: which names go, which images go with them, and what stands in the way. Docker's rules and words.

use std::sync::Arc;
use std::time::Instant;

use api::image::DeleteItem;
use oci::{ChainId, Digest, Reference};
use stdx::{Error, Result};

use crate::Images;
use crate::catalog::{Catalog, Change, Entry, is_id_prefix, stored_form};

/// How hard to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Although a stopped container needs it, or several names lead to it.
    pub force: bool,
    /// Leave untagged parents where they are.
    pub no_prune: bool,
}

impl Images {
    /// Removes a name, and the image with the last of them. What was untagged and deleted, in order.
    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<Vec<DeleteItem>> {
        let (images, name) = (self.clone(), name.to_owned());
        tokiox::to_the_end(async move {
            tokiox::blocking(move || images.remove_blocking(&name, options)).await
        })
        .await
    }

    pub(crate) fn remove_blocking(
        &self,
        name: &str,
        options: RemoveOptions,
    ) -> Result<Vec<DeleteItem>> {
        let start = Instant::now();
        let mut catalog = self.change();
        let removal = plan(&catalog, name, options)?;
        self.commit(&mut catalog, removal.changes)?;
        drop(catalog);
        let mut answer = Vec::new();
        for step in removal.steps {
            match step {
                Step::Untagged(reference, image) => {
                    self.event_of(
                        &image,
                        "untag",
                        image.record.id.as_str(),
                        image.record.id.as_str(),
                    );
                    answer.push(DeleteItem {
                        untagged: reference.familiar(),
                        ..DeleteItem::default()
                    });
                }
                Step::Deleted(image) => {
                    let id = image.record.id.to_string();
                    self.event_of(&image, "delete", &id, &id);
                    answer.push(DeleteItem { deleted: id, ..DeleteItem::default() });
                    // From the top: a layer goes only when nothing stands on it.
                    let chain: Vec<ChainId> =
                        image.record.layers.iter().rev().map(|layer| layer.chain.clone()).collect();
                    for chain in self.sweep_layers(&chain)? {
                        answer.push(DeleteItem {
                            deleted: chain.to_string(),
                            ..DeleteItem::default()
                        });
                    }
                }
            }
        }
        self.sweep_blobs(&removal.blobs)?;
        self.room.actions.delete.since(start);
        Ok(answer)
    }
}

/// What a removal comes to.
struct Removal {
    changes: Vec<Change>,
    steps: Vec<Step>,
    /// Perhaps of no use any more.
    blobs: Vec<Digest>,
}

enum Step {
    Untagged(Reference, Arc<Entry>),
    Deleted(Arc<Entry>),
}

fn plan(catalog: &Catalog, name: &str, options: RemoveOptions) -> Result<Removal> {
    let mut planner = Planner {
        catalog: catalog.clone(),
        removal: Removal { changes: Vec::new(), steps: Vec::new(), blobs: Vec::new() },
    };
    planner.remove(name, options)?;
    Ok(planner.removal)
}

/// A removal tried out on a copy of the catalog.
struct Planner {
    catalog: Catalog,
    removal: Removal,
}

/// What can stand in the way, and which of it force removes.
#[derive(Clone, Copy)]
struct Mind {
    references: bool,
    stopped: bool,
}

impl Mind {
    /// Only what cannot be forced: children and running containers are minded always.
    const HARD: Self = Self { references: false, stopped: false };
}

struct Obstacle {
    image: Digest,
    hard: bool,
    /// A container is the reason.
    used: bool,
    words: String,
}

impl Obstacle {
    fn into_error(self) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        Error::conflict(format!(
            "conflict: unable to delete {} ({force}) - {}",
            self.image.short(),
            self.words
        ))
    }
}

impl Planner {
    fn remove(&mut self, name: &str, options: RemoveOptions) -> Result<()> {
        let image = Arc::clone(self.catalog.resolve(name)?);
        let id = image.record.id.clone();
        let names = self.catalog.names_of(&id);
        let mut untagged_the_last = false;
        if is_id_prefix(&id, name) {
            if is_single_reference(&names) {
                let mind = if options.force {
                    Mind::HARD
                } else {
                    Mind { references: false, stopped: true }
                };
                if let Some(obstacle) = self.obstacle(&id, mind) {
                    return Err(obstacle.into_error());
                }
                for name in names {
                    self.untag(name, &image);
                }
            }
        } else {
            let holder = self.catalog.holders(&id).next();
            if let Some(holder) = holder.filter(|_| !options.force && is_single_reference(&names)) {
                return Err(Error::conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                     referenced image {}",
                    short(&holder.record.holder),
                    id.short()
                )));
            }
            let reference = stored_form(&Reference::parse_normalized(name)?);
            self.untag(reference.clone(), &image);
            if reference.digest().is_none() {
                self.untag_orphaned_digests(&reference, &image);
            }
            if self.catalog.has_names(&id) {
                return Ok(());
            }
            untagged_the_last = true;
        }
        let quiet = untagged_the_last;
        self.delete(&id, options.force, !options.no_prune, quiet)
    }

    /// The last tag of a repository takes the repository's digests with it.
    fn untag_orphaned_digests(&mut self, removed: &Reference, image: &Arc<Entry>) {
        let of_repository: Vec<Reference> = self
            .catalog
            .names_of(&image.record.id)
            .into_iter()
            .filter(|name| name.name() == removed.name())
            .collect();
        if of_repository.iter().all(|name| name.digest().is_some()) {
            for name in of_repository {
                self.untag(name, image);
            }
        }
    }

    fn delete(&mut self, id: &Digest, force: bool, prune: bool, quiet: bool) -> Result<()> {
        let Some(image) = self.catalog.images.get(id).cloned() else { return Ok(()) };
        let mind = if force { Mind::HARD } else { Mind { references: true, stopped: true } };
        if let Some(obstacle) = self.obstacle(id, mind) {
            // Somebody who removed a name need not hear that the image goes on living for a container.
            let dangling =
                !self.catalog.has_names(id) && self.catalog.children(id).next().is_none();
            if quiet && (!dangling || obstacle.used) {
                return Ok(());
            }
            return Err(obstacle.into_error());
        }
        for name in self.catalog.names_of(id) {
            self.untag(name, &image);
        }
        self.change(|| Change::DeleteImage(id.clone()));
        let record = &image.record;
        self.removal.blobs.extend(record.layers.iter().map(|layer| layer.blob.digest.clone()));
        self.removal.blobs.extend(record.manifest.iter().map(|manifest| manifest.digest.clone()));
        self.removal.blobs.push(record.id.clone());
        self.removal.steps.push(Step::Deleted(Arc::clone(&image)));
        match &record.parent {
            // A parent that has a name or a user stays, and nobody asked about it.
            Some(parent) if prune => self.delete(parent, false, true, true).or(Ok(())),
            _ => Ok(()),
        }
    }

    fn untag(&mut self, name: Reference, image: &Arc<Entry>) {
        self.removal.blobs.extend(name.digest().cloned());
        self.change(|| Change::DeleteName(name.clone()));
        self.removal.steps.push(Step::Untagged(name, Arc::clone(image)));
    }

    fn change(&mut self, change: impl Fn() -> Change) {
        self.catalog.apply(change());
        self.removal.changes.push(change());
    }

    fn obstacle(&self, id: &Digest, mind: Mind) -> Option<Obstacle> {
        let obstacle =
            |hard, used, words: String| Some(Obstacle { image: id.clone(), hard, used, words });
        if self.catalog.children(id).next().is_some() {
            return obstacle(true, false, "image has dependent child images".to_owned());
        }
        if let Some(holder) = self.catalog.holders(id).find(|hold| hold.running) {
            let words = format!(
                "image is being used by running container {}",
                short(&holder.record.holder)
            );
            return obstacle(true, true, words);
        }
        if mind.references && self.catalog.has_names(id) {
            return obstacle(
                false,
                false,
                "image is referenced in multiple repositories".to_owned(),
            );
        }
        if let Some(holder) = self.catalog.holders(id).next().filter(|_| mind.stopped) {
            let words = format!(
                "image is being used by stopped container {}",
                short(&holder.record.holder)
            );
            return obstacle(false, true, words);
        }
        None
    }
}

/// One tag, or none, and digests of the same repository only: removing "the image" is then no question.
fn is_single_reference(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return true;
    }
    let tags: Vec<&Reference> = names.iter().filter(|name| name.digest().is_none()).collect();
    let single = match tags.as_slice() {
        [] => &names[0],
        [tag] => tag,
        _ => return false,
    };
    names.iter().filter(|name| name.digest().is_some()).all(|name| name.name() == single.name())
}

fn short(holder: &str) -> &str {
    holder.get(..12).unwrap_or(holder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::{add, hold};

    const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// What a removal does, a line a step: `- name` and `x image`; or the words of its refusal.
    fn check(catalog: &Catalog, name: &str, options: RemoveOptions, expected: &[&str]) {
        let found = match plan(catalog, name, options) {
            Ok(removal) => removal
                .steps
                .iter()
                .map(|step| match step {
                    Step::Untagged(name, _) => format!("- {}", name.familiar()),
                    Step::Deleted(image) => format!("x {}", image.record.id.short()),
                })
                .collect(),
            Err(error) => vec![error.chain()],
        };
        assert_eq!(found, expected, "{name}");
    }

    const PLAIN: RemoveOptions = RemoveOptions { force: false, no_prune: false };
    const FORCE: RemoveOptions = RemoveOptions { force: true, no_prune: false };

    #[test]
    fn the_last_name_takes_the_image() {
        let mut catalog = Catalog::default();
        let digest = format!("busybox@{}", Digest::of(b"m"));
        let id = add(&mut catalog, "a", None, &["busybox", "other:1", &digest]);
        check(&catalog, "busybox", PLAIN, &["- busybox:latest", &format!("- {digest}")]);
        check(&catalog, "other:1", PLAIN, &["- other:1"]);
        let two = "image is referenced in multiple repositories";
        let words = format!("conflict: unable to delete {} (must be forced) - {two}", id.short());
        check(&catalog, id.short(), PLAIN, &[&words]);
        let all =
            ["- busybox:latest", &format!("- {digest}"), "- other:1", &format!("x {}", id.short())];
        check(&catalog, id.short(), FORCE, &all);
        let mut catalog = Catalog::default();
        let id = add(&mut catalog, "a", None, &["busybox", &digest]);
        check(
            &catalog,
            "busybox",
            PLAIN,
            &["- busybox:latest", &format!("- {digest}"), &format!("x {}", id.short())],
        );
        check(
            &catalog,
            id.as_str(),
            PLAIN,
            &["- busybox:latest", &format!("- {digest}"), &format!("x {}", id.short())],
        );
    }

    #[test]
    fn containers_are_minded() {
        let mut catalog = Catalog::default();
        let id = add(&mut catalog, "a", None, &["busybox"]);
        hold(&mut catalog, CONTAINER, &id, false);
        let short = id.short();
        check(
            &catalog,
            "busybox",
            PLAIN,
            &[&format!(
                "conflict: unable to remove repository reference \"busybox\" (must force) - container 0123456789ab is \
                 using its referenced image {short}"
            )],
        );
        let stopped = format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        );
        check(&catalog, short, PLAIN, &[&stopped]);
        check(&catalog, "busybox", FORCE, &["- busybox:latest", &format!("x {short}")]);
        hold(&mut catalog, CONTAINER, &id, true);
        // By name and with force the name goes, and the image stays for its container.
        check(&catalog, "busybox", FORCE, &["- busybox:latest"]);
        let running = format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
        );
        check(&catalog, short, FORCE, &[&running]);
    }

    #[test]
    fn parents_go_unless_somebody_needs_them() {
        let mut catalog = Catalog::default();
        let base = add(&mut catalog, "base", None, &["base"]);
        let middle = add(&mut catalog, "middle", Some(&base), &[]);
        let top = add(&mut catalog, "top", Some(&middle), &["top"]);
        let children = format!(
            "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
            base.short()
        );
        check(&catalog, base.short(), FORCE, &[&children]);
        // The name may go: the image is still there for its children.
        check(&catalog, "base", PLAIN, &["- base:latest"]);
        let gone =
            ["- top:latest", &format!("x {}", top.short()), &format!("x {}", middle.short())];
        check(&catalog, "top", PLAIN, &gone);
        let options = RemoveOptions { no_prune: true, ..PLAIN };
        check(&catalog, "top", options, &gone[..2]);
    }

    #[test]
    fn single_references() {
        let check = |names: &[&str], expected: bool| {
            let names: Vec<Reference> =
                names.iter().map(|name| Reference::parse_normalized(name).unwrap()).collect();
            assert_eq!(is_single_reference(&names), expected, "{names:?}");
        };
        let (a, b) = (format!("a@{}", Digest::of(b"1")), format!("b@{}", Digest::of(b"1")));
        check(&[], true);
        check(&["a:1"], true);
        check(&["a:1", &a], true);
        check(&["a:1", &b], false);
        check(&["a:1", "a:2"], false);
        check(&[&a, &b], false);
    }
}
