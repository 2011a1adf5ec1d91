//! `docker image prune`: what nobody calls by name, or with `--all` what no container uses.

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
        // A container that uses the image keeps all its names.
        if catalog.holders(id).next().is_some() {
            continue;
        }
        match names.as_slice() {
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

#[cfg(test)]
mod tests {
    use super::*;
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
}
