//! `attach/ws`: a container in a browser.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use testkit::House;
use testkit::house::PATIENCE;

use crate::containers::house;

struct Socket {
    stream: UnixStream,
    head: String,
}

impl Socket {
    fn open(house: &House, path: &str) -> Self {
        let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: gantry\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the daemon listens");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        Self { stream, head: String::from_utf8(head).expect("text") }
    }

    fn say(&mut self, kind: u8, bytes: &[u8]) {
        let mask = [7, 1, 200, 3];
        let mut frame = vec![0x80 | kind, 0x80 | u8::try_from(bytes.len()).expect("short")];
        frame.extend(mask);
        frame.extend(bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).expect("it listens");
    }

    fn hear(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame");
        let mut wide = vec![
            0;
            match head[1] {
                126 => 2,
                127 => 8,
                _ => 0,
            }
        ];
        self.stream.read_exact(&mut wide).expect("a length");
        let length = match wide.len() {
            0 => usize::from(head[1]),
            _ => wide.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).expect("a frame");
        (head[0] & 0x0f, bytes)
    }

    /// Frames of output until this has come.
    fn until(&mut self, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            let (kind, bytes) = self.hear();
            assert_eq!(kind, 2, "{said}");
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
        said
    }
}

#[test]
fn a_container_in_a_browser() {
    let house = house();
    let run = ["run", "-di", "--name", "ca", "--network", "none", "busybox", "sh", "-c"];
    house.ok(&[
        &run[..],
        &["echo before; while read x; do echo got $x; echo err >&2; done; exit 5"],
    ]
    .concat());
    let path = "/containers/ca/attach/ws?logs=1&stream=1&stdin=1&stdout=1&stderr=1";
    let mut socket = Socket::open(&house, path);
    assert!(socket.head.starts_with("HTTP/1.1 101 "), "{}", socket.head);
    let accept = "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    assert!(socket.head.contains(accept), "{}", socket.head);
    // Both streams, and no heads between them.
    assert_eq!(socket.until("before\n"), "before\n");
    socket.say(1, b"hello\n");
    // Either stream may be read first.
    let mut said = String::new();
    while !(said.contains("got hello\n") && said.contains("err\n")) {
        said += &socket.until("\n");
    }
    assert!(!said.contains('\0'), "{said:?}");
    socket.say(9, b"ping");
    assert_eq!(socket.hear(), (10, b"ping".to_vec()));
    // Who closes has parted; the container lives on.
    socket.say(8, &1000u16.to_be_bytes());
    assert_eq!(socket.hear(), (8, 1000u16.to_be_bytes().to_vec()));
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Running}}", "ca"]).trim(), "true");
    let mut socket =
        Socket::open(&house, "/v1.27/containers/ca/attach/ws?stream=1&stdin=1&stdout=1");
    socket.say(2, b"again\n");
    let (kind, bytes) = socket.hear();
    assert_eq!((kind, bytes), (1, b"got again\n".to_vec()));
    house.ok(&["kill", "ca"]);
    assert_eq!(socket.hear().0, 8);
    let refused = house.api("GET", "/containers/ca/attach/ws", None);
    assert_eq!(refused.status, 400);
}
