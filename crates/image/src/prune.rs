//! `docker image prune`: what nobody calls by name, or with `--all` what no container uses.

use std::collections::BTreeSet;

use api::image::PruneReport;
use oci::{ChainId, Digest, Reference};
use stdx::Result;

use crate::Images;
use crate::catalog::Catalog;
use crate::delete::RemoveOptions;
use crate::list::Filters;

impl Images {
    /// Removes what `filters` allow; images in use stay. Only dangling images, unless the filter says otherwise.
    pub async fn prune(&self, filters: &Filters) -> Result<PruneReport> {
        let (images, filters) = (self.clone(), filters.clone());
        tokiox::to_the_end(async move {
            tokiox::blocking(move || images.prune_blocking(&filters)).await
        })
        .await
    }

    fn prune_blocking(&self, filters: &Filters) -> Result<PruneReport> {
        let before = self.catalog();
        let mut report = PruneReport::default();
        for name in candidates(&before, filters) {
            match self.remove_blocking(&name, RemoveOptions::default()) {
                Ok(removed) => report.images_deleted.get_or_insert_default().extend(removed),
                // In use, or gone meanwhile.
                Err(error) => {
                    tracing::debug!(image = %name, reason = %error.chain(), "image is not pruned")
                }
            }
        }
        let gone = report
            .images_deleted
            .iter()
            .flatten()
            .filter_map(|item| item.deleted.parse::<ChainId>().ok());
        report.space_reclaimed = gone.filter_map(|chain| before.layer_size(&chain)).sum();
        // What failed pulls left is nobody's either.
        report.space_reclaimed += self.collect_blocking()?.layer_bytes;
        self.plain_event("prune", [("reclaimed".to_owned(), report.space_reclaimed.to_string())]);
        Ok(report)
    }
}

/// What to try to remove: names, and IDs of images without.
fn candidates(catalog: &Catalog, filters: &Filters) -> Vec<String> {
    let dangling_only = filters.dangling.unwrap_or(true);
    let mut candidates = Vec::new();
    for entry in catalog.images.values() {
        let id = &entry.record.id;
        let names = catalog.names_of(id);
        if names.is_empty() && catalog.children(id).next().is_some() {
            continue;
        }
        if !filters.until_matches(entry) || !filters.labels_match(&entry.config.config.labels) {
            continue;
        }
        let used = catalog.holders(id).next().is_some();
        match names.as_slice() {
            _ if used && dangling_only => {}
            _ if used => candidates.extend(spare(catalog, id, &names).map(Reference::familiar)),
            [] => candidates.push(Digest::hex(id).to_owned()),
            names if !dangling_only || names.iter().all(|name| name.digest().is_some()) => {
                // Tags first: the last of them takes the digests with it.
                let (tags, digests): (Vec<&Reference>, Vec<_>) =
                    names.iter().partition(|name| name.digest().is_none());
                let all_digests = tags.is_empty();
                candidates.extend(tags.into_iter().map(Reference::familiar));
                if all_digests {
                    candidates.extend(digests.into_iter().map(Reference::familiar));
                }
            }
            _ => {}
        }
    }
    candidates
}

/// The tags of an image that no container has asked for; but one stays where they have asked for none. The last tag of a
/// repository would take its digests along.
fn spare<'a>(
    catalog: &Catalog,
    image: &Digest,
    names: &'a [Reference],
) -> impl Iterator<Item = &'a Reference> {
    let asked: BTreeSet<Reference> =
        catalog.holders(image).flat_map(|hold| hold.record.names.clone()).collect();
    let tags = names.iter().filter(|name| name.digest().is_none());
    let none_is_asked_for = !names.iter().any(|name| asked.contains(name));
    let is_asked_for = move |tag: &Reference| {
        asked.contains(tag)
            || asked.iter().any(|name| name.digest().is_some() && name.name() == tag.name())
    };
    tags.skip(usize::from(none_is_asked_for)).filter(move |tag| !is_asked_for(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Change;
    use crate::catalog::tests::{add, hold};

    #[test]
    fn what_may_go() {
        let mut catalog = Catalog::default();
        let tagged = add(&mut catalog, "tagged", None, &["x:1", "x:2"]);
        let lost = add(&mut catalog, "lost", None, &[]);
        let digest = format!("only@{}", Digest::of(b"m"));
        add(&mut catalog, "digest", None, &[&digest]);
        let used = add(&mut catalog, "used", None, &[]);
        hold(&mut catalog, "c", &used, false);
        let parent = add(&mut catalog, "parent", None, &[]);
        let child = add(&mut catalog, "child", Some(&parent), &["child"]);
        hold(&mut catalog, "d", &child, true);
        let sorted = |filters: &Filters| {
            let mut found = candidates(&catalog, filters);
            found.sort();
            found
        };
        let mut expected = vec![lost.hex().to_owned(), digest.clone()];
        expected.sort();
        assert_eq!(sorted(&Filters::default()), expected);
        expected.extend(["x:1".to_owned(), "x:2".to_owned()]);
        expected.sort();
        assert_eq!(sorted(&Filters { dangling: Some(false), ..Filters::default() }), expected);
        assert!(catalog.images.contains_key(&tagged));
    }

    #[test]
    fn what_nobody_has_asked_for_may_go() {
        let check = |asked: &[&str], expected: &[&str]| {
            let mut catalog = Catalog::default();
            let digest = format!("x@{}", Digest::of(b"m"));
            let image = add(&mut catalog, "image", None, &["x:1", "x:2", "y:1", &digest]);
            hold(&mut catalog, "c", &image, true);
            let mut held = catalog.holders(&image).next().unwrap().clone();
            let parsed = asked.iter().map(|name| Reference::parse_normalized(name).unwrap());
            held.record.names = parsed.collect();
            catalog.apply(Change::PutHold(held));
            let all = Filters { dangling: Some(false), ..Filters::default() };
            assert_eq!(candidates(&catalog, &all), expected, "{asked:?}");
            assert!(candidates(&catalog, &Filters::default()).is_empty());
        };
        check(&["x:2"], &["x:1", "y:1"]);
        check(&["x:1", "y:1"], &["x:2"]);
        check(&[], &["x:2", "y:1"]);
        let digest = format!("x@{}", Digest::of(b"m"));
        check(&[&digest], &["y:1"]);
    }
}
