//! More processes in a running container.

use std::time::{Duration, Instant};

use shim::{AttachOptions, Event, ExecRequest, Target};

use crate::house::{ALL, Container, House, OUTPUT, Stream, eventually, process, stream};

fn exec(container: &Container, id: &str, script: &str, options: AttachOptions) -> Stream {
    let (client, theirs) = stream();
    let request = ExecRequest {
        id: id.to_owned(),
        process: process(&["sh", "-c", script]),
        tty: false,
        size: None,
        attach: Some((options, theirs)),
        limit: None,
    };
    container.client.exec(request).unwrap();
    client
}

fn ended(container: &mut Container, wanted: &str) -> i32 {
    container.event(|event| match event {
        Event::ExecExit(exit) if exit.id == wanted => Some(exit.code),
        _ => None,
    })
}

#[test]
fn output_stdin_and_exit_code() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    let mut client = exec(&container, "one", "cat; echo err >&2; exit 7", ALL);
    client.send("hello\n");
    client.close_stdin();
    assert_eq!(client.frames(), ("hello\n".to_owned(), "err\n".to_owned()));
    assert_eq!(ended(&mut container, "one"), 7);
    // An exec's output is not the container's log.
    assert_eq!(container.logged(), []);
    let state = container.client.state().unwrap();
    assert_eq!((state.execs.len(), state.exec_exits.len()), (0, 1));
    assert_eq!(state.exec_exits[0].code, 7);
}

#[test]
fn the_exit_is_told_before_the_stream_ends() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    for round in 0..20 {
        let id = round.to_string();
        let mut client = exec(&container, &id, "echo x", OUTPUT);
        assert_eq!(client.frames().0, "x\n");
        let state = container.client.state().unwrap();
        assert!(state.exec_exits.iter().any(|exit| exit.id == id));
        assert_eq!(ended(&mut container, &id), 0);
    }
}

#[test]
fn a_program_that_is_not_there() {
    let Some(house) = House::open() else { return };
    let container = house.launch(house.shell("exec sleep 1000"));
    for (program, code) in [("nosuch", 127), ("/bin/nosuch", 127), ("/etc", 126)] {
        let request = ExecRequest {
            id: "x".to_owned(),
            process: process(&[program]),
            tty: false,
            size: None,
            attach: None,
            limit: None,
        };
        let failure = container.client.exec(request).unwrap_err();
        assert_eq!(failure.exit_code, Some(code), "{:?}", failure.error);
    }
    assert_eq!(container.client.state().unwrap().execs, []);
}

#[test]
fn a_background_job_does_not_hold_the_client() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    let begin = Instant::now();
    let mut client = exec(&container, "one", "sleep 1000 & echo started", OUTPUT);
    assert_eq!(client.frames().0, "started\n");
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(ended(&mut container, "one"), 0);
}

#[test]
fn execs_end_with_the_container() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    let mut client = exec(&container, "one", "echo here; sleep 1000", OUTPUT);
    client.until("here\n");
    container.client.kill(9, shim::Whom::Init).unwrap();
    assert_eq!(ended(&mut container, "one"), 137);
    assert_eq!(container.wait().code, 137);
    assert_eq!(client.raw(), b"");
}

#[test]
fn an_exec_that_takes_its_time_holds_up_nobody() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("while echo x; do sleep 0.01; done"));
    // Frozen behind the shim's back: who joins it stands still.
    let cgroup = container.cgroup();
    cgroup.freeze().unwrap();
    std::thread::scope(|scope| {
        let exec = scope.spawn(|| exec(&container, "slow", "exit 3", OUTPUT).raw());
        let helper = || {
            let shim = container.shim_pid;
            let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"));
            children.unwrap().split_whitespace().count() == 2
        };
        eventually("a helper is at work", helper);
        assert_eq!(container.client.state().unwrap().execs, []);
        assert!(!exec.is_finished());
        cgroup.thaw().unwrap();
        assert_eq!(exec.join().unwrap(), b"");
    });
    assert_eq!(ended(&mut container, "slow"), 3);
}

#[test]
fn the_end_of_the_container_ends_what_is_joining_it() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    container.cgroup().freeze().unwrap();
    let request = ExecRequest {
        id: "late".to_owned(),
        process: process(&["true"]),
        tty: false,
        size: None,
        attach: None,
        limit: None,
    };
    std::thread::scope(|scope| {
        let exec = scope.spawn(|| container.client.exec(request));
        container.client.kill(9, shim::Whom::All).unwrap();
        container.cgroup().thaw().unwrap();
        // Refused, given up, or just in time to be killed.
        let _outcome = exec.join().unwrap();
    });
    assert_eq!(container.wait().code, 137);
}

#[test]
fn a_terminal() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    let (mut client, theirs) = stream();
    let request = ExecRequest {
        id: "tty".to_owned(),
        process: oci::runtime::Process {
            terminal: true,
            ..process(&["sh", "-c", "stty size; read x; stty size"])
        },
        tty: true,
        size: Some(shim::Size { rows: 11, columns: 22 }),
        attach: Some((ALL, theirs)),
        limit: None,
    };
    container.client.exec(request).unwrap();
    assert_eq!(client.until("\r\n"), "11 22\r\n");
    container
        .client
        .resize(Target::Exec("tty".to_owned()), shim::Size { rows: 33, columns: 44 })
        .unwrap();
    client.send("\n");
    client.until("33 44\r\n");
    assert_eq!(ended(&mut container, "tty"), 0);
}

#[test]
fn one_whose_time_is_over_ends_with_all_it_has_begun() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    let (mut client, theirs) = stream();
    let request = ExecRequest {
        id: "probe".to_owned(),
        process: process(&["sh", "-c", "sleep 5000 & echo begun; wait"]),
        tty: false,
        size: None,
        attach: Some((ALL, theirs)),
        limit: Some(std::time::Duration::from_millis(300)),
    };
    container.client.exec(request).unwrap();
    client.until("begun");
    let exit = container.event(|event| match event {
        Event::ExecExit(exit) if exit.id == "probe" => Some((exit.code, exit.overdue)),
        _ => None,
    });
    assert_eq!(exit, (137, true));
    crate::house::eventually("only the container's own process is left", || {
        container.client.processes().unwrap().len() == 1
    });
}

#[test]
fn a_compiled_filter_is_over_the_first_process_and_over_execs() {
    let Some(house) = House::open() else { return };
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42}]}"#;
    let compiled = runtime::seccomp::Compiler::default().compile(Some(profile), []).unwrap();
    let try_it = "busybox mkdir /tmp/made 2>&1";
    let mut launch = house.shell(&format!("{try_it}; exec sleep 1000"));
    launch.filter = Some(compiled.program.clone());
    let (mut output, theirs) = stream();
    launch.attach.push((OUTPUT, theirs));
    let container = house.launch(launch);
    // ENOMSG, which nobody else answers here.
    let refused = "mkdir: can't create directory '/tmp/made': No message of desired type\n";
    assert!(output.until("\n").ends_with(refused));
    assert_eq!(exec(&container, "one", try_it, OUTPUT).frames().0, refused);
}
