//! Connections that become a container's streams. A socket pair plays the shim.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http::HeaderMap;
use server::hijack::{Splice, answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::client::{House, read_until};

const UPGRADE: &str = "POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const PLAIN: &str = "POST /containers/x/attach HTTP/1.1\r\nHost: x\r\n\r\n";
const RAW: &str = "application/vnd.docker.raw-stream";

type Slot = Arc<Mutex<Option<Splice>>>;

async fn attach(State(slot): State<Slot>, headers: HeaderMap) -> Response {
    answer(&headers, RAW, slot.lock().unwrap().take().unwrap())
}

/// A house whose next attach is joined to `splice`.
fn house(splice: Splice) -> House {
    let slot: Slot = Arc::new(Mutex::new(Some(splice)));
    House::serve(Router::new().route("/containers/x/attach", post(attach)).with_state(slot))
}

async fn attached(request: &str) -> (House, UnixStream, UnixStream, String) {
    let (ours, shim) = UnixStream::pair().unwrap();
    let house = house(Splice::new(ours));
    let mut client = house.connect().await;
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    (house, client, shim, head)
}

#[tokio::test]
async fn both_ways_of_asking() {
    let (_house, _client, _shim, head) = attached(UPGRADE).await;
    assert!(
        head.starts_with(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        ),
        "{head}"
    );
    assert!(head.contains("Api-Version: 1.55\r\n") && !head.contains("Content-Length"), "{head}");
    let (_house, _client, _shim, head) = attached(PLAIN).await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"),
        "{head}"
    );
    assert!(
        !head.contains("Upgrade")
            && !head.contains("Transfer-Encoding")
            && !head.contains("Content-Length"),
        "{head}"
    );
}

#[tokio::test]
async fn the_end_of_input_is_not_the_end_of_output() {
    for request in [UPGRADE, PLAIN] {
        let (_house, mut client, mut shim, _) = attached(request).await;
        client.write_all(b"2 1\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut input = String::new();
        shim.read_to_string(&mut input).await.unwrap();
        assert_eq!(input, "2 1\n");
        shim.write_all(b"1 2\n").await.unwrap();
        assert_eq!(read_until(&mut client, "\n").await, "1 2\n");
        drop(shim);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_was_typed_too_early_arrives() {
    for request in [UPGRADE, PLAIN] {
        let (_house, _client, mut shim, _) = attached(&format!("{request}early")).await;
        let mut input = [0; 5];
        shim.read_exact(&mut input).await.unwrap();
        assert_eq!(&input, b"early");
    }
}

#[tokio::test]
async fn the_end_of_output_ends_the_connection() {
    let (_house, mut client, mut shim, _) = attached(UPGRADE).await;
    shim.write_all(b"last words").await.unwrap();
    drop(shim);
    let mut output = String::new();
    client.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "last words");
}

/// A client asks for the exit code of an exec as soon as its stream has ended.
#[tokio::test]
async fn the_end_waits_for_what_comes_after() {
    let (ours, shim) = UnixStream::pair().unwrap();
    let (known, after) = tokio::sync::oneshot::channel::<()>();
    let mut splice = Splice::new(ours);
    splice.after = Box::pin(async move { after.await.unwrap() });
    let house = house(splice);
    let mut client = house.connect().await;
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    drop(shim);
    let mut byte = [0];
    {
        let end = client.read(&mut byte);
        tokio::pin!(end);
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = &mut end => panic!("ended too early"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    known.send(()).unwrap();
    assert_eq!(client.read(&mut byte).await.unwrap(), 0);
}

/// The shim sees it: there is nobody it could fill a ring for.
#[tokio::test]
async fn a_client_that_is_gone_lets_go() {
    let (_house, client, mut shim, _) = attached(UPGRADE).await;
    drop(client);
    assert_eq!(shim.read(&mut [0; 8]).await.unwrap(), 0);
    let gone = loop {
        match shim.write_all(&[0; 4096]).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn megabytes_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let (_house, client, shim, _) = attached(UPGRADE).await;
    let pump = async |stream: UnixStream, byte: u8| {
        let (mut read, mut write) = stream.into_split();
        let writer = tokio::spawn(async move {
            write.write_all(&vec![byte; SIZE]).await.unwrap();
            write
        });
        let mut seen = vec![0; SIZE];
        read.read_exact(&mut seen).await.unwrap();
        let _open = writer.await.unwrap();
        seen
    };
    let (at_client, at_shim) = tokio::join!(pump(client, b'i'), pump(shim, b'o'));
    assert!(at_client.iter().all(|byte| *byte == b'o'));
    assert!(at_shim.iter().all(|byte| *byte == b'i'));
}

#[tokio::test]
async fn the_keys_that_part() {
    let (ours, mut shim) = UnixStream::pair().unwrap();
    let mut splice = Splice::new(ours);
    splice.filter = Some(Box::new(|input| match input.iter().position(|byte| *byte == 0x11) {
        Some(at) => (input[..at].to_vec(), true),
        None => (input.to_vec(), false),
    }));
    let house = house(splice);
    let mut client = house.connect().await;
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    client.write_all(b"ls\n\x11rm").await.unwrap();
    let mut input = String::new();
    shim.read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "ls\n");
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn words_instead_of_a_stream() {
    let house = house(Splice::words("no such file\r\n"));
    let answer = house.say(UPGRADE.as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\nno such file\r\n"), "{answer}");
}

/// A body belongs to the request; what follows it is input.
#[tokio::test]
async fn input_begins_behind_the_body() {
    let (ours, mut shim) = UnixStream::pair().unwrap();
    let slot: Slot = Arc::new(Mutex::new(Some(Splice::new(ours))));
    let start = async |State(slot): State<Slot>, headers: HeaderMap, body: String| {
        assert_eq!(body, "{}");
        answer(&headers, RAW, slot.lock().unwrap().take().unwrap())
    };
    let house = House::serve(Router::new().route("/exec/x/start", post(start)).with_state(slot));
    let mut client = house.connect().await;
    let request = "POST /exec/x/start HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}input";
    client.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    client.shutdown().await.unwrap();
    let mut input = String::new();
    shim.read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "input");
}
