//! Where a transform that would not end is stopped.

use super::*;

#[test]
fn bombs_end_in_bounded_time() {
    let items = (0..2_000).map(|at| json!({"n": at})).collect::<Vec<_>>();
    let text = json!({ "l": items, "t": "x".repeat(60_000) }).to_string();
    let event = event_of(Box::leak(text.into_boxed_str()));
    let loops = "{% for a in data.l %}{% for b in data.l %}{% for c in data.l %}x{% endfor %}{% endfor %}{% endfor %}";
    let grows: String =
        "{% set x = data.t %}".to_owned() + &"{% set x = x|concat(x) %}".repeat(40) + "{{ x }}";
    let written = "{% for a in data.l %}{{ data.t }}{% endfor %}";
    let hashed = "{% for a in data.l %}{{ data|tojson|sha256 }}{% endfor %}";
    for (template, part) in [
        (loops, "fuel"),
        (&grows, "filters have made more"),
        (written, "made more than"),
        (hashed, "filters have made more"),
    ] {
        let failure = run(
            &json!({"steps": [{"compute": {"/x": {"text": template}}}]}),
            &event,
        );
        let failure = failure.unwrap_err();
        assert!(failure.detail.contains(part), "{failure}");
    }
    // Many small ones cost no more than one.
    let some = "{% for a in data.l %}{% if a.n == -1 %}x{% endif %}{% endfor %}";
    let many: Map = (0..60)
        .map(|at| (format!("/{at}"), json!({"text": some})))
        .collect();
    let failure = run(&json!({"steps": [{"compute": many}]}), &event).unwrap_err();
    assert!(failure.detail.contains("too many steps"), "{failure}");
    let large: Map = (0..30)
        .map(|at| (format!("/{at}"), json!({"text": "{{ data.t }}"})))
        .collect();
    let failure = run(&json!({"steps": [{"compute": large}]}), &event).unwrap_err();
    assert!(failure.detail.contains("made more than"), "{failure}");
}
