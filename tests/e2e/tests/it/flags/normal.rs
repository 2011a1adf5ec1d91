//! Text without what no two runs have in common.

/// Names of what is one's own, and what stands for them.
pub(crate) struct Names<'a> {
    names: Vec<(String, &'static str)>,
    /// Beginnings of addresses that are given out by chance.
    subnets: &'a [String],
}

impl<'a> Names<'a> {
    pub(crate) fn new(mut names: Vec<(String, &'static str)>, subnets: &'a [String]) -> Self {
        names.retain(|(name, _)| !name.is_empty());
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { names, subnets }
    }

    pub(crate) fn plain(&self, text: &str) -> String {
        let mut text = text.replace('\r', "");
        for (name, stands) in &self.names {
            text = text.replace(name.as_str(), stands);
        }
        let mut plain = String::new();
        let mut word = String::new();
        for c in text.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() || ".:-".contains(c) {
                word.push(c);
                continue;
            }
            plain += &self.plain_word(&word);
            word.clear();
            plain.push(c);
        }
        plain.trim_end().to_owned()
    }

    fn plain_word(&self, word: &str) -> String {
        let bytes = word.as_bytes();
        let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_date = bytes.len() >= 19 && bytes[4] == b'-' && bytes[10] == b'T';
        let is_mac = bytes.len() == 17
            && word.split(':').filter(|part| part.len() == 2 && is_hex(part)).count() == 6;
        if is_hex(word) && bytes.len() == 64 {
            return "HEX".to_owned();
        }
        if is_hex(word) && bytes.len() == 12 {
            return "SHORT".to_owned();
        }
        if is_date && !word.starts_with("0001-") {
            return "TIME".to_owned();
        }
        if is_mac && word != "92:d0:c6:0a:29:33" && word != "ff:ff:ff:ff:ff:ff" {
            return "MAC".to_owned();
        }
        for subnet in self.subnets {
            // The gateway, and what was asked for, are not by chance.
            let last = word.strip_prefix(subnet.as_str()).and_then(|last| last.parse::<u8>().ok());
            if last.is_some_and(|last| (2..64).contains(&last)) {
                return format!("{subnet}N");
            }
        }
        word.to_owned()
    }
}

/// A port of the host that nobody asked for.
pub(crate) fn port(text: &str) -> String {
    let by_chance = text.parse::<u16>().is_ok_and(|port| port >= 32768);
    if by_chance { "PORT".to_owned() } else { text.to_owned() }
}

#[test]
fn by_chance_or_not() {
    let subnets = ["10.77.0.".to_owned()];
    let names = Names::new(vec![("/tmp/x".to_owned(), "DIR")], &subnets);
    for (text, plain) in [
        ("/tmp/x/a 10.77.0.2/24", "DIR/a 10.77.0.N/24"),
        ("10.77.0.100 10.77.0.1", "10.77.0.100 10.77.0.1"),
        ("2026-11-21T21:27:43.5Z", "TIME"),
        ("02:42:0a:00:00:02", "MAC"),
    ] {
        assert_eq!(names.plain(text), plain);
    }
}
