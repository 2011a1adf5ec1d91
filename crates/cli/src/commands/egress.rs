//! `--egress`: what may be reached outside of the networks.

use stdx::{Error, Result};

use crate::flags::Parsed;

/// The rules that were given, of which the daemon knows what they mean; `None` where nothing was said.
pub(crate) fn rules(flags: &Parsed) -> Result<Option<Vec<String>>> {
    let given = flags.list("egress");
    match given.as_slice() {
        [] => return Ok(None),
        ["none"] => return Ok(Some(Vec::new())),
        ["any"] => return Ok(Some(vec!["any".to_owned()])),
        _ => {}
    }
    let mut rules = Vec::new();
    for value in given {
        let list = value.strip_prefix("allow=").filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| {
            Error::invalid(format!(
                "invalid argument {value:?} for \"--egress\": it is none, any, or allow=HOST[:PORT[/PROTOCOL]][,...]"
            ))
        })?;
        rules.extend(list.split(',').map(str::to_owned));
    }
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Flag, Kind, Order};

    fn given(values: &[&str]) -> std::result::Result<Option<Vec<String>>, String> {
        static TABLE: &[Flag] = &[Flag::new("egress", Kind::List, "")];
        let words: Vec<String> = values.iter().map(|value| format!("--egress={value}")).collect();
        let flags = Parsed::parse(TABLE, Order::Mixed, &words).unwrap();
        rules(&flags).map_err(|err| err.to_string())
    }

    #[test]
    fn what_is_said() {
        let list = |words: &[&str]| Ok(Some(words.iter().map(|&word| word.to_owned()).collect()));
        assert_eq!(given(&[]), Ok(None));
        assert_eq!(given(&["none"]), list(&[]));
        assert_eq!(given(&["any"]), list(&["any"]));
        assert_eq!(given(&["allow=a:1,b", "allow=10.0.0.0/8"]), list(&["a:1", "b", "10.0.0.0/8"]));
        for bad in [&["allow="][..], &["deny=a"], &["none", "allow=a"]] {
            assert!(given(bad).unwrap_err().starts_with("invalid argument"), "{bad:?}");
        }
    }
}
