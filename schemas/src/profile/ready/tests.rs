//! The profiles that come with the program, against requests and answers as the partners document
//! them (`profiles/fixtures`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::*;
use crate::profile::template::Compiled;
use crate::profile::{
    Chunk, ChunkData, ItemVerdict, JobState, Judged, OperationKind, Profile, judge,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    chunk: Asked,
    request: Request,
    answers: Vec<Answer>,
    #[serde(default)]
    states: Vec<String>,
}

/// A chunk whose members are as they were uploaded.
#[derive(Deserialize)]
struct Asked {
    operation: OperationKind,
    list: Value,
    variables: Map<String, Value>,
    members: Vec<Map<String, Value>>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    body: Value,
    verdicts: String,
    #[serde(default)]
    captured: BTreeMap<String, Value>,
}

fn profile(id: &str) -> Profile {
    Profile::from_yaml(ready(id).unwrap()).unwrap_or_else(|faults| panic!("{id}: {faults:#?}"))
}

fn fixtures(id: &str) -> Vec<(String, Fixture)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../profiles/fixtures")
        .join(id);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{id}: {error}"));
    let mut found: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.display().to_string();
            let text = fs::read_to_string(path).unwrap();
            let fixture = serde_json::from_str(&text);
            (
                name.clone(),
                fixture.unwrap_or_else(|error| panic!("{name}: {error}")),
            )
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

fn chunk(profile: &Profile, asked: &Asked) -> Chunk {
    let members = asked
        .members
        .iter()
        .map(|member| profile.prepare(member.clone()).unwrap());
    let raw: Vec<Box<RawValue>> = members
        .map(|member| to_raw_value(&member).unwrap())
        .collect();
    let data = ChunkData {
        operation: asked.operation,
        list: asked.list.clone(),
        variables: asked.variables.clone(),
        members: raw.iter().map(AsRef::as_ref).collect(),
    };
    Chunk::read(&Bytes::from(data.encode())).unwrap()
}

/// `d` delivered, `r` retry, `x` rejected, `?` unknown.
fn letters(judged: &Judged) -> String {
    let letter = |item: &ItemVerdict| match item {
        ItemVerdict::Delivered => 'd',
        ItemVerdict::Retry(_) => 'r',
        ItemVerdict::Rejected(_) => 'x',
        ItemVerdict::Unknown => '?',
    };
    match judged {
        Judged::Whole(None) => "as the status".to_owned(),
        Judged::Whole(Some(meaning)) => format!("whole {meaning:?}"),
        Judged::Items(items) => items.iter().map(letter).collect(),
    }
}

#[test]
fn requests_and_answers_are_as_the_partners_document_them() {
    for (id, _) in READY {
        let profile = profile(id);
        let compiled = Compiled::new(profile.operations.clone()).unwrap();
        for (name, fixture) in fixtures(id) {
            let chunk = chunk(&profile, &fixture.chunk);
            let rendered = compiled
                .render(&chunk, 1 << 20)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let body = rendered.body.as_deref().map(|body| {
                serde_json::from_slice(body).unwrap_or_else(|error| {
                    panic!("{name}: {error}: {}", String::from_utf8_lossy(body))
                })
            });
            let request = Request {
                method: rendered.method.as_str().to_owned(),
                path: rendered.path,
                headers: rendered.headers.into_iter().collect(),
                body: body.unwrap_or_default(),
            };
            assert_eq!(request, fixture.request, "{name}");
            let operation = compiled.operation(chunk.operation).unwrap();
            let ids = chunk.ids(operation.answer.item_id.as_ref());
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            for answer in &fixture.answers {
                let body = answer.body.to_string();
                let judged = judge(&operation.answer, answer.status, body.as_bytes(), &ids);
                assert_eq!(letters(&judged), answer.verdicts, "{name}: {body}");
                for (what, value) in &answer.captured {
                    let captured = operation.captured(&answer.body, 4_096);
                    assert_eq!(captured.get(what), Some(value), "{name}: {what}");
                }
            }
            if let Some(poll) = &profile.operations.poll {
                for (answer, state) in fixture.answers.iter().zip(&fixture.states) {
                    let said = match poll.state(&answer.body) {
                        JobState::Running => "running",
                        JobState::Done => "done",
                        JobState::Failed => "failed",
                    };
                    assert_eq!(said, state, "{name}: {}", answer.body);
                }
            }
        }
    }
}

#[test]
fn every_ready_profile_is_named_by_its_file_and_has_fixtures_for_its_members() {
    for (id, _) in READY {
        let profile = profile(id);
        assert_eq!(profile.profile, id);
        let fixtures = fixtures(id);
        let has = |kind| {
            fixtures
                .iter()
                .any(|(_, fixture)| fixture.chunk.operation == kind)
        };
        assert!(
            has(OperationKind::Add) && has(OperationKind::Remove),
            "{id}"
        );
        let unsaid = profile.operations.all().find(|(kind, _)| {
            matches!(
                kind,
                OperationKind::Poll | OperationKind::StartJob | OperationKind::RunJob
            ) && !has(*kind)
        });
        assert!(unsaid.is_none(), "{id}: no fixture of {unsaid:?}");
        assert!(!profile.limits.rate_windows().is_empty() || profile.limits.concurrency.is_some());
    }
}

#[test]
fn no_file_makes_reading_panic() {
    let file = ready("generic-50").unwrap().as_bytes();
    bolero::check!()
        .with_iterations(300)
        .for_each(|input: &[u8]| {
            let Some((first, rest)) = input.split_first() else {
                return;
            };
            let at = usize::from(*first) * 16 % file.len();
            let behind = (at + rest.len()).min(file.len());
            let spliced = [&file[..at], rest, &file[behind..]].concat();
            for bytes in [rest, &spliced] {
                if let Err(faults) = Profile::from_yaml(&String::from_utf8_lossy(bytes)) {
                    assert!(!faults.0.is_empty());
                }
            }
        });
}

#[test]
fn windows_are_those_of_an_endpoint_that_counts_a_chunk_as_one() {
    let windows = |windows: &str| {
        let file = ready("generic-50").unwrap();
        let file = file.replace("[{requests: 1000, seconds: 1}]", windows);
        let limits = Profile::from_yaml(&file).unwrap().limits;
        let windows = limits.rate_windows().into_iter();
        windows
            .map(|window| (window.count.get(), window.per_ms.get()))
            .collect::<Vec<_>>()
    };
    assert_eq!(windows("[{requests: 7, seconds: 3}]"), [(7, 3_000)]);
    assert_eq!(
        windows("[{items: 5000, seconds: 60, counted: fixed}]"),
        [(100, 60_000)]
    );
    assert_eq!(windows("[{items: 10, seconds: 1}]"), [(1, 1_000)]);
}

#[test]
fn the_guides_example_is_a_profile() {
    let guide = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/profiles.md");
    let guide = fs::read_to_string(guide).unwrap();
    let mut blocks = guide.split("```yaml\n").skip(1);
    let mut block = || {
        blocks
            .next()
            .and_then(|text| text.split("```").next())
            .unwrap()
    };
    let file = block();
    let profile = Profile::from_yaml(file).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(profile.items_max(OperationKind::Remove).get(), 100);
    // As the guide says, `add` captures the job's id.
    let with_job = file
        .replace("  remove:\n", "    capture: {job: /id}\n  remove:\n")
        .replace("simulator:", &format!("{}simulator:", block()));
    let profile = Profile::from_yaml(&with_job).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(profile.operations.poll.unwrap().every.get(), 5);
}

#[test]
fn profiles_survive_storage() {
    for (id, _) in READY {
        let profile = profile(id);
        let value = serde_json::to_value(&profile).unwrap();
        assert_eq!(Profile::read(&value).unwrap(), profile, "{id}");
        let text = serde_json::to_string(&profile.operations).unwrap();
        let operations: crate::profile::RequestTemplates = serde_json::from_str(&text).unwrap();
        assert_eq!(operations, profile.operations, "{id}");
    }
}

#[test]
fn a_profiles_faults_are_all_told_with_pointers() {
    let file = |change: &str, to: &str| {
        let text = ready("generic-50").unwrap();
        assert!(text.contains(change), "{change}");
        text.replace(change, to)
    };
    let check = |text: &str, want: &[&str]| {
        let faults = Profile::from_yaml(text).unwrap_err().0;
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, want, "{faults:?}");
    };
    check("a: [", &[""]);
    check("[]", &[""]);
    check(
        "{profile: A b, version: 0, other: 1}",
        &[
            "/other",
            "/title",
            "/documentation",
            "/limits",
            "/operations",
            "/profile",
            "/version",
        ],
    );
    check(&file("items: 50", "items: 0"), &["/limits/items"]);
    check(&file("bytes: 1 MiB", "bytes: 1 TB"), &["/limits/bytes"]);
    check(
        &file("requests: 1000, seconds: 1", "seconds: 1"),
        &["/limits/windows/0"],
    );
    check(
        &file("method: PATCH", "method: STEAL"),
        &["/operations/rename_list/method"],
    );
    check(
        &file("capture: {list: /id}", "capture: {list: id}"),
        &["/operations/create_list/capture/list"],
    );
    check(
        &file("{{ m.id|tojson }}", "{{ m.id|nothing }}"),
        &["/operations/remove/body"],
    );
    check(
        &file("{{ m.id|tojson }}", "{{ m.nothing|tojson }}"),
        &["/operations/remove"],
    );
    check(
        &file("{{ m.id|tojson }}", "{{ m.id ~ m.id }}"),
        &["/operations/remove/body"],
    );
    check(
        &file("{{ m.id|tojson }}", "{{ m.id }}"),
        &["/operations/remove"],
    );
    check(
        &file("{{ m.id|tojson }}", "{% if %}"),
        &["/operations/remove/body"],
    );
    check(
        &file("path: /lists\n", "path: /lists/../x\n"),
        &["/operations/create_list"],
    );
}

#[test]
fn removals_need_no_more_than_is_kept_of_who_left() {
    let file = ready("klaviyo").unwrap();
    let kept = "  - {field: profile_id}\n";
    assert!(file.contains(kept));
    let faults = Profile::from_yaml(&file.replace(kept, "")).unwrap_err();
    let pointers: Vec<&str> = faults
        .0
        .iter()
        .map(|fault| fault.pointer.as_str())
        .collect();
    assert_eq!(pointers, ["/operations/remove"], "{faults:?}");
}
