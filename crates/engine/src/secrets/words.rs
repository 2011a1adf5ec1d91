//! What a secret or config may be, in the words of Docker's managers, which speak through two doors at once.

use api::secret::SecretSpec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stdx::{Error, Id, Result};

use super::Sort;
use super::expand::DRIVER;

/// Twenty-five digits and letters, as all of a swarm's objects have.
pub(super) fn new_id() -> String {
    let digits = Id::random();
    let mut number =
        u128::from_str_radix(&digits.as_str()[..32], 16).expect("32 hex digits are a number");
    let mut id = [b'0'; 25];
    for digit in id.iter_mut().rev() {
        let value = u32::try_from(number % 36).expect("less than 36");
        *digit = char::from_digit(value, 36).expect("a digit") as u8;
        number /= 36;
    }
    String::from_utf8_lossy(&id).into_owned()
}

pub(super) fn refused(words: &str) -> Error {
    Error::invalid(format!("rpc error: code = InvalidArgument desc = {words}"))
}

pub(super) fn exists(sort: Sort, name: &str) -> Error {
    let sort = sort.word();
    Error::conflict(format!("rpc error: code = AlreadyExists desc = {sort} {name} already exists"))
}

pub(super) fn out_of_sequence() -> Error {
    Error::internal("rpc error: code = Unknown desc = update out of sequence")
}

pub(super) fn in_use(sort: Sort, name: &str, users: &[String]) -> Error {
    let containers = if users.len() == 1 { "container" } else { "containers" };
    refused(&format!(
        "{} '{name}' is in use by the following {containers}: {}",
        sort.word(),
        users.join(", ")
    ))
}

/// The data of a request, if it has any.
pub(super) fn data(spec: &SecretSpec) -> Result<Option<Vec<u8>>> {
    let Some(text) = &spec.data else { return Ok(None) };
    let decoded = STANDARD.decode(text).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => text.len(),
        };
        Error::invalid(format!("illegal base64 data at input byte {at}"))
    })?;
    Ok(Some(decoded))
}

/// Everything but the data.
pub(super) fn check(sort: Sort, spec: &SecretSpec) -> Result<()> {
    if spec.name.is_empty() {
        return Err(refused("name must be provided"));
    }
    let plain = |c: u8| c.is_ascii_alphanumeric();
    let bytes = spec.name.as_bytes();
    let right = bytes.len() <= 64
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|c| plain(*c) || b"-_.".contains(c));
    if !right {
        return Err(refused(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ));
    }
    match &spec.driver {
        Some(driver) if driver.name.is_empty() && sort == Sort::Secret => {
            return Err(refused("secret driver must have a name"));
        }
        Some(driver) if sort == Sort::Secret => {
            return Err(Error::internal(format!(
                "rpc error: code = Unknown desc = plugin {:?} not found",
                driver.name
            )));
        }
        _ => {}
    }
    match &spec.templating {
        // A swarm finds this out when a task begins.
        Some(driver) if !matches!(&*driver.name, "" | DRIVER) => {
            Err(refused("unrecognized template type"))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_data(sort: Sort, data: &[u8]) -> Result<()> {
    match data.len() {
        0 => {}
        length if length < sort.limit() => return Ok(()),
        _ => {}
    }
    let (sort, limit) = (sort.word(), sort.limit());
    Err(refused(&format!("{sort} data must be larger than 0 and less than {limit} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> SecretSpec {
        SecretSpec { name: name.to_owned(), ..SecretSpec::default() }
    }

    #[test]
    fn names() {
        for right in ["a", "A-b_c.9", &"x".repeat(64)] {
            check(Sort::Secret, &spec(right)).unwrap();
        }
        for wrong in ["", "-a", "a-", "a b", "a/b", "..", "é", &"x".repeat(65)] {
            assert!(check(Sort::Secret, &spec(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn languages_of_templates() {
        let of = |name: &str| SecretSpec {
            templating: Some(api::secret::Driver { name: name.to_owned(), ..Default::default() }),
            ..spec("a")
        };
        check(Sort::Config, &of("golang")).unwrap();
        assert_eq!(
            check(Sort::Config, &of("jinja")).unwrap_err().to_string(),
            "rpc error: code = InvalidArgument desc = unrecognized template type"
        );
    }

    #[test]
    fn sizes() {
        assert!(check_data(Sort::Secret, &[]).is_err());
        check_data(Sort::Secret, &vec![0; 511_999]).unwrap();
        assert_eq!(
            check_data(Sort::Secret, &vec![0; 512_000]).unwrap_err().to_string(),
            "rpc error: code = InvalidArgument desc = secret data must be larger than 0 and less than 512000 bytes"
        );
        check_data(Sort::Config, &vec![0; 512_000]).unwrap();
        assert!(check_data(Sort::Config, &vec![0; 1_024_000]).is_err());
    }

    #[test]
    fn data_that_is_none() {
        let wrong = SecretSpec { data: Some("!!".to_owned()), ..spec("a") };
        assert_eq!(data(&wrong).unwrap_err().to_string(), "illegal base64 data at input byte 0");
        assert_eq!(data(&spec("a")).unwrap(), None);
    }

    #[test]
    fn ids_look_like_a_swarms() {
        let id = new_id();
        assert!(id.len() == 25 && id.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()));
        assert_ne!(id, new_id());
    }
}
