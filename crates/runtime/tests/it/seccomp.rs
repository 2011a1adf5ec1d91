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

/// The calls of the catalogue's E10: doors into the kernel that a container has no business with.
#[test]
fn e10_doors_that_are_shut() {
    skip_unless_root!();
    use std::os::fd::AsFd;
    use sys::process::CloneFlags;

    fn knock() -> Vec<(&'static str, Option<i32>)> {
        fn number<T>(done: rustix::io::Result<T>) -> Option<i32> {
            done.err().map(Errno::raw_os_error)
        }
        fn os<T>(done: std::io::Result<T>) -> Option<i32> {
            done.err().and_then(|err| err.raw_os_error())
        }
        use rustix::{mount, process, system};
        let here = std::fs::File::open("/proc/self/ns/uts").unwrap();
        vec![
            ("add_key", os(sys::keyring::join_session(c"e10").map(drop))),
            ("bpf", os(sys::bpf::load_device_program(&[]))),
            ("unshare", os(sys::ns::unshare(CloneFlags::NEWUTS))),
            ("setns", os(sys::ns::setns(here.as_fd(), CloneFlags::NEWUTS))),
            ("fsopen", number(mount::fsopen("tmpfs", mount::FsOpenFlags::empty()))),
            (
                "open_tree",
                number(mount::open_tree(rustix::fs::CWD, "/", mount::OpenTreeFlags::empty())),
            ),
            ("pivot_root", number(process::pivot_root("/nowhere", "/nowhere"))),
            ("delete_module", number(system::delete_module(c"nosuchmodule", 0))),
            ("init_module", number(system::init_module(&[], c""))),
        ]
    }
    const SHUT: Option<i32> = Some(Errno::PERM.raw_os_error());
    for (call, answer) in under(default_program(&DOCKERS), knock) {
        assert_eq!(answer, SHUT, "{call}");
    }
    // The twin: who has the capability is let in, or at least told of something else.
    let mut capabilities = DOCKERS.to_vec();
    capabilities.extend(["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_BPF"]);
    let open = under(default_program(&capabilities), knock);
    for call in ["bpf", "unshare", "setns", "fsopen", "open_tree", "delete_module"] {
        let answer = open.iter().find(|(name, _)| *name == call).unwrap().1;
        assert_ne!(answer, SHUT, "{call}");
    }
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
