//! Profiles that work, profiles that do not, and what is said of them.

use std::collections::BTreeSet;

use schemas::profile::{READY, ready};

use super::client::other;
use super::*;

fn report(text: &str) -> (bool, String) {
    let profile = Profile::from_yaml(text).unwrap_or_else(|faults| panic!("{faults:?}"));
    let findings = check(&profile).unwrap_or_else(|error| panic!("{error:#}"));
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    (findings.iter().all(Finding::is_good), lines.join("\n"))
}

#[test]
fn every_ready_profile_works_against_its_simulator() {
    for (id, text) in READY {
        let (is_good, report) = report(text);
        assert!(is_good, "{id}:\n{report}");
    }
}

#[test]
fn a_report_says_what_was_sent_and_how_it_was_read() {
    let (_, report) = report(ready("generic-50").unwrap());
    for part in [
        "✓ create_list: list 1000001\n    POST /lists",
        "✓ add: 2 members sent, 2 confirmed and 2 held\n    POST /lists/1000001/members",
        "members refused: ",
        "members not taken now: ",
        "✓ beyond the limit: 429, Retry-After 1: sent later",
        "✓ remove: 2 members sent, 2 confirmed and 2 gone",
        "✓ delete_list: answered 200: taken",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
}

#[test]
fn what_does_not_work_is_told() {
    let check = |changes: &[(&str, &str)], want: &str| {
        let mut text = ready("generic-50").unwrap().to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let (is_good, report) = report(&text);
        assert!(!is_good && report.contains(want), "{want}\n{report}");
    };
    // Nobody learns the list's id.
    let unsaid = ("capture: {list: /id}", "capture: {}");
    check(&[unsaid], "captures no `list`");
    // A limit that is read as a refusal.
    let limit = (
        r#"status: {"400": rejected}"#,
        r#"status: {"4xx": rejected}"#,
    );
    check(&[limit], "✗ beyond the limit");
    // What the partner always says is read as "not now".
    let always = ("items: /members", "items: /members\n  answer: {ok: true}");
    let busy = (
        "answer: *items",
        "answer: {retry: {at: /ok, values: [true]}}",
    );
    check(
        &[always, busy],
        "✗ remove: 2 members sent, answered 200: to be sent again and 2 gone",
    );
}

#[test]
fn a_removal_by_other_ids_is_pointed_out() {
    let (is_good, report) = report(ready("klaviyo").unwrap());
    assert!(is_good && report.contains("named by other ids"), "{report}");
    // One member alone of two: nobody can tell where members are.
    let text = ready("generic-50").unwrap();
    let text = text.replace("{{ members|tojson }}", "[{{ members|first|tojson }}]");
    let error = check(&Profile::from_yaml(&text).unwrap()).unwrap_err();
    assert!(
        format!("{error:#}").contains("holds no members"),
        "{error:#}"
    );
}

#[test]
fn members_differ_in_every_text() {
    for text in ["ada@example.com", "+41 44 123 45 67", "u-1", "01GDDKASAP"] {
        let all: BTreeSet<String> = (0..20_000).map(|number| other(text, number)).collect();
        assert_eq!(all.len(), 20_000, "{text}");
    }
}
