//! The catalog: which images there are, what they are called and who needs them. Values only; the deciding half of this
//! room. [`crate::store`] keeps one in memory and its records in `state`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use oci::image::ImageConfig;
use oci::{ChainId, Digest, Reference};
use stdx::{Error, Kind, Result};

use crate::records::{HoldRecord, ImageRecord, NameRecord};

#[derive(Clone, Default)]
pub(crate) struct Catalog {
    pub(crate) images: BTreeMap<Digest, Arc<Entry>>,
    /// Every name has a tag or a digest, never both and never none.
    names: BTreeMap<Reference, Digest>,
    /// By who holds and what.
    holds: BTreeMap<(String, Digest), Hold>,
}

/// One step from a catalog to the next; what is decided, recorded and then applied.
#[derive(Clone)]
pub(crate) enum Change {
    PutImage(Arc<Entry>),
    DeleteImage(Digest),
    PutName(NameRecord),
    DeleteName(Reference),
    PutHold(Hold),
    DeleteHold(String, Digest),
}

/// An image and its configuration, read.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) record: ImageRecord,
    pub(crate) config: Arc<ImageConfig>,
}

#[derive(Clone)]
pub(crate) struct Hold {
    pub(crate) record: HoldRecord,
    /// Whether the container runs: known to the engine, not written down.
    pub(crate) running: bool,
}

impl Catalog {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::PutImage(entry) => drop(self.images.insert(entry.record.id.clone(), entry)),
            Change::DeleteImage(id) => drop(self.images.remove(&id)),
            Change::PutName(name) => drop(self.names.insert(name.reference, name.image)),
            Change::DeleteName(reference) => drop(self.names.remove(&reference)),
            Change::PutHold(hold) => {
                let key = (hold.record.holder.clone(), hold.record.image.clone());
                self.holds.insert(key, hold);
            }
            Change::DeleteHold(holder, image) => drop(self.holds.remove(&(holder, image))),
        }
    }

    pub(crate) fn hold(&self, holder: &str, image: &Digest) -> Option<&Hold> {
        self.holds.get(&(holder.to_owned(), image.clone()))
    }

    /// All that somebody holds.
    pub(crate) fn holds_of_mut(&mut self, holder: &str) -> impl Iterator<Item = &mut Hold> {
        self.holds.values_mut().filter(move |hold| hold.record.holder == holder)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&Reference, &Digest)> {
        self.names.iter()
    }

    /// The image a reference leads to. A digest wins over a tag beside it; nothing behind the name means `latest`.
    pub(crate) fn named(&self, reference: &Reference) -> Option<&Digest> {
        self.names.get(&stored_form(reference))
    }

    /// All names of an image, in the order of their texts, as Docker lists them: tags before digests.
    pub(crate) fn names_of(&self, id: &Digest) -> Vec<Reference> {
        let of_it = self.names.iter().filter(|(_, image)| *image == id);
        let mut names: Vec<Reference> = of_it.map(|(reference, _)| reference.clone()).collect();
        names.sort_by_cached_key(Reference::to_string);
        names
    }

    pub(crate) fn has_names(&self, id: &Digest) -> bool {
        self.names.values().any(|image| image == id)
    }

    /// Images made here from this one.
    pub(crate) fn children(&self, id: &Digest) -> impl Iterator<Item = &Entry> {
        self.images
            .values()
            .map(Arc::as_ref)
            .filter(move |entry| entry.record.parent.as_ref() == Some(id))
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Who needs the image.
    pub(crate) fn holders(&self, id: &Digest) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter(move |hold| hold.record.image == *id)
    }

    /// Finds an image by whatever people call it: a name, an ID, the first digits of an ID.
    pub(crate) fn resolve(&self, text: &str) -> Result<&Arc<Entry>> {
        if let Some(id) = as_id(text) {
            return self
                .images
                .get(&id)
                .ok_or_else(|| Error::not_found(format!("No such image: {id}")));
        }
        // `sha256:` and the first digits of an ID passes for a repository with a tag.
        let reference = Reference::parse_normalized(text)?;
        if let Some(entry) = self.named(&reference).and_then(|id| self.images.get(id)) {
            return Ok(entry);
        }
        match self.by_prefix(text)? {
            Some(entry) => Ok(entry),
            None => Err(no_such_image(&reference)),
        }
    }

    fn by_prefix(&self, text: &str) -> Result<Option<&Arc<Entry>>> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || !hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        {
            return Ok(None);
        }
        let mut found = self.images.values().filter(|entry| entry.record.id.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                Err(Error::new(Kind::NotFound, format!("ambiguous reference: {text}")))
            }
            (first, _) => Ok(first),
        }
    }

    /// Every layer that an image or a holder needs.
    pub(crate) fn chains(&self) -> BTreeSet<&ChainId> {
        let of_images = self
            .images
            .values()
            .flat_map(|entry| entry.record.layers.iter().map(|layer| &layer.chain));
        let of_holds = self.holds.values().flat_map(|hold| &hold.record.chain);
        of_images.chain(of_holds).collect()
    }

    /// Every blob that an image or a name needs.
    pub(crate) fn blobs(&self) -> BTreeSet<&Digest> {
        let of_images = self.images.values().flat_map(|entry| {
            let record = &entry.record;
            let layers = record.layers.iter().map(|layer| &layer.blob.digest);
            layers
                .chain(record.manifest.iter().map(|manifest| &manifest.digest))
                .chain([&record.id])
        });
        // An index is a blob of its own; only the name by its digest leads to it.
        let of_names = self.names.keys().filter_map(Reference::digest);
        of_images.chain(of_names).collect()
    }

    /// What a layer takes on disk, if an image here has it.
    pub(crate) fn layer_size(&self, chain: &ChainId) -> Option<u64> {
        let mut layers = self.images.values().flat_map(|entry| &entry.record.layers);
        layers.find(|layer| layer.chain == *chain).map(|layer| layer.size)
    }
}

/// How a reference is written down: by digest if it has one, else by tag.
pub(crate) fn stored_form(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest.clone()),
        None => reference.with_default_tag(),
    }
}

/// A whole ID, with or without the algorithm in front.
pub(crate) fn as_id(text: &str) -> Option<Digest> {
    if text.contains(':') { text.parse().ok() } else { Digest::from_sha256_hex(text).ok() }
}

/// The text could be the beginning of this ID.
pub(crate) fn is_id_prefix(id: &Digest, text: &str) -> bool {
    id.as_str().starts_with(text) || id.hex().starts_with(text)
}

pub(crate) fn no_such_image(reference: &Reference) -> Error {
    Error::not_found(format!("No such image: {}", reference.with_default_tag().familiar()))
}

#[cfg(test)]
pub(crate) mod tests {
    use oci::image::Descriptor;
    use stdx::time::Timestamp;

    use super::*;
    use crate::records::LayerRecord;

    /// An image with one layer of its own on top of its parent's, known by `names`.
    pub(crate) fn add(
        catalog: &mut Catalog,
        seed: &str,
        parent: Option<&Digest>,
        names: &[&str],
    ) -> Digest {
        let id = Digest::of(seed.as_bytes());
        let mut layers: Vec<LayerRecord> =
            parent.map(|parent| catalog.images[parent].record.layers.clone()).unwrap_or_default();
        let diff = Digest::of(format!("layer of {seed}").as_bytes());
        let chain =
            layers.last().map_or_else(|| ChainId::base(&diff), |below| below.chain.then(&diff));
        let blob = Descriptor::new("", diff.clone(), 10);
        layers.push(LayerRecord { diff, chain, size: 100, blob });
        let config = ImageConfig {
            created: Some(Timestamp::from_unix_nanos(catalog.images.len() as i128 * 1_000_000_000)),
            ..ImageConfig::default()
        };
        let record = ImageRecord {
            id: id.clone(),
            layers,
            manifest: None,
            parent: parent.cloned(),
            last_tagged: Timestamp::NEVER,
        };
        catalog.apply(Change::PutImage(Arc::new(Entry { record, config: Arc::new(config) })));
        for name in names {
            let reference = stored_form(&Reference::parse_normalized(name).unwrap());
            catalog.apply(Change::PutName(NameRecord { reference, image: id.clone() }));
        }
        id
    }

    pub(crate) fn hold(catalog: &mut Catalog, holder: &str, image: &Digest, running: bool) {
        let chain =
            catalog.images[image].record.layers.iter().map(|layer| layer.chain.clone()).collect();
        let (holder, image, names) = (holder.to_owned(), image.clone(), BTreeSet::new());
        let record = HoldRecord { holder, image, names, chain };
        catalog.apply(Change::PutHold(Hold { record, running }));
    }

    #[test]
    fn an_image_is_found_by_all_its_names() {
        let mut catalog = Catalog::default();
        let digest = Digest::of(b"manifest");
        let id =
            add(&mut catalog, "a", None, &["busybox", "owner/x:1", &format!("busybox@{digest}")]);
        let by_digest = format!("busybox@{digest}");
        let tag_and_digest = format!("busybox:whatever@{digest}");
        for text in [
            "busybox",
            "busybox:latest",
            "docker.io/library/busybox",
            "owner/x:1",
            &by_digest,
            &tag_and_digest,
            id.as_str(),
            id.hex(),
            id.short(),
            &id.as_str()[..20],
        ] {
            assert_eq!(
                catalog.resolve(text).map(|entry| entry.record.id.clone()).unwrap(),
                id,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_missed_in_dockers_words() {
        let mut catalog = Catalog::default();
        add(&mut catalog, "a", None, &["busybox"]);
        let check = |text: &str, words: &str| {
            let error = catalog.resolve(text).map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), words, "{text}");
        };
        let none = Digest::of(b"none");
        check("nosuch", "No such image: nosuch:latest");
        check("busybox:2", "No such image: busybox:2");
        check(none.as_str(), &format!("No such image: {none}"));
        check(none.hex(), &format!("No such image: {none}"));
        check(
            "Nosuch",
            "invalid reference format: repository name (library/Nosuch) must be lowercase",
        );
        check("", "invalid reference format");
    }

    #[test]
    fn a_prefix_of_two_ids_is_ambiguous() {
        let mut catalog = Catalog::default();
        for seed in 0..40 {
            add(&mut catalog, &seed.to_string(), None, &[]);
        }
        let firsts: Vec<&str> = catalog.images.keys().map(|id| &id.hex()[..1]).collect();
        let twice = firsts
            .windows(2)
            .find(|pair| pair[0] == pair[1])
            .expect("forty IDs have sixteen first digits");
        let first = twice[0].to_owned();
        assert_eq!(
            catalog.resolve(&first).map(|_| ()).unwrap_err().to_string(),
            format!("ambiguous reference: {first}")
        );
    }

    #[test]
    fn a_name_wins_over_an_id_that_begins_so() {
        let mut catalog = Catalog::default();
        let one = add(&mut catalog, "one", None, &[]);
        let two = add(&mut catalog, "two", None, &[one.short()]);
        assert_eq!(catalog.resolve(one.short()).unwrap().record.id, two);
    }
}
