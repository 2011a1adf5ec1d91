//! The compiled default profile in the kernel's hands. A filter is a thread's own, so each test spends a thread.

use runtime::seccomp::profile::{Profile, Surroundings};
use runtime::seccomp::{Program, compile};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::skip_unless_root;

/// Docker's fourteen.
const DOCKERS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn default_program(capabilities: &[&str]) -> Program {
    let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    compile(&Profile::default_profile().resolve(Surroundings::here(&capabilities))).unwrap()
}

fn under<T: Send + 'static>(program: Program, act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        assert!(program.install().unwrap().is_none());
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        act()
    });
    thread.join().unwrap()
}

#[test]
fn the_default_profile_allows_and_refuses() {
    skip_unless_root!();
    let program = default_program(&DOCKERS);
    assert!(program.len() < 2000, "{} instructions", program.len());
    under(program, || {
        // A name that is refused in the kernel too, should the filter let the call through.
        assert_eq!(rustix::system::sethostname(&[b'x'; 200]), Err(Errno::PERM));
        assert_eq!(
            socket(AddressFamily::VSOCK, SocketType::STREAM, None).unwrap_err(),
            Errno::PERM
        );
        // AF_ALG.
        assert_eq!(
            socket(AddressFamily::from_raw(38), SocketType::SEQPACKET, None).unwrap_err(),
            Errno::PERM
        );
        socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        assert_eq!(
            rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()),
            Err(Errno::PERM)
        );
        std::fs::read("/proc/self/stat").unwrap();
        std::thread::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn a_capability_opens_its_calls() {
    skip_unless_root!();
    let mut capabilities = DOCKERS.to_vec();
    capabilities.push("CAP_SYS_ADMIN");
    under(default_program(&capabilities), || {
        assert_eq!(rustix::system::sethostname(&[b'x'; 200]), Err(Errno::INVAL));
        assert_eq!(
            rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()),
            Err(Errno::NOENT)
        );
    });
}

#[test]
fn the_supervisor_gets_a_descriptor() {
    skip_unless_root!();
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["acct"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    let program = compile(&serde_json::from_str(json).unwrap()).unwrap();
    assert!(program.notifies());
    let listener = std::thread::spawn(move || program.install().unwrap()).join().unwrap();
    assert!(listener.is_some());
}
