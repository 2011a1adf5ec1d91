//! `--change` of import and commit: instructions of a Dockerfile applied to a configuration. Pure.

use oci::image::{Empty, Healthcheck, RunConfig};
use stdx::{Error, Result};

use crate::variables;

/// Applies instructions, one a text: `CMD ["sh"]`, `ENV a=b`, `EXPOSE 80/tcp`.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    let mut has_command = false;
    for change in changes {
        match apply(config, change.trim())?.as_str() {
            "CMD" => has_command |= !config.cmd.is_empty(),
            // The old command was for the old entrypoint.
            "ENTRYPOINT" if !has_command => config.cmd.clear(),
            _ => {}
        }
    }
    Ok(())
}

/// The instruction that was applied.
fn apply(config: &mut RunConfig, change: &str) -> Result<String> {
    let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    let word = word.to_ascii_uppercase();
    if rest.is_empty() && !matches!(word.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(Error::invalid(format!("{word} requires at least one argument")));
    }
    let env = config.env.clone();
    match word.as_str() {
        "CMD" => config.cmd = command(config, rest),
        "ENTRYPOINT" => config.entrypoint = command(config, rest),
        "ENV" => {
            for (key, value) in pairs(&word, rest, &env)? {
                let new = format!("{key}={value}");
                match config.env.iter_mut().find(|pair| pair.split('=').next() == Some(&key)) {
                    Some(old) => *old = new,
                    None => config.env.push(new),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(&word, rest, &env)?),
        "EXPOSE" => {
            for port in words(rest, &env)?.iter().flat_map(|word| word.split_whitespace()) {
                config.exposed_ports.extend(ports(port)?.into_iter().map(|port| (port, Empty {})));
            }
        }
        "VOLUME" => {
            let volumes = json_list(rest)
                .unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            for volume in volumes {
                let volume = variables::expand(volume.trim(), &env)?;
                if volume.is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                config.volumes.insert(volume, Empty {});
            }
        }
        "USER" => config.user = one(&word, rest, &env)?,
        "WORKDIR" => config.working_dir = joined(&config.working_dir, &one(&word, rest, &env)?),
        "STOPSIGNAL" => config.stop_signal = one(&word, rest, &env)?,
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "ONBUILD" => {
                    return Err(Error::invalid(
                        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                    ));
                }
                "MAINTAINER" | "FROM" => {
                    return Err(Error::invalid(format!(
                        "{trigger} isn't allowed as an ONBUILD trigger"
                    )));
                }
                _ => config.on_build.push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "SHELL" => {
            config.shell = json_list(rest).filter(|shell| !shell.is_empty()).ok_or_else(|| {
                Error::invalid(format!("SHELL requires the arguments to be in JSON form: {rest}"))
            })?;
        }
        _ => {
            return Err(Error::invalid(format!(
                "{} is not a valid change command",
                word.to_lowercase()
            )));
        }
    }
    Ok(word)
}

/// The exec form is a list, the shell form is a line for the shell.
fn command(config: &RunConfig, rest: &str) -> Vec<String> {
    if rest.is_empty() {
        return Vec::new();
    }
    json_list(rest).unwrap_or_else(|| {
        let mut shell = config.shell.clone();
        if shell.is_empty() {
            shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        shell.push(rest.to_owned());
        shell
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn one(word: &str, rest: &str, env: &[String]) -> Result<String> {
    let words = words(rest, env)?;
    match words.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::invalid(format!("{word} requires exactly one argument"))),
    }
}

fn joined(directory: &str, path: &str) -> String {
    if path.starts_with('/') || directory.is_empty() {
        return if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    }
    format!("{}/{path}", directory.trim_end_matches('/'))
}

/// `key=value key="value with spaces"`, or one old-style `key value`.
fn pairs(word: &str, rest: &str, env: &[String]) -> Result<Vec<(String, String)>> {
    let words = variables::split(rest);
    if !words.first().is_some_and(|first| first.contains('=')) {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{word} must have two arguments")))?;
        return Ok(vec![(variables::expand(key, env)?, variables::expand(value.trim(), env)?)]);
    }
    words
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some(("", _)) => Err(Error::invalid(format!("{word} names can not be blank"))),
            Some((key, value)) => {
                Ok((variables::expand(key, env)?, variables::expand(value, env)?))
            }
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in {pair:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Words, with variables from what is set so far.
fn words(text: &str, env: &[String]) -> Result<Vec<String>> {
    variables::split(text).iter().map(|word| variables::expand(word, env)).collect()
}

/// `80`, `80/udp`, `8000-8002`.
fn ports(text: &str) -> Result<Vec<String>> {
    let bad = || Error::invalid(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let nanos = || -> Result<i64> {
            let duration = stdx::duration::parse(value)?;
            if duration.as_millis() < 1 && !duration.is_zero() {
                return Err(Error::invalid(format!("Interval {name:?} cannot be less than 1ms")));
            }
            i64::try_from(duration.as_nanos())
                .map_err(|_| Error::invalid(format!("invalid duration {value:?}")))
        };
        match name {
            "interval" => check.interval = nanos()?,
            "timeout" => check.timeout = nanos()?,
            "start-period" => check.start_period = nanos()?,
            "start-interval" => check.start_interval = nanos()?,
            "retries" => {
                check.retries =
                    value.parse().ok().filter(|count| *count >= 0).ok_or_else(|| {
                        Error::invalid(format!(
                            "--retries cannot be negative or no number ({value})"
                        ))
                    })?;
            }
            _ => return Err(Error::invalid(format!("unknown flag: {name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() => check.test = vec!["NONE".to_owned()],
        "NONE" => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" if rest.trim().is_empty() => {
            return Err(Error::invalid("missing command after HEALTHCHECK CMD"));
        }
        "CMD" => {
            check.test = match json_list(rest.trim()) {
                Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
                None => vec!["CMD-SHELL".to_owned(), rest.trim().to_owned()],
            };
        }
        other => {
            return Err(Error::invalid(format!("unknown type {other:?} in HEALTHCHECK (try CMD)")));
        }
    }
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[&str], json: &str) {
        let mut config = RunConfig::default();
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        let found = match apply_changes(&mut config, &changes) {
            Ok(()) => serde_json::to_string(&config).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, json, "{changes:?}");
    }

    #[test]
    fn a_new_entrypoint_has_no_use_for_the_old_command() {
        let mut config = RunConfig { cmd: vec!["old".to_owned()], ..RunConfig::default() };
        apply_changes(&mut config, &["ENTRYPOINT [\"e\"]".to_owned()]).unwrap();
        assert!(config.cmd.is_empty(), "{:?}", config.cmd);
    }

    #[test]
    fn instructions_change_the_configuration() {
        check(&["CMD [\"a\", \"b\"]"], r#"{"Cmd":["a","b"]}"#);
        check(&["CMD x", "CMD"], "{}");
        check(&["cmd echo hi"], r#"{"Cmd":["/bin/sh","-c","echo hi"]}"#);
        check(&["CMD [\"x\"]", "ENTRYPOINT [\"e\"]"], r#"{"Entrypoint":["e"],"Cmd":["x"]}"#);
        check(&["ENV a=1 b=\"2 3\"", "ENV a x y"], r#"{"Env":["a=x y","b=2 3"]}"#);
        check(
            &["ENV a=/a b='$a'", "ENV a=$a:${c:-c}", "LABEL a=$a", "USER $b"],
            r#"{"User":"$a","Env":["a=/a:c","b=$a"],"Labels":{"a":"/a:c"}}"#,
        );
        check(
            &["EXPOSE 80 53/udp 8000-8001"],
            r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{}}}"#,
        );
        check(&["LABEL a=1 b='x y'"], r#"{"Labels":{"a":"1","b":"x y"}}"#);
        check(
            &["USER me", "WORKDIR /a", "WORKDIR b", "STOPSIGNAL SIGINT"],
            r#"{"User":"me","WorkingDir":"/a/b","StopSignal":"SIGINT"}"#,
        );
        check(&["VOLUME /a /b", "VOLUME [\"/c\"]"], r#"{"Volumes":{"/a":{},"/b":{},"/c":{}}}"#);
        check(&["ONBUILD RUN x"], r#"{"OnBuild":["RUN x"]}"#);
        check(
            &["HEALTHCHECK --interval=5s --retries=2 CMD curl x"],
            r#"{"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":2}}"#,
        );
        check(&["HEALTHCHECK NONE"], r#"{"Healthcheck":{"Test":["NONE"]}}"#);
    }

    #[test]
    fn anything_else_is_refused() {
        check(&["RUN x"], "run is not a valid change command");
        check(&["USER"], "USER requires at least one argument");
        check(&["USER a b"], "USER requires exactly one argument");
        check(&["EXPOSE 99999"], "invalid containerPort: 99999");
        check(&["EXPOSE 1/x"], "invalid proto: x");
        check(&["ONBUILD FROM x"], "FROM isn't allowed as an ONBUILD trigger");
    }
}
