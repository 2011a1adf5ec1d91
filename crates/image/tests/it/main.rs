//! The room of images with a real storage in a temporary directory and a registry on loopback.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod archive;
mod hostile;
mod names;
mod pull;
mod registry;
mod strangers;

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::{Image, Images, LoadOptions, Loaded, Progress, RegistryConfig};
use oci::Reference;
use state::{Journal, Store};
use stdx::Result;
use storage::Storage;
use tokio::sync::mpsc;

/// A host with nothing on it.
pub(crate) struct Host {
    pub(crate) images: Images,
    pub(crate) storage: Arc<Storage>,
    pub(crate) journal: Journal,
    store: Store,
    dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with_driver(None)
    }

    pub(crate) fn with_driver(driver: Option<&str>) -> Self {
        let dir = tempfile::Builder::new().prefix("gantry-image-").tempdir_in("/var/tmp").unwrap();
        Self::open(dir, driver)
    }

    fn open(dir: tempfile::TempDir, driver: Option<&str>) -> Self {
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let storage = Arc::new(Storage::open(dir.path(), driver, &store).unwrap());
        let journal = Journal::open(&store).unwrap();
        let config = RegistryConfig {
            retry_delay: Duration::from_millis(10),
            stall: Duration::from_secs(2),
            ..RegistryConfig::default()
        };
        let images = Images::open(&store, Arc::clone(&storage), &journal, config).unwrap();
        Self { images, storage, journal, store, dir }
    }

    /// The daemon ends and starts again.
    pub(crate) fn restart(self) -> Self {
        let Self { images, storage, journal, store, dir } = self;
        journal.save().unwrap();
        drop((images, storage, journal, store));
        Self::open(dir, None)
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn pull(&self, name: &str) -> (Result<Arc<Image>>, Vec<String>) {
        self.pull_for(name, None).await
    }

    pub(crate) async fn pull_for(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> (Result<Arc<Image>>, Vec<String>) {
        let reference = Reference::parse_normalized(name).unwrap();
        let platform = platform.map(|text| text.parse().unwrap());
        let (sender, messages) = mpsc::channel(16);
        let pull = self.images.pull(&reference, platform.as_ref(), None, sender);
        tokio::join!(pull, lines(messages))
    }

    pub(crate) async fn pull_all(&self, name: &str) -> (Result<()>, Vec<String>) {
        let name = Reference::parse_normalized(name).unwrap();
        let (sender, messages) = mpsc::channel(16);
        let pull = self.images.pull_all(&name, None, None, sender);
        tokio::join!(pull, lines(messages))
    }

    pub(crate) async fn load(&self, archive: Vec<u8>) -> (Result<Vec<Loaded>>, Vec<String>) {
        let (sender, messages) = mpsc::channel(16);
        let options = LoadOptions { quiet: true, ..LoadOptions::default() };
        let load = self.images.load(Cursor::new(archive), options, sender);
        tokio::join!(load, lines(messages))
    }

    pub(crate) async fn save(&self, names: &[&str]) -> Vec<u8> {
        use futures_util::StreamExt as _;
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let mut archive = self.images.save(names, None).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        bytes
    }

    /// What the records need is there, and nothing else.
    pub(crate) fn check(&self) {
        let known = self.images.known().unwrap();
        let findings = self.storage.check(storage::Depth::Strict, &known).unwrap();
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, Vec::<String>::new());
    }

    /// Blobs and layers: what a failure must not leave behind.
    pub(crate) fn content(&self) -> (usize, usize) {
        (self.storage.content.list().unwrap().len(), self.storage.snapshots.layers().unwrap().len())
    }

    /// Reads a file of an image.
    pub(crate) fn read(&self, image: &Image, path: &str) -> String {
        let view = self.storage.snapshots.view_layers(&image.chain).unwrap();
        let file =
            rustix::fs::openat(&view, path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
                .unwrap();
        std::io::read_to_string(std::fs::File::from(file)).unwrap()
    }

    /// What was told of images, as `action actor name`.
    pub(crate) fn events(&self) -> Vec<String> {
        let (events, _) = self.journal.replay(stdx::time::Timestamp::NEVER).unwrap();
        let name =
            |event: &state::Event| event.actor.attributes.get("name").cloned().unwrap_or_default();
        events
            .iter()
            .map(|event| format!("{} {} {}", event.action, event.actor.id, name(event)))
            .collect()
    }
}

/// Messages without their measures: `id: status`, or the stream's text.
async fn lines(mut messages: mpsc::Receiver<Progress>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(message) = messages.recv().await {
        let text = message.status.or(message.stream).unwrap_or_default();
        if matches!(text.as_str(), "Downloading" | "Loading layer") {
            continue;
        }
        let detailed = message.detail.is_some_and(|detail| detail.total > 0);
        if text == "Extracting" && detailed {
            continue;
        }
        lines.push(message.id.map_or(text.clone(), |id| format!("{id}: {text}")));
    }
    lines
}
