//! What we have firewalld do, in its words: a zone that accepts, a policy that lets into it, our bridges in the zone.

use std::collections::{BTreeMap, BTreeSet};

use stdx::Result;

use dbus::{Absent, Answer, Bus, Question, Value};

/// Its name on the bus, and the interface of what concerns all of it.
pub(super) const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const CONFIG_PATH: &str = "/org/fedoraproject/FirewallD1/config";
const OF_ZONES: &str = "org.fedoraproject.FirewallD1.zone";
const OF_POLICIES: &str = "org.fedoraproject.FirewallD1.policy";
const OF_CONFIG: &str = "org.fedoraproject.FirewallD1.config";

/// As administrators know them from Docker.
pub(crate) const ZONE: &str = "docker";
const POLICY: &str = "docker-forwarding";
const OF_ZONE: &str =
    "bridges of containers: what passes them is judged by the rules of their networks";
const OF_POLICY: &str = "what is forwarded to containers is judged by the rules of their networks";

/// Whether something has been written down that firewalld does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Now,
    Before,
    /// This firewalld has no such things.
    Never,
}

fn ask(
    bus: &mut Bus,
    path: &str,
    interface: &str,
    member: &str,
    arguments: &[Value<'_>],
) -> Result<Answer> {
    let question = Question { destination: NAME, path, interface, member, absent: Absent::Fails };
    bus.ask(&question, arguments)
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused { name, .. } if name.starts_with("org.freedesktop.DBus.Error.Unknown"))
}

fn has_reason(answer: &Answer, code: &str) -> bool {
    matches!(answer, Answer::Refused { reason, .. } if reason.starts_with(code))
}

/// Makes zone and policy be there. `may_reload`: whether firewalld may be asked to read its files again if they are there
/// and it does not know them.
pub(super) fn prepare(bus: &mut Bus, may_reload: &mut bool) -> Result<()> {
    let zones =
        ask(bus, PATH, OF_ZONES, "getZones", &[])?.ok("firewalld does not tell its zones")?;
    let zone = zones.iter().any(|name| name == ZONE);
    let policies = match ask(bus, PATH, OF_POLICIES, "getPolicies", &[])? {
        answer if is_unknown(&answer) => None,
        answer => Some(answer.ok("firewalld does not tell its policies")?),
    };
    let policy = policies.is_none_or(|names| names.iter().any(|name| name == POLICY));
    let mut written = Vec::new();
    if !zone {
        written.push(write_zone(bus)?);
    }
    if !policy {
        written.push(write_policy(bus)?);
    }
    let reload = match written.as_slice() {
        written if written.contains(&Written::Now) => true,
        written => written.contains(&Written::Before) && std::mem::take(may_reload),
    };
    if reload {
        tracing::info!(zone = ZONE, policy = POLICY, "made firewalld know where containers are");
        ask(bus, PATH, NAME, "reload", &[])?.ok("firewalld cannot be reloaded")?;
    }
    Ok(())
}

fn write_zone(bus: &mut Bus) -> Result<Written> {
    let settings = [
        ("version", Value::Text("1.0")),
        ("description", Value::Text(OF_ZONE)),
        ("target", Value::Text("ACCEPT")),
    ];
    let arguments = [Value::Text(ZONE), Value::Settings(&settings)];
    let mut answer = ask(bus, CONFIG_PATH, OF_CONFIG, "addZone2", &arguments)?;
    // firewalld before 0.9 wants to be told everything.
    if is_unknown(&answer) {
        let none = Value::Texts(&[]);
        let all = [
            Value::Text("1.0"),
            Value::Text(ZONE),
            Value::Text(OF_ZONE),
            Value::Flag(false),
            Value::Text("ACCEPT"),
            none,
            Value::Nothing("(ss)"),
            none,
            Value::Flag(false),
            Value::Nothing("(ssss)"),
            none,
            none,
            none,
            none,
            Value::Nothing("(ss)"),
            Value::Flag(false),
        ];
        let arguments = [Value::Text(ZONE), Value::Struct(&all)];
        answer = ask(bus, CONFIG_PATH, OF_CONFIG, "addZone", &arguments)?;
    }
    written(answer, "firewalld takes no zone of ours")
}

fn write_policy(bus: &mut Bus) -> Result<Written> {
    let settings = [
        ("version", Value::Text("1.0")),
        ("description", Value::Text(OF_POLICY)),
        ("ingress_zones", Value::Texts(&["ANY"])),
        ("egress_zones", Value::Texts(&[ZONE])),
        ("target", Value::Text("ACCEPT")),
    ];
    let arguments = [Value::Text(POLICY), Value::Settings(&settings)];
    match ask(bus, CONFIG_PATH, OF_CONFIG, "addPolicy", &arguments)? {
        answer if is_unknown(&answer) => Ok(Written::Never),
        answer => written(answer, "firewalld takes no policy of ours"),
    }
}

fn written(answer: Answer, refused: &str) -> Result<Written> {
    if has_reason(&answer, "NAME_CONFLICT") {
        return Ok(Written::Before);
    }
    answer.ok(refused).map(|_| Written::Now)
}

/// Where a bridge is: `None` is wherever firewalld puts what it does not know.
fn zone_of(bus: &mut Bus, bridge: &str) -> Result<Option<String>> {
    let answer = ask(bus, PATH, OF_ZONES, "getZoneOfInterface", &[Value::Text(bridge)])?;
    let zone = answer.ok("firewalld does not tell a bridge's zone")?.into_iter().next();
    Ok(zone.filter(|zone| !zone.is_empty()))
}

/// Puts bridges into the zone, and takes those out that we put there and that are gone. Bridges that somebody has put
/// elsewhere stay there: told with their zones.
pub(super) fn bind(
    bus: &mut Bus,
    bridges: &BTreeSet<String>,
    bound: &mut BTreeSet<String>,
) -> Result<BTreeMap<String, String>> {
    let mut elsewhere = BTreeMap::new();
    for bridge in bridges {
        match zone_of(bus, bridge)? {
            Some(zone) if zone == ZONE => {}
            Some(zone) => {
                bound.remove(bridge);
                elsewhere.insert(bridge.clone(), zone);
                continue;
            }
            None => {
                let arguments = [Value::Text(ZONE), Value::Text(bridge)];
                let answer = ask(bus, PATH, OF_ZONES, "addInterface", &arguments)?;
                if !has_reason(&answer, "ZONE_ALREADY_SET") {
                    answer.ok("firewalld does not take a bridge into its zone")?;
                }
            }
        }
        bound.insert(bridge.clone());
    }
    let gone: Vec<String> = bound.difference(bridges).cloned().collect();
    for bridge in gone {
        let arguments = [Value::Text(ZONE), Value::Text(&bridge)];
        let answer = ask(bus, PATH, OF_ZONES, "removeInterface", &arguments)?;
        // Nowhere, or elsewhere by now.
        if !["UNKNOWN_INTERFACE", "ZONE_CONFLICT"].iter().any(|code| has_reason(&answer, code)) {
            answer.ok("firewalld does not let a bridge go from its zone")?;
        }
        bound.remove(&bridge);
    }
    Ok(elsewhere)
}
