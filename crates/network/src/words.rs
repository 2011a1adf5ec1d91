//! Several problems told at once, as Docker lists them.

/// One stands alone; several are points of a list, and what goes on in a further line is set in.
pub fn listed(problems: &[String]) -> String {
    match problems {
        [one] => one.trim().to_owned(),
        several => several
            .iter()
            .map(|problem| format!("* {}", problem.replace('\n', "\n\t")))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_several() {
        assert_eq!(listed(&["a".to_owned()]), "a");
        assert_eq!(listed(&["a\nb".to_owned(), "c".to_owned()]), "* a\n\tb\n* c");
    }
}
