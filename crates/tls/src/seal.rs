//! Sealing what must not lie on a disk in plain sight: AES-256 in Galois/counter mode, a fresh nonce for each seal.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// What seals and opens.
pub struct Key(LessSafeKey);

/// What was sealed has been changed, or is something else than it is said to be, or the key is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not open with this key")
    }
}

impl std::error::Error for Broken {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub fn of(bytes: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("a key of this length is one");
        Self(LessSafeKey::new(key))
    }

    /// Seals `plain`, which is `what`: it can be opened as nothing else.
    pub fn seal(&self, what: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut sealed = plain.to_vec();
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(what.as_bytes()),
                &mut sealed,
            )
            .expect("64 GiB may be sealed at a time");
        [&nonce[..], &sealed, tag.as_ref()].concat()
    }

    pub fn open(&self, what: &str, sealed: &[u8]) -> Result<Vec<u8>, Broken> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken)?;
        let mut rest = rest.to_vec();
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(what.as_bytes()), &mut rest)
            .map_err(|_| Broken)?
            .len();
        rest.truncate(plain);
        Ok(rest)
    }
}

/// Fills `bytes` with what nobody can guess.
pub fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the kernel's random numbers do not run out");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_as_what_it_was_sealed() {
        let key = Key::of(&[7; KEY_LEN]);
        let sealed = key.seal("a", b"word");
        assert!(!sealed.windows(4).any(|part| part == b"word"));
        assert_ne!(sealed, key.seal("a", b"word"));
        assert_eq!(key.open("a", &sealed).unwrap(), b"word");
        assert_eq!(key.open("b", &sealed), Err(Broken));
        assert_eq!(Key::of(&[8; KEY_LEN]).open("a", &sealed), Err(Broken));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(key.open("a", &changed), Err(Broken));
            assert_eq!(key.open("a", &sealed[..index]), Err(Broken));
        }
    }
}
