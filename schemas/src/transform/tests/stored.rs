//! What is stored of a transform, changed, and shown in the guide.

use super::*;
use crate::codec;
use crate::event::Limits;
use crate::records::ControlObject;
use crate::resources::input::SubscriptionInput;

#[test]
fn what_is_stored_is_read_again() {
    let value = json!({
        "steps": [
            {"select": ["/b", "/a"]}, {"strip": ["/c"]}, {"rename": {"/z": "/y", "/a": "/b"}},
            {"set": {"/k": {"n": [1.5, null]}}},
            {"compute": {"/x": {"value": "data.a", "when": "true"}, "/d": {"text": "t"}}},
            {"attributes": {"subject": null, "x": "1"}}, {"drop": "false"},
        ],
        "request": {"method": "PATCH", "path": "/p", "query": {"q": "1"}, "headers": {"x-a": "b"}},
    });
    let read = transform(&value).unwrap();
    let stored = serde_json::to_string(&read).unwrap();
    assert_eq!(
        stored,
        value.to_string(),
        "in the order in which it was written"
    );
    assert_eq!(serde_json::from_str::<Transform>(&stored).unwrap(), read);
    assert_eq!(
        serde_json::from_str::<Transform>("{}").unwrap(),
        Transform::default()
    );
}

#[test]
fn the_guides_example_does_what_the_guide_says() {
    let guide = include_str!("../../../../docs/transforms.md");
    let block = |from: &str, to: &str| {
        let rest = guide.split(from).nth(1).unwrap();
        rest.split(to).next().unwrap()
    };
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let event = Bytes::from(block("```json\n", "```").to_owned());
    let event = codec::json::decode(&event, &Limits::default()).unwrap();
    let made = made(&parse(block("<<'JSON'\n", "JSON\n")), &event);
    let asked = format!("{:?} /v1{}\n{}", made.method, made.path, data(&made));
    let expected = block("becomes\n\n```\n", "\n```");
    assert_eq!(asked.replacen("Put", "PUT", 1), expected);
}

#[test]
fn a_subscription_of_version_1_keeps_its_transform_for_ever() {
    let stored = include_str!("../../records/fixtures/control-v1-subscription-transform.json");
    let Ok(ControlObject::Subscription(subscription)) = ControlObject::decode(stored.as_bytes())
    else {
        panic!("{stored}");
    };
    let transform = subscription.transform.clone().unwrap();
    assert_eq!((transform.steps.len(), transform.has_request()), (7, true));
    Compiled::new(&transform).unwrap();
    let again = ControlObject::Subscription(subscription).encode();
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap();
    assert_eq!(parse(&again), parse(stored.as_bytes()));
}

#[test]
fn a_change_of_a_transform_replaces_the_whole() {
    let stored = include_str!("../../records/fixtures/control-v1-subscription-transform.json");
    let Ok(ControlObject::Subscription(old)) = ControlObject::decode(stored.as_bytes()) else {
        panic!("{stored}");
    };
    let patched = |patch: &Value| SubscriptionInput::patched(&old, patch);
    assert_eq!(
        patched(&json!({"name": "n"})).unwrap().transform,
        old.transform
    );
    assert_eq!(
        patched(&json!({"transform": null})).unwrap().transform,
        None
    );
    let steps = json!({"steps": [{"attributes": {"subject": null}}]});
    let replaced = patched(&json!({"transform": steps})).unwrap().transform;
    assert_eq!(replaced, Some(Box::new(transform(&steps).unwrap())));
    let Faults(faults) = patched(&json!({"transform": {"steps": [{"drop": "x"}]}})).unwrap_err();
    assert_eq!(faults[0].pointer, "/transform/steps/0/drop");
    let endpoint = old.endpoint.to_string();
    let made = json!({"endpoint": endpoint, "transform": {"request": {"method": "STEAL"}}});
    let Faults(faults) = SubscriptionInput::read(&made).unwrap_err();
    assert_eq!(faults[0].pointer, "/transform/request/method");
}
