//! `GET /events` over a real connection.

use state::{Actor, EventKind, Journal, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{House, read_until};

fn journal() -> Journal {
    Journal::open(&Store::in_memory()).unwrap()
}

fn happens(journal: &Journal, action: &str, name: &str) {
    let attributes = [("image", "busybox"), ("name", name)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    journal.append(
        EventKind::Container,
        action,
        Actor { id: format!("id-of-{name}"), attributes: attributes.into() },
    );
}

/// The actions told, in order.
fn actions(body: &str) -> Vec<String> {
    let documents =
        body.lines().filter_map(|line| serde_json::from_str::<api::event::Message>(line).ok());
    documents
        .map(|message| format!("{} {}", message.action, message.actor.attributes["name"]))
        .collect()
}

#[tokio::test]
async fn the_past_ends_by_itself() {
    let journal = journal();
    for name in ["a", "b"] {
        happens(&journal, "create", name);
        happens(&journal, "start", name);
    }
    let house = House::serve(server::without_rooms(&journal));
    let far = "4102444800";
    let (head, body) = house
        .ask(&format!("GET /events?since=1&until={far}&filters=%7B%22x%22%3A%5B%5D%7D"))
        .await_briefly()
        .await;
    assert!(head.is_empty() && body.is_empty(), "an end in the future keeps the stream open");
    let now = stdx::time::Timestamp::now().unix() + 1;
    let (head, body) = house.ask(&format!("GET /events?since=1&until={now}")).await;
    assert!(
        head.contains("Content-Type: application/json\r\n")
            && head.contains("Transfer-Encoding: chunked"),
        "{head}"
    );
    assert_eq!(actions(&body), ["create a", "start a", "create b", "start b"]);
    let filters = "%7B%22container%22%3A%5B%22b%22%5D%2C%22event%22%3A%7B%22start%22%3Atrue%7D%7D";
    let (_, body) = house.ask(&format!("GET /events?since=1&until={now}&filters={filters}")).await;
    assert_eq!(actions(&body), ["start b"]);
}

trait Briefly {
    /// The answer if it comes within a moment, else nothing.
    async fn await_briefly(self) -> (String, String);
}

impl<F: Future<Output = (String, String)>> Briefly for F {
    async fn await_briefly(self) -> (String, String) {
        let soon = std::time::Duration::from_millis(300);
        tokio::time::timeout(soon, self).await.unwrap_or_default()
    }
}

#[tokio::test]
async fn older_clients_get_the_older_fields() {
    let journal = journal();
    happens(&journal, "create", "web");
    let house = House::serve(server::without_rooms(&journal));
    let now = stdx::time::Timestamp::now().unix() + 1;
    let (_, body) = house.ask(&format!("GET /v1.51/events?since=1&until={now}")).await;
    assert!(
        body.contains(r#"{"status":"create","id":"id-of-web","from":"busybox","Type":"container","Action":"create","Actor":{"#),
        "{body}"
    );
    let (_, body) = house.ask(&format!("GET /events?since=1&until={now}")).await;
    assert!(body.contains(r#"{"Type":"container","Action":"create","Actor":{"ID":"id-of-web","Attributes":{"image""#), "{body}");
}

#[tokio::test]
async fn live_and_in_order() {
    let journal = journal();
    let house = House::serve(server::without_rooms(&journal));
    let mut client = house.connect().await;
    client
        .write_all(b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: application/json-seq\r\n\r\n")
        .await
        .unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.contains("Content-Type: application/json-seq\r\n"), "{head}");
    for number in 0..100 {
        happens(&journal, &format!("step{number}"), "x");
    }
    let mut body = String::new();
    while !body.contains("\"step99\"") {
        body += &read_until(&mut client, "\r\n").await;
    }
    let mut rest = body.as_str();
    for number in 0..100 {
        let at = rest
            .find(&format!("\u{1e}{{\"Type\":\"container\",\"Action\":\"step{number}\""))
            .expect("in order");
        rest = &rest[at + 1..];
    }
}

/// More than the journal keeps, at once, for a client that does not read: it is told exactly what it will never have.
#[tokio::test]
async fn a_slow_client_is_told_what_it_missed() {
    const ALL: usize = 40_000;
    let journal = journal();
    let house = House::serve(server::without_rooms(&journal));
    let mut client = house.connect().await;
    client.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    for number in 0..ALL - 1 {
        happens(&journal, "step", "x");
        // What is on disk need not stay in memory.
        if number % 1000 == 0 {
            journal.save().unwrap();
        }
    }
    happens(&journal, "end", "x");
    let mut body = String::new();
    while !body.contains("\"Action\":\"end\"") {
        body += &read_until(&mut client, "\r\n").await;
    }
    let told = body.matches("\"Action\":\"step\"").count() + 1;
    let overruns = body.lines().filter(|line| line.contains("\"Action\":\"overrun\""));
    let missed: usize = overruns
        .map(|line| {
            serde_json::from_str::<api::event::Message>(line).unwrap().actor.attributes["missed"]
                .clone()
        })
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    assert!(missed > 0, "the test was too gentle");
    assert_eq!(told + missed, ALL);
}

#[tokio::test]
async fn since_after_until_is_refused() {
    let house = House::serve(server::without_rooms(&journal()));
    let (head, body) = house.ask("GET /events?since=20&until=10").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert_eq!(body, "{\"message\":\"`since` time (20) cannot be after `until` time (10)\"}\n");
}

/// Who follows is not waited for when the daemon stops, and is told properly that this was all.
#[tokio::test]
async fn following_ends_with_the_daemon() {
    let journal = journal();
    let house = House::serve(server::without_rooms(&journal));
    let mut client = house.connect().await;
    client.write_all(b"GET /events?since=1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    let mut rest = String::new();
    let (_, heard) = tokio::join!(house.stop(), client.read_to_string(&mut rest));
    heard.unwrap();
    assert_eq!(rest, "0\r\n\r\n");
}
