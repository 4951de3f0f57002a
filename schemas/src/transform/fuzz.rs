//! Fuzz target: whatever a transform and an event are, nothing panics, and what is made is within
//! its bounds.
//!
//! Input is tried as it is, and spliced into a valid transform so that it reaches past its form.

use bytes::Bytes;

use super::{Compiled, OUTPUT_BYTES_MAX, Outcome, Transform};
use crate::event::{Event, Limits};
use crate::profile::template::engine::check_path;

const ITERATIONS: usize = 2_000;
const VALID: &[u8] = br#"{"steps":[{"select":["/a","/l/b"]},{"rename":{"/a":"/b/c"}},{"compute":{"/d":{"value":"data.l[0].b"},
"/e":{"json":"[{% for x in data.l %}{{ x|tojson }}{% endfor %}]"}}},{"set":{"/l/-":1}},{"strip":["/l/0/b"]},{"drop":"data.a == 1"}],
"request":{"path":"/x/{{ data.a }}","query":{"q":"{{ event.subject|default('') }}"}}}"#;
const DATA: &[u8] = br#"{"a":"x","l":[{"b":1.50},{"b":null},2],"o":{"a\u0000":[[]]}}"#;

fn spliced(valid: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((at, rest)) = input.split_first() else {
        return valid.to_vec();
    };
    let at = usize::from(*at) * valid.len() / 256;
    let end = (at + rest.len()).min(valid.len());
    [&valid[..at], rest, &valid[end..]].concat()
}

fn holds(transform: &[u8], event: &Event) {
    let Ok(value) = serde_json::from_slice(transform) else {
        return;
    };
    let Ok(transform) = Transform::read(&value) else {
        return;
    };
    let compiled = Compiled::new(&transform).expect("what is read compiles");
    let first = compiled.run(event);
    assert_eq!(first, compiled.run(event), "the same always");
    if let Ok(Outcome::Made(made)) = first {
        let steps = !transform.steps.is_empty();
        let bytes = made.event.data().map_or(0, Bytes::len);
        assert!(bytes <= OUTPUT_BYTES_MAX || !steps);
        assert_eq!(check_path(&made.path), Ok(()));
        assert_eq!(
            (made.event.id(), made.event.source()),
            (event.id(), event.source())
        );
    }
}

#[test]
fn no_transform_and_no_event_make_it_panic() {
    bolero::check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let event = |data: Vec<u8>| {
                let event = Event::builder("1", "/s", "t").attribute("subject", "é");
                event.untyped_data(Bytes::from(data)).build().unwrap()
            };
            let (spliced_transform, spliced_data) = (spliced(VALID, input), spliced(DATA, input));
            holds(input, &event(DATA.to_vec()));
            holds(&spliced_transform, &event(DATA.to_vec()));
            holds(VALID, &event(spliced_data));
            holds(VALID, &event(input.to_vec()));
            let json = Bytes::copy_from_slice(input);
            if let Ok(event) = crate::codec::json::decode(&json, &Limits::default()) {
                holds(VALID, &event);
            }
        });
}
