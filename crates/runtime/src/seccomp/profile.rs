//! Docker's profile format: rules that hold for some capabilities, architectures and kernels, resolved to OCI's.

use oci::runtime::{Seccomp, SeccompAction, SeccompArg, SeccompSyscall};
use serde::Deserialize;
use stdx::{Error, Result};

use super::Arch;

/// A profile as people write it: Docker's default one, or the file of `--security-opt seccomp=FILE`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Profile {
    default_action: SeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

/// What the rules of a profile may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The container's bounding set, as `CAP_…`.
    pub capabilities: &'a [String],
    /// Version and patch level of the running kernel.
    pub kernel: (u32, u32),
}

impl<'a> Surroundings<'a> {
    /// Those of a container with this bounding set, on this host.
    pub fn here(capabilities: &'a [String]) -> Self {
        let release = rustix::system::uname();
        Self { capabilities, kernel: kernel(&release.release().to_string_lossy()) }
    }
}

/// Docker's default profile, as of Engine 29.
const DEFAULT: &str = include_str!("default.json");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    /// The old way to give one name.
    name: String,
    names: Option<Vec<String>>,
    action: SeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<SeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    /// Go's names: `amd64`.
    arches: Option<Vec<String>>,
    /// `4.8`.
    min_kernel: Option<String>,
}

impl Profile {
    /// Docker's default profile.
    pub fn default_profile() -> Self {
        serde_json::from_str(DEFAULT).expect("the embedded profile is tested")
    }

    /// Reads a profile somebody wrote. Docker's words.
    pub fn parse(json: &str) -> Result<Self> {
        let profile: Self = serde_json::from_str(json)
            .map_err(|error| Error::invalid("Decoding seccomp profile failed").caused_by(error))?;
        if filled(&profile.architectures) && filled(&profile.arch_map) {
            return Err(Error::invalid(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
            ));
        }
        for entry in profile.syscalls.iter().flatten() {
            if !entry.name.is_empty() && filled(&entry.names) {
                return Err(Error::invalid(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            for version in [&entry.includes, &entry.excludes]
                .into_iter()
                .flatten()
                .filter_map(|f| f.min_kernel.as_ref())
            {
                let digits =
                    |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                if !version
                    .split_once('.')
                    .is_some_and(|(major, minor)| digits(major) && digits(minor))
                {
                    return Err(Error::invalid(format!(
                        "invalid kernel version {version:?} in the seccomp profile"
                    )));
                }
            }
        }
        Ok(profile)
    }

    /// The rules that hold in these surroundings.
    pub fn resolve(&self, surroundings: Surroundings<'_>) -> Seccomp {
        let architectures = match &self.arch_map {
            Some(map) if !map.is_empty() => map
                .iter()
                .filter(|entry| entry.architecture == Arch::NATIVE.name())
                .flat_map(|entry| {
                    let subs = entry.sub_architectures.iter().flatten();
                    std::iter::once(&entry.architecture).chain(subs).cloned()
                })
                .collect(),
            _ => self.architectures.clone().unwrap_or_default(),
        };
        Seccomp {
            default_action: self.default_action,
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags.clone().unwrap_or_default(),
            listener_path: self.listener_path.as_ref().map(Into::into),
            listener_metadata: self.listener_metadata.clone().unwrap_or_default(),
            syscalls: self
                .syscalls
                .iter()
                .flatten()
                .filter(|entry| entry.holds(surroundings))
                .map(Entry::rule)
                .collect(),
        }
    }
}

impl Entry {
    fn holds(&self, surroundings: Surroundings<'_>) -> bool {
        let has = |name: &String| surroundings.capabilities.contains(name);
        let arch = go_arch();
        let nothing = Filter::default();
        let includes = self.includes.as_ref().unwrap_or(&nothing);
        let excludes = self.excludes.as_ref().unwrap_or(&nothing);
        let new_enough = |version: &String| surroundings.kernel >= kernel(version);

        !excludes.arches.iter().flatten().any(|name| name == arch)
            && !excludes.caps.iter().flatten().any(has)
            && !excludes.min_kernel.as_ref().is_some_and(new_enough)
            && (!filled(&includes.arches)
                || includes.arches.iter().flatten().any(|name| name == arch))
            && includes.caps.iter().flatten().all(has)
            && includes.min_kernel.as_ref().is_none_or(new_enough)
    }

    fn rule(&self) -> SeccompSyscall {
        let names = match self.name.as_str() {
            "" => self.names.clone().unwrap_or_default(),
            name => vec![name.to_owned()],
        };
        SeccompSyscall {
            names,
            action: self.action,
            errno_ret: self.errno_ret,
            args: self.args.clone().unwrap_or_default(),
        }
    }
}

fn filled<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// Go's name for what we run on, which is how Docker's rules name architectures.
fn go_arch() -> &'static str {
    match Arch::NATIVE {
        Arch::X86_64 => "amd64",
        Arch::X86 => "x86",
        Arch::X32 => "x32",
        Arch::Aarch64 => "arm64",
        Arch::Arm => "arm",
        Arch::Riscv64 => "riscv64",
    }
}

/// `6.18.44-something` → (6, 18). What is not a number is 0.
fn kernel(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capabilities: &[&str], kernel: (u32, u32), name: &str, expected: &[SeccompAction]) {
        let capabilities: Vec<String> =
            capabilities.iter().map(|name| (*name).to_owned()).collect();
        let resolved = Profile::default_profile()
            .resolve(Surroundings { capabilities: &capabilities, kernel });
        let named =
            resolved.syscalls.iter().filter(|call| call.names.iter().any(|known| known == name));
        assert_eq!(
            named.map(|call| call.action).collect::<Vec<_>>(),
            expected,
            "{name} with {capabilities:?}"
        );
    }

    #[test]
    fn rules_depend_on_capabilities_and_kernel() {
        use SeccompAction::{Allow, Errno};
        check(&[], (6, 1), "read", &[Allow]);
        check(&[], (6, 1), "mount", &[]);
        check(&["CAP_SYS_ADMIN"], (6, 1), "mount", &[Allow]);
        check(&[], (6, 1), "clone3", &[Errno]);
        check(&["CAP_SYS_ADMIN"], (6, 1), "clone3", &[Allow]);
        check(&[], (4, 7), "ptrace", &[]);
        check(&[], (4, 8), "ptrace", &[Allow]);
        check(&[], (6, 1), "personality", &[Allow; 5]);
        check(&["CAP_SYSLOG"], (6, 1), "syslog", &[Allow]);
    }

    #[test]
    fn the_head_is_taken_over() {
        let resolved =
            Profile::default_profile().resolve(Surroundings { capabilities: &[], kernel: (6, 1) });
        assert_eq!(resolved.default_errno_ret, Some(1));
        assert_eq!(resolved.architectures[0], Arch::NATIVE.name());
    }

    #[test]
    fn refusals_are_dockers() {
        let refusal = |json: &str| Profile::parse(json).unwrap_err().to_string();
        assert_eq!(refusal("{"), "Decoding seccomp profile failed");
        assert_eq!(
            refusal(
                r#"{"architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#
            ),
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
        );
        assert_eq!(
            refusal(r#"{"syscalls":[{"name":"read","names":["write"]}]}"#),
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        );
    }

    #[test]
    fn nulls_are_absent() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":null,"syscalls":[{"name":"read","args":null,"includes":null}]}"#;
        let resolved = Profile::parse(json)
            .unwrap()
            .resolve(Surroundings { capabilities: &[], kernel: (6, 1) });
        assert_eq!(resolved.syscalls[0].names, ["read"]);
    }

    #[test]
    fn a_release_is_two_numbers() {
        assert_eq!(kernel("6.18.44-fc"), (6, 18));
        assert_eq!(kernel("5"), (5, 0));
    }
}
