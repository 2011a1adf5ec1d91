//! Versions, headers, refusals, limits, and the socket itself.

use axum::Router;
use axum::routing::post;
use server::listen::Listener;
use state::{Journal, Store};

use crate::client::{House, mode};

fn house() -> House {
    let journal = Journal::open(&Store::in_memory()).unwrap();
    let echo = Router::new().route("/echo", post(async |body: String| body));
    House::serve(server::without_rooms(&journal).merge(echo))
}

async fn check(line: &str, status: &str, body: &str) {
    let (head, found) = house().ask(line).await;
    assert_eq!(
        (head.lines().next().unwrap(), found.as_str()),
        (format!("HTTP/1.1 {status}").as_str(), body),
        "{line}"
    );
}

#[tokio::test]
async fn versions_and_refusals_in_dockers_words() {
    check("GET /v1.41/_ping", "200 OK", "OK").await;
    check(
        "GET /v1.20/_ping",
        "400 Bad Request",
        "{\"message\":\"client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to \
         a newer version\"}\n",
    )
    .await;
    check(
        "GET /v1.99/_ping",
        "400 Bad Request",
        "{\"message\":\"client version 1.99 is too new. Maximum supported API version is 1.55\"}\n",
    )
    .await;
    check("GET /nonsense", "404 Not Found", "{\"message\":\"page not found\"}\n").await;
    check("DELETE /v1.30/_ping", "404 Not Found", "{\"message\":\"page not found\"}\n").await;
    check(
        "GET /services",
        "503 Service Unavailable",
        "{\"message\":\"This node is not a swarm manager. Use \\\"docker swarm init\\\" or \\\"docker swarm join\\\" to \
         connect this node to swarm and try again.\"}\n",
    )
    .await;
    check(
        "POST /build",
        "501 Not Implemented",
        "{\"message\":\"building images is not supported yet\"}\n",
    )
    .await;
}

#[tokio::test]
async fn ping_says_who_we_are() {
    let (head, body) = house().ask("GET /_ping").await;
    for line in [
        "Api-Version: 1.55",
        "Builder-Version: 1",
        "Cache-Control: no-cache, no-store, must-revalidate",
        "Content-Type: text/plain; charset=utf-8",
        "Docker-Experimental: false",
        "Ostype: linux",
        "Pragma: no-cache",
        "Swarm: inactive",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} is not in {head}");
    }
    assert!(head.contains("\r\nServer: Gantry/"));
    assert_eq!(body, "OK");
    let (head, body) = house().ask("HEAD /_ping").await;
    assert!(head.contains("\r\nContent-Length: 2"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_closed() {
    let house = house();
    let bombs = [
        format!("GET /_ping HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(300_000)),
        format!("GET /_ping HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(5000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(300_000)),
    ];
    for bomb in bombs {
        let answer = house.say(bomb.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for bad in [
        "HELLO\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "GET /_ping HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let answer = house.say(bad.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad:?}: {answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }
    assert_eq!(house.ask("GET /_ping").await.1, "OK");
}

/// Two lengths for one body: whichever counts, what is inside is a body and never a second request.
#[tokio::test]
async fn nothing_is_smuggled() {
    let house = house();
    let inner = "GET /nonsense HTTP/1.1\r\n\r\n";
    let request = format!(
        "POST /echo HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{inner}\r\n\
         0\r\n\r\n",
        inner.len()
    );
    let answer = house.say(request.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(inner), "{answer}");
    let huge = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n";
    let answer = house.say(huge.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn the_socket_is_for_its_group_and_for_one_daemon() {
    let house = house();
    let path = house.socket();
    assert_eq!(mode(&path), 0o660);
    let error = Listener::unix(&path, &[]).err().unwrap();
    assert!(error.chain().ends_with("another daemon listens there"), "{}", error.chain());
    house.stop().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Listener::unix(&path, &[]).unwrap());
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Listener::unix(&file, &[]).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn tcp_without_tls_must_be_wanted() {
    let error = Listener::open("tcp://127.0.0.1:0", None, &[]).err().unwrap();
    assert_eq!(error.kind(), stdx::Kind::Invalid);
    let error = Listener::open("fd://", None, &[]).err().unwrap();
    assert_eq!(error.to_string(), "no socket was passed to the daemon for fd://");
    let error = Listener::open("npipe://x", None, &[]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "invalid bind address (\"npipe://x\"): unsupported proto 'npipe'"
    );
}
