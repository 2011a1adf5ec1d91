//! Which of an index's manifests is meant.

use oci::Platform;
use oci::image::{Descriptor, Index, media_type};

/// The manifest that suits `wanted` best; the first of equals. Attestations and the like are nobody's platform.
pub(crate) fn choose<'a>(index: &'a Index, wanted: &Platform) -> Option<&'a Descriptor> {
    let usable = |descriptor: &&Descriptor| {
        let media_type = &descriptor.media_type;
        media_type.is_empty()
            || media_type::is_manifest(media_type)
            || media_type::is_index(media_type)
    };
    let candidates = index.manifests.iter().filter(usable);
    let ranked = candidates.clone().filter_map(|descriptor| {
        let platform = descriptor.platform.as_ref()?;
        Some((wanted.preference(platform)?, descriptor))
    });
    let best = ranked.min_by_key(|(preference, _)| *preference).map(|(_, descriptor)| descriptor);
    best.or_else(|| candidates.clone().find(|descriptor| descriptor.platform.is_none()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oci::Digest;

    use super::*;

    #[test]
    fn the_best_of_an_index() {
        let manifest = |seed: &str, platform: Option<&str>| Descriptor {
            platform: platform.map(|text| match text {
                "unknown/unknown" => Platform::new("unknown", "unknown", ""),
                text => text.parse().unwrap(),
            }),
            ..Descriptor::new(media_type::OCI_MANIFEST, Digest::of(seed.as_bytes()), 1)
        };
        let check = |platforms: &[Option<&str>], wanted: &str, expected: Option<usize>| {
            let manifests: Vec<_> = platforms
                .iter()
                .enumerate()
                .map(|(at, platform)| manifest(&at.to_string(), *platform))
                .collect();
            let index = Index {
                schema_version: 2,
                media_type: String::new(),
                artifact_type: String::new(),
                manifests,
                subject: None,
                annotations: BTreeMap::new(),
            };
            let chosen = choose(&index, &wanted.parse().unwrap()).cloned();
            assert_eq!(
                chosen,
                expected.map(|at| index.manifests[at].clone()),
                "{platforms:?} {wanted}"
            );
        };
        let usual = [
            Some("linux/amd64"),
            Some("unknown/unknown"),
            Some("linux/arm/v6"),
            Some("linux/arm64/v8"),
        ];
        check(&usual, "linux/amd64", Some(0));
        check(&usual, "linux/arm64", Some(3));
        check(&usual, "linux/arm/v7", Some(2));
        check(&usual, "linux/s390x", None);
        check(&[Some("linux/386"), Some("linux/amd64")], "linux/amd64", Some(1));
        check(&[None], "linux/amd64", Some(0));
        check(&[None, Some("linux/amd64")], "linux/amd64", Some(1));
        check(&[], "linux/amd64", None);
    }
}
