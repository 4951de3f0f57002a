//! The partner without a port: what it takes, refuses and holds, in its own time.

use std::collections::BTreeSet;

use schemas::profile::OperationKind;
use serde_json::{Value, json};

use super::*;

const SECOND: u64 = 1_000_000;

fn partner(profile: &str, faults: Faults) -> Partner {
    let profile = Profile::from_yaml(ready(profile).unwrap()).unwrap();
    Partner::new(profile, faults, true).unwrap_or_else(|error| panic!("{error:#}"))
}

fn ask(partner: &mut Partner, at: u64, request: (&str, &str), body: &Value) -> Outcome {
    let (method, target) = request;
    let body = body.to_string();
    let ask = Ask {
        method,
        target,
        body: body.as_bytes(),
    };
    let outcome = partner.take(at, &ask);
    partner.leave();
    outcome
}

#[track_caller]
fn reply(partner: &mut Partner, at: u64, request: (&str, &str), body: &Value) -> Reply {
    match ask(partner, at, request, body) {
        Outcome::Reply(reply) => reply,
        Outcome::Drop => panic!("no answer"),
    }
}

fn members(ids: impl IntoIterator<Item = u32>) -> Value {
    let ids = ids.into_iter();
    json!({"members": ids.map(|id| json!({"id": format!("u-{id}")})).collect::<Value>()})
}

const ADD: (&str, &str) = ("POST", "/lists/1000001/members");
const REMOVE: (&str, &str) = ("POST", "/lists/1000001/members/remove");

fn generic(faults: Faults) -> Partner {
    let mut partner = partner("generic-50", faults);
    let made = reply(&mut partner, 0, ("POST", "/lists"), &json!({"name": "x"}));
    assert_eq!(made.body, json!({"id": "1000001"}));
    partner
}

#[test]
fn operations_are_recognised_by_method_path_and_body() {
    let check = |profile: &str, request: (&str, &str), body: Value, want: Option<OperationKind>| {
        let partner = partner(profile, Faults::default());
        let body = body.to_string();
        let found = partner.routes().find(request.0, request.1, body.as_bytes());
        let kind = found.map(|found| found.route.kind);
        assert_eq!(kind, want, "{profile} {request:?} {body}");
    };
    let (add, remove) = (Some(OperationKind::Add), Some(OperationKind::Remove));
    check("generic-50", ADD, members([1]), add);
    check("generic-50", REMOVE, members([1]), remove);
    check(
        "generic-50",
        ("PUT", "/lists/1/members"),
        members([1]),
        None,
    );
    let delete = Some(OperationKind::DeleteList);
    check("generic-50", ("DELETE", "/lists/1"), Value::Null, delete);
    // One path for both: told apart by what the bodies always hold, whatever the settings are.
    let track = |attribute: Value| json!({"attributes": [attribute]});
    let braze = ("POST", "/users/track");
    let body = track(json!({"external_id": "a", "age": 5, "groups": {"add": ["gold"]}}));
    check("braze-users-track", braze, body, add);
    let body = track(
        json!({"external_id": "a", "_update_existing_only": true, "groups": {"remove": ["gold"]}}),
    );
    check("braze-users-track", braze, body, remove);
    let hubspot = ("POST", "/crm/v3/objects/contacts/batch/upsert");
    let contact = |says: &str| json!({"inputs": [{"idProperty": "email", "id": "a@b.c", "properties": {"gold": says}}]});
    check("hubspot", hubspot, contact("false"), remove);
    let status = ("POST", "/subscription/status/set");
    let body = |state: &str| json!({"subscription_group_id": "g", "subscription_state": state, "external_id": ["a"]});
    check("braze-subscription-status", status, body("subscribed"), add);
    check(
        "braze-subscription-status",
        status,
        body("unsubscribed"),
        remove,
    );
    let google = ("POST", "/v23/customers/1/userLists:mutate");
    let body = json!({"operations": [{"remove": "customers/1/userLists/7"}]});
    check("google-customer-match", google, body, delete);
    let meta = |method| (method, "/v24.0/7/users");
    let people =
        json!({"payload": {"schema": ["EXTERN_ID", "EMAIL", "PHONE"], "data": [["u", "e", ""]]}});
    check("meta-custom-audiences", meta("POST"), people.clone(), add);
    check("meta-custom-audiences", meta("DELETE"), people, remove);
}

#[test]
fn it_holds_what_was_added_less_what_was_removed() {
    let mut partner = generic(Faults::default());
    let taken = reply(&mut partner, 0, ADD, &members(0..50));
    assert_eq!((taken.status, taken.body), (200, json!({"received": 50})));
    let taken = reply(&mut partner, 0, ADD, &members(40..60));
    assert_eq!(taken.body, json!({"received": 20}));
    reply(&mut partner, 0, REMOVE, &members(0..30));
    reply(&mut partner, 0, REMOVE, &members(29..31));
    assert_eq!(partner.count("1000001"), 29);
    let stats = &partner.stats;
    assert_eq!((stats.added, stats.added_again), (60, 10));
    assert_eq!((stats.removed, stats.removed_again), (31, 1));
    assert_eq!(stats.operations.get(&OperationKind::Add), Some(&2));
    let gone = reply(&mut partner, 0, ("DELETE", "/lists/1000001"), &Value::Null);
    assert_eq!(gone.status, 200);
    assert_eq!(reply(&mut partner, 0, ADD, &members(0..1)).status, 404);
}

#[test]
fn what_the_api_does_not_take_is_refused_whole() {
    let mut partner = generic(Faults::default());
    let too_long = json!({"members": [{"id": "x".repeat(1 << 20)}]});
    for (body, status) in [
        (members(0..51), 400),
        (json!({"people": []}), 400),
        (json!({"members": {}}), 400),
        (too_long, 413),
    ] {
        assert_eq!(reply(&mut partner, 0, ADD, &body).status, status);
    }
    assert_eq!(
        reply(&mut partner, 0, ("POST", "/x"), &members(0..1)).status,
        404
    );
    assert_eq!((partner.count("1000001"), partner.stats.wrong), (0, 5));
    // An item without an id is the only one that is refused.
    let nameless = json!({"members": [{"id": "a"}, {"name": "b"}]});
    let told = reply(&mut partner, 0, ADD, &nameless);
    let want = json!({"failed": [{"index": 1, "code": "invalid"}], "received": 2});
    assert_eq!((told.status, told.body), (200, want));
}

#[test]
fn limits_hold_and_a_refused_request_does_not_count() {
    let mut partner = generic(Faults::default());
    // One was spent on making the list.
    for number in 1..1_000 {
        assert_eq!(reply(&mut partner, 0, ADD, &members([number])).status, 200);
    }
    for _ in 0..3 {
        let told = reply(&mut partner, SECOND - 1, ADD, &members([0]));
        assert_eq!((told.status, told.retry_after), (429, Some(1)));
    }
    assert_eq!(reply(&mut partner, SECOND, ADD, &members([0])).status, 200);
    assert_eq!(
        (partner.stats.limited, partner.count("1000001")),
        (3, 1_000)
    );
    // Sixteen at once.
    let body = members([1]).to_string();
    let ask = Ask {
        method: ADD.0,
        target: ADD.1,
        body: body.as_bytes(),
    };
    let outcomes: Vec<Outcome> = (0..17).map(|_| partner.take(3 * SECOND, &ask)).collect();
    let refused =
        |outcome: &&Outcome| matches!(outcome, Outcome::Reply(reply) if reply.status == 429);
    assert_eq!(outcomes.iter().filter(refused).count(), 1);
    partner.faults.no_limits = true;
    let Outcome::Reply(told) = partner.take(3 * SECOND, &ask) else {
        panic!("no answer");
    };
    assert_eq!(told.status, 200);
}

#[test]
fn the_same_members_are_refused_always() {
    let faults = Faults {
        reject: "20%".parse().unwrap(),
        seed: 3,
        no_limits: true,
        ..Faults::default()
    };
    let refused = |size: u32| -> BTreeSet<String> {
        let mut partner = generic(faults);
        let mut refused = BTreeSet::new();
        for from in (0..1_000).step_by(size as usize) {
            let told = reply(&mut partner, 0, ADD, &members(from..from + size));
            let failed = told.body.get("failed").and_then(Value::as_array);
            for entry in failed.into_iter().flatten() {
                assert_eq!(entry.get("code"), Some(&json!("invalid")));
                let index = entry.get("index").and_then(Value::as_u64).unwrap();
                refused.insert(format!("u-{}", u64::from(from) + index));
            }
        }
        assert_eq!(partner.count("1000001"), 1_000 - refused.len() as u64);
        assert_eq!(partner.stats.rejected, refused.len() as u64);
        refused
    };
    let by_fifty = refused(50);
    assert!((100..300).contains(&by_fifty.len()), "{}", by_fifty.len());
    assert_eq!(by_fifty, refused(10));
}

#[test]
fn a_part_that_is_not_taken_is_told_and_not_held() {
    let mut partner = generic(Faults {
        partial: Share::ALL,
        ..Faults::default()
    });
    let told = reply(&mut partner, 0, ADD, &members(0..50));
    let failed = told.body.get("failed").and_then(Value::as_array).unwrap();
    assert!((5..45).contains(&failed.len()), "{}", failed.len());
    assert!(
        failed
            .iter()
            .all(|entry| entry.get("code") == Some(&json!("busy")))
    );
    assert_eq!(partner.count("1000001"), 50 - failed.len() as u64);
    assert_eq!(partner.stats.retry, failed.len() as u64);
    // An API that counts and names nobody who may come again: fewer are received.
    let mut meta = self::partner(
        "meta-custom-audiences",
        Faults {
            partial: Share::ALL,
            ..Faults::default()
        },
    );
    meta.make_list("7");
    let rows: Value = (0..10)
        .map(|id| json!([format!("u-{id}"), "e", "p"]))
        .collect();
    let body = json!({"payload": {"schema": ["EXTERN_ID", "EMAIL", "PHONE"], "data": rows}});
    let told = reply(&mut meta, 0, ("POST", "/v24.0/7/users"), &body);
    assert_eq!(told.body.get("num_received"), Some(&json!(5)));
    assert_eq!(meta.count("7"), 5);
}

#[test]
fn a_dropped_request_is_carried_out_or_not() {
    let mut partner = generic(Faults::default());
    partner.faults = Faults {
        drop: Share::ALL,
        no_limits: true,
        seed: 1,
        ..Faults::default()
    };
    for id in 0..100 {
        let outcome = ask(&mut partner, 0, ADD, &members([id]));
        if matches!(outcome, Outcome::Reply(_)) {
            assert!(partner.count("1000001") > 0);
        }
    }
    let stats = partner.stats.clone();
    assert!(
        stats.dropped_before > 20 && stats.dropped_after > 5,
        "{stats:?}"
    );
    assert_eq!(partner.count("1000001"), 100 - stats.dropped_before);
}

#[test]
fn members_of_a_job_are_there_when_it_is_done() {
    let mut klaviyo = partner("klaviyo", Faults::default());
    let list = json!({"data": {"type": "list", "attributes": {"name": "x"}}});
    reply(&mut klaviyo, 0, ("POST", "/api/lists"), &list);
    let profile = json!({"type": "profile", "attributes": {"email": "a@b.c"}});
    let body = json!({"data": {
        "type": "profile-bulk-import-job",
        "attributes": {"profiles": {"data": [profile]}},
        "relationships": {"lists": {"data": [{"type": "list", "id": "1000001"}]}},
    }});
    let add = ("POST", "/api/profile-bulk-import-jobs");
    let told = reply(&mut klaviyo, 0, add, &body);
    assert_eq!(told.status, 202);
    assert_eq!(told.body.pointer("/data/id"), Some(&json!("job-1")));
    let poll = ("GET", "/api/profile-bulk-import-jobs/job-1");
    let state = |partner: &mut Partner, at| {
        let told = reply(partner, at, poll, &Value::Null);
        told.body.pointer("/data/attributes/status").cloned()
    };
    assert_eq!(state(&mut klaviyo, SECOND), Some(json!("running")));
    assert_eq!(klaviyo.count("1000001"), 0);
    assert_eq!(state(&mut klaviyo, 2 * SECOND), Some(json!("complete")));
    assert_eq!(klaviyo.count("1000001"), 1);
    let unknown = ("GET", "/api/profile-bulk-import-jobs/job-9");
    assert_eq!(
        reply(&mut klaviyo, 9 * SECOND, unknown, &Value::Null).status,
        404
    );
}

#[test]
fn a_profile_may_leave_out_what_the_simulator_finds_by_itself() {
    let text = ready("generic-50").unwrap();
    let (text, _) = text.split_once("simulator:").unwrap();
    let profile = Profile::from_yaml(text).unwrap();
    let mut partner = Partner::new(profile, Faults::default(), false).unwrap();
    partner.make_list("1000001");
    reply(&mut partner, 0, ADD, &members(0..3));
    reply(&mut partner, 0, REMOVE, &members(0..1));
    assert_eq!(partner.count("1000001"), 2);
    // Members that a body holds nowhere one by one.
    let hidden = text.replace("{{ members|tojson }}", "{{ members|length }}");
    let profile = Profile::from_yaml(&hidden).unwrap();
    let error = Partner::new(profile, Faults::default(), false).unwrap_err();
    assert!(
        format!("{error:#}").contains("`simulator.items` must say"),
        "{error:#}"
    );
}

#[test]
fn profiles_are_named_or_files() {
    assert_eq!(source("generic-50").unwrap().0, "generic-50");
    let error = source("generic-51").unwrap_err();
    assert!(error.is::<Usage>() && error.to_string().contains("generic-50"));
    assert!(source("./no-such-file.yaml").unwrap_err().is::<Usage>());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.yaml");
    std::fs::write(&file, "profile: 1").unwrap();
    let (name, text) = source(file.to_str().unwrap()).unwrap();
    let told = told(&name, &Profile::from_yaml(&text).unwrap_err()).to_string();
    assert!(told.contains("mine.yaml: /limits is required"), "{told}");
}
