//! A container with a terminal.

use shim::{Size, Target};

use crate::house::{ALL, House, stream};

#[test]
fn what_is_typed_is_echoed_and_sizes_are_kept() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("stty size; read line; echo got $line; stty size; exit 4");
    (launch.tty, launch.open_stdin) = (true, true);
    launch.spec.process.as_mut().unwrap().terminal = true;
    launch.size = Some(Size { rows: 24, columns: 80 });
    let (mut client, theirs) = stream();
    launch.attach.push((ALL, theirs));
    let mut container = house.launch(launch);
    client.until("24 80\r\n");
    container.client.resize(Target::Init, Size { rows: 50, columns: 132 }).unwrap();
    client.send("hello\n");
    client.until("got hello\r\n50 132\r\n");
    assert_eq!(client.raw(), b"");
    assert_eq!(container.wait().code, 4);
    let logged: String = container.logged().into_iter().map(|(_, line)| line).collect();
    assert!(logged.contains("got hello\r\n"), "{logged:?}");
}

#[test]
fn the_end_of_a_client_is_not_the_end_of_input() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("read line; echo got $line");
    (launch.tty, launch.open_stdin, launch.stdin_once) = (true, true, true);
    launch.spec.process.as_mut().unwrap().terminal = true;
    let mut container = house.launch(launch);
    let (first, theirs) = stream();
    container.client.attach(ALL, &theirs).unwrap();
    drop((first, theirs));
    let (mut second, theirs) = stream();
    container.client.attach(ALL, &theirs).unwrap();
    drop(theirs);
    second.send("hi\n");
    second.until("got hi\r\n");
    assert_eq!(container.wait().code, 0);
}
