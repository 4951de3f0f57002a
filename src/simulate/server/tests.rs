//! The port: real requests, dropped connections, and what `/_simulator` tells.

use std::net::Ipv4Addr;

use schemas::profile::{Profile, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::simulate::Share;

struct Running {
    tasks: Tasks,
    address: SocketAddr,
}

async fn start(profile: &str, faults: Faults) -> Running {
    let profile = Profile::from_yaml(ready(profile).unwrap()).unwrap();
    let mut partner = Partner::new(profile, faults, true).unwrap();
    partner.make_list("7");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::bind(any, partner).await.unwrap();
    let address = server.address().unwrap();
    let tasks = Tasks::new("simulate");
    drop(server.serve(&tasks));
    Running { tasks, address }
}

impl Running {
    /// One request on a connection of its own; what came back, to the last byte.
    async fn ask(&self, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A connection that is reset has no more to say.
        stream.read_to_string(&mut answer).await.ok();
        answer
    }

    async fn end(self) {
        self.tasks.cancel();
        self.tasks.finished().await;
    }
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

const MEMBERS: &str = r#"{"members":[{"id":"b","n":1},{"id":"a"}]}"#;
const ADD: &str = "POST /lists/7/members";

#[tokio::test]
async fn members_are_taken_and_told() {
    let running = start("generic-50", Faults::default()).await;
    let answer = running.ask(ADD, MEMBERS).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(body(&answer), json!({"received": 2}));
    let told = body(&running.ask("GET /_simulator/lists/7?members=1", "").await);
    let members =
        json!([{"id": "a", "item": {"id": "a"}}, {"id": "b", "item": {"id": "b", "n": 1}}]);
    assert_eq!((&told["count"], &told["members"]), (&json!(2), &members));
    let short = body(&running.ask("GET /_simulator/lists/7", "").await);
    assert_eq!((&short["ids"], short.get("members")), (&told["ids"], None));
    let lists = body(&running.ask("GET /_simulator/lists", "").await);
    assert_eq!(lists, json!({"7": 2}));
    let stats = body(&running.ask("GET /_simulator/stats", "").await);
    assert_eq!(
        (&stats["requests"], &stats["added"]),
        (&json!(1), &json!(2))
    );
    running.ask("DELETE /_simulator/stats", "").await;
    let stats = body(&running.ask("GET /_simulator/stats", "").await);
    assert_eq!(stats["requests"], json!(0));
    let none = running.ask("GET /_simulator/lists/8", "").await;
    assert!(none.starts_with("HTTP/1.1 404"), "{none}");
    running.end().await;
}

#[tokio::test]
async fn connections_are_dropped_until_that_is_taken_back() {
    let drops = Faults {
        drop: Share::ALL,
        ..Faults::default()
    };
    let running = start("generic-50", drops).await;
    let mut dropped = 0;
    for _ in 0..20 {
        dropped += u32::from(running.ask(ADD, MEMBERS).await.is_empty());
    }
    assert!(dropped > 5, "{dropped}");
    let told = running.ask("PUT /_simulator/faults", r#"{"seed":1}"#).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    let wrong = running.ask("PUT /_simulator/faults", r#"{"drop":7}"#).await;
    assert!(wrong.starts_with("HTTP/1.1 400"), "{wrong}");
    for _ in 0..20 {
        assert!(!running.ask(ADD, MEMBERS).await.is_empty());
    }
    let stats = body(&running.ask("GET /_simulator/stats", "").await);
    let count = |name: &str| stats[name].as_u64().unwrap();
    assert_eq!(
        count("dropped_before") + count("dropped_after"),
        u64::from(dropped)
    );
    running.end().await;
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_told_when_to_come_again() {
    let running = start("iterable", Faults::default()).await;
    let subscribe = r#"{"listId":7,"subscribers":[{"email":"a@b.c"}]}"#;
    let mut limited = None;
    for _ in 0..6 {
        let answer = running.ask("POST /api/lists/subscribe", subscribe).await;
        if answer.starts_with("HTTP/1.1 429") {
            limited = Some(answer);
        } else {
            assert_eq!(body(&answer), json!({"successCount": 1}));
        }
    }
    // Six took less than a second, or the machine is so slow that nothing is to be seen.
    let stats = body(&running.ask("GET /_simulator/stats", "").await);
    assert_eq!(stats["limited"].as_u64().unwrap() > 0, limited.is_some());
    if let Some(limited) = limited {
        assert!(limited.contains("retry-after: 1\r\n"), "{limited}");
    }
    running.end().await;
}

#[tokio::test]
async fn an_api_that_ends_says_so_and_long_bodies_are_not_read() {
    let running = start("klaviyo", Faults::default()).await;
    let answer = running.ask("GET /api/profile-bulk-import-jobs/1", "").await;
    assert!(
        answer.contains("sunset: Fri, 15 Oct 2027 00:00:00 GMT\r\n"),
        "{answer}"
    );
    let long = "x".repeat(7 << 20);
    let answer = running.ask("POST /api/lists", &long).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
    running.end().await;
}
