//! Mount options as words, understood: `["ro", "nosuid", "size=64k"]` becomes what the kernel is asked.

use sys::mount::{Attr, Propagation, Reach};

/// What the options of one mount say. Decided without looking at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Set and cleared on this mount.
    pub set: Attr,
    pub clear: Attr,
    /// Set and cleared on the whole tree under it (`rro`, `rnosuid`, …).
    pub tree_set: Attr,
    pub tree_clear: Attr,
    pub propagation: Vec<(Propagation, Reach)>,
    pub bind: Option<Reach>,
    pub idmap: Option<Reach>,
    /// Start a tmpfs with what the image has there.
    pub copy_up: bool,
    /// Words for the file system itself, as they were given.
    pub data: Vec<String>,
}

#[derive(Clone, Copy)]
enum Word {
    Set(Attr),
    Clear(Attr),
    Time(Attr),
    Spread(Propagation, Reach),
    Bind(Reach),
    Idmap(Reach),
    /// A flag of the superblock, passed on.
    Super,
    CopyUp,
    Nothing,
}

/// Every word that is not for the file system alone.
const WORDS: &[(&str, Word)] = &[
    ("async", Word::Nothing),
    ("atime", Word::Clear(Attr::NOATIME)),
    ("bind", Word::Bind(Reach::Mount)),
    ("defaults", Word::Nothing),
    ("dev", Word::Clear(Attr::NODEV)),
    ("diratime", Word::Clear(Attr::NODIRATIME)),
    ("dirsync", Word::Super),
    ("exec", Word::Clear(Attr::NOEXEC)),
    ("idmap", Word::Idmap(Reach::Mount)),
    ("iversion", Word::Super),
    ("lazytime", Word::Super),
    ("loud", Word::Nothing),
    ("mand", Word::Super),
    ("noatime", Word::Time(Attr::NOATIME)),
    ("nodev", Word::Set(Attr::NODEV)),
    ("nodiratime", Word::Set(Attr::NODIRATIME)),
    ("noexec", Word::Set(Attr::NOEXEC)),
    ("noiversion", Word::Nothing),
    ("nolazytime", Word::Nothing),
    ("nomand", Word::Nothing),
    ("norelatime", Word::Clear(Attr::RELATIME)),
    ("nostrictatime", Word::Clear(Attr::STRICTATIME)),
    ("nosuid", Word::Set(Attr::NOSUID)),
    ("nosymfollow", Word::Set(Attr::NOSYMFOLLOW)),
    ("private", Word::Spread(Propagation::Private, Reach::Mount)),
    ("rbind", Word::Bind(Reach::Tree)),
    ("relatime", Word::Time(Attr::RELATIME)),
    ("remount", Word::Nothing),
    ("ridmap", Word::Idmap(Reach::Tree)),
    ("ro", Word::Set(Attr::RDONLY)),
    ("rprivate", Word::Spread(Propagation::Private, Reach::Tree)),
    ("rshared", Word::Spread(Propagation::Shared, Reach::Tree)),
    ("rslave", Word::Spread(Propagation::Slave, Reach::Tree)),
    ("runbindable", Word::Spread(Propagation::Unbindable, Reach::Tree)),
    ("rw", Word::Clear(Attr::RDONLY)),
    ("shared", Word::Spread(Propagation::Shared, Reach::Mount)),
    ("silent", Word::Nothing),
    ("slave", Word::Spread(Propagation::Slave, Reach::Mount)),
    ("strictatime", Word::Time(Attr::STRICTATIME)),
    ("suid", Word::Clear(Attr::NOSUID)),
    ("symfollow", Word::Clear(Attr::NOSYMFOLLOW)),
    ("sync", Word::Super),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", Word::Spread(Propagation::Unbindable, Reach::Mount)),
];

/// The words that, with an `r` before them, mean the whole tree.
const TREE_WORDS: &[&str] = &[
    "atime",
    "dev",
    "diratime",
    "exec",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "symfollow",
];

impl Options {
    pub(crate) fn of(words: &[String]) -> Self {
        let mut options = Self::default();
        for given in words {
            let tree = given.strip_prefix('r').filter(|word| TREE_WORDS.contains(word));
            match (find(given), tree.and_then(find)) {
                (Some(word), _) => options.add(word, given),
                (None, Some(word)) => options.add_tree(word),
                (None, None) => options.data.push(given.clone()),
            }
        }
        options
    }

    fn add(&mut self, word: Word, given: &str) {
        match word {
            Word::Set(_) | Word::Clear(_) | Word::Time(_) => {
                apply(word, &mut self.set, &mut self.clear)
            }
            Word::Spread(propagation, reach) => self.propagation.push((propagation, reach)),
            Word::Bind(reach) => self.bind = Some(reach),
            Word::Idmap(reach) => self.idmap = Some(reach),
            Word::Super => self.data.push(given.to_owned()),
            Word::CopyUp => self.copy_up = true,
            Word::Nothing => {}
        }
    }

    fn add_tree(&mut self, word: Word) {
        apply(word, &mut self.tree_set, &mut self.tree_clear);
    }

    /// The attributes for a mount that is new: nothing to clear there.
    pub(crate) fn fresh(&self) -> Attr {
        self.set | self.tree_set
    }

    /// All words that are understood here: what `features` lists.
    pub(crate) fn known() -> Vec<String> {
        let plain = WORDS.iter().map(|(word, _)| (*word).to_owned());
        let mut words: Vec<String> =
            plain.chain(TREE_WORDS.iter().map(|word| format!("r{word}"))).collect();
        words.sort_unstable();
        words.dedup();
        words
    }
}

/// A later word wins over an earlier one.
fn apply(word: Word, set: &mut Attr, clear: &mut Attr) {
    match word {
        Word::Set(attr) => {
            *set |= attr;
            *clear = clear.without(attr);
        }
        Word::Clear(attr) => {
            *clear |= attr;
            *set = set.without(attr);
        }
        Word::Time(attr) => {
            *set = set.without(Attr::ATIME) | attr;
            *clear |= Attr::ATIME;
        }
        Word::Spread(..)
        | Word::Bind(_)
        | Word::Idmap(_)
        | Word::Super
        | Word::CopyUp
        | Word::Nothing => {}
    }
    // The kernel wants the whole field of access-time bits cleared when one of them changes.
    if clear.0 & Attr::ATIME.0 != 0 {
        *clear |= Attr::ATIME;
    }
}

fn find(word: &str) -> Option<Word> {
    WORDS.binary_search_by_key(&word, |(known, _)| known).ok().map(|position| WORDS[position].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Options {
        Options::of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(WORDS.is_sorted_by_key(|(word, _)| word));
        assert!(TREE_WORDS.iter().all(|word| find(word).is_some()));
    }

    #[test]
    fn dockers_dev() {
        let options = of(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(options.set, Attr::NOSUID | Attr::STRICTATIME);
        assert_eq!(options.data, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(of(&["ro", "rw"]).set, Attr::empty());
        assert_eq!(of(&["ro", "rw"]).clear, Attr::RDONLY);
        assert_eq!(of(&["noatime", "strictatime"]).set, Attr::STRICTATIME);
        assert_eq!(of(&["noatime"]).clear, Attr::ATIME);
    }

    #[test]
    fn trees() {
        let options = of(&["rbind", "rro", "rslave", "rnosuid"]);
        assert_eq!(
            (options.bind, options.tree_set),
            (Some(Reach::Tree), Attr::RDONLY | Attr::NOSUID)
        );
        assert_eq!(options.propagation, [(Propagation::Slave, Reach::Tree)]);
        assert_eq!(options.set, Attr::empty());
    }

    #[test]
    fn relatime_is_a_word_of_its_own() {
        assert_eq!(of(&["relatime"]).tree_clear, Attr::empty());
        assert_eq!(of(&["rrelatime"]).tree_clear, Attr::ATIME);
    }
}
