//! The key that everything is sealed with: a file of its own, so that a copy of the records alone tells nobody anything.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use stdx::{Context, Error, Result};
use tls::seal::{KEY_LEN, Key, random};

const FILE: &str = "secrets.key";

/// The key of this data root; made when it is first needed.
pub(super) fn open_or_make(root: &Path) -> Result<Key> {
    let path = root.join(FILE);
    let doing = || format!("cannot use {}", path.display());
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(root, &path).context(doing)?,
        read => read.context(doing)?,
    };
    let bytes: [u8; KEY_LEN] =
        bytes.try_into().map_err(|_| Error::internal("it holds no key")).context(doing)?;
    Ok(Key::of(&bytes))
}

/// On disk for good before anything is sealed with it. Who comes second takes what the first has made.
fn make(root: &Path, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = [0; KEY_LEN];
    random(&mut bytes);
    let staged = root.join(format!("{FILE}.{}", stdx::Id::random().short()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::hard_link(&staged, path));
    let unstaged = std::fs::remove_file(&staged);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        written => written?,
    }
    unstaged?;
    File::open(root)?.sync_all()?;
    Ok(std::fs::read(path)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_key_for_root_alone() {
        let root = tempfile::tempdir().unwrap();
        let sealed = open_or_make(root.path()).unwrap().seal("a", b"word");
        assert_eq!(open_or_make(root.path()).unwrap().open("a", &sealed).unwrap(), b"word");
        let mode = root.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        std::fs::write(root.path().join(FILE), "short").unwrap();
        assert!(open_or_make(root.path()).unwrap_err().chain().ends_with("it holds no key"));
    }
}
