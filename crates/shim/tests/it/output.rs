//! What a container says arrives: in the log, and at clients attached from the first byte.

use crate::house::{House, OUTPUT, stream};

#[test]
fn output_exit_code_and_record() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("echo out; echo err >&2; printf 'no newline'; exit 3");
    let (mut client, theirs) = stream();
    launch.attach.push((OUTPUT, theirs));
    let mut container = house.launch(launch);
    let exit = container.wait();
    assert_eq!((exit.code, exit.oom_killed), (3, false));
    assert_eq!(shim::exit::read(&container.dir).unwrap(), Some(exit));
    assert_eq!(client.frames(), ("out\nno newline".to_owned(), "err\n".to_owned()));
    let mut logged = container.logged();
    logged.sort();
    assert_eq!(
        logged,
        [
            ("stderr", "err\n".to_owned()),
            ("stdout", "no newline".to_owned()),
            ("stdout", "out\n".to_owned())
        ]
    );
    let dir = container.dir.clone();
    container.client.delete().unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_program_that_is_not_there() {
    let Some(house) = House::open() else { return };
    for (args, code, words) in [
        (["/bin/nosuch"], 127, "no such file or directory"),
        (["nosuch"], 127, "executable file not found in $PATH"),
        (["/etc"], 126, "is a directory"),
    ] {
        let mut launch = house.shell("");
        launch.spec.process = Some(crate::house::process(&args));
        let dir = launch.dir.clone();
        let Err(error) = house.try_launch(launch) else { panic!("{args:?} was started") };
        assert_eq!(error.exit_code, code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!dir.join("shim.sock").exists());
        assert!(shim::Client::connect(&dir).is_err());
    }
}

#[test]
fn signals_are_exit_codes() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    container.client.kill(9, shim::Whom::Init).unwrap();
    assert_eq!(container.wait().code, 137);
    let refused = container.client.kill(9, shim::Whom::Init).unwrap_err();
    assert_eq!(refused.kind(), stdx::Kind::Conflict);
}

#[test]
fn every_byte_of_a_lot() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("seq 1 200000");
    let (mut client, theirs) = stream();
    launch.attach.push((OUTPUT, theirs));
    let reader = std::thread::spawn(move || client.frames().0);
    let mut container = house.launch(launch);
    assert_eq!(container.wait().code, 0);
    let seen = reader.join().unwrap();
    let whole: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(seen == whole, "{} of {} bytes", seen.len(), whole.len());
    let logged: String = container.logged().into_iter().map(|(_, line)| line).collect();
    assert!(logged == whole, "{} of {} bytes", logged.len(), whole.len());
}
