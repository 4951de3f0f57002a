//! Owns how the partner answers: bodies that say, in the form that the profile's grammar reads, what
//! became of the items.
//!
//! It must never say what the grammar has no place for. The surprise: a partner whose answers speak
//! of no single item refuses the whole request.

use schemas::profile::{Holds, ItemList, Meaning, Operation, Profile, StatusRange};
use serde_json::{Map, Value};

/// Not one of the items is taken, since one of them is wrong.
const REFUSED: u16 = 400;

/// What an operation's answers can say.
#[derive(Clone, Debug)]
pub(super) struct Speech {
    status: u16,
    base: Value,
    operation: Operation,
    rejects: Option<Entry>,
    retries: Option<Entry>,
    refused: u16,
    word: String,
}

/// How a failed item is told.
#[derive(Clone, Debug)]
struct Entry {
    list: usize,
    code: Option<String>,
}

/// An item that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// Its place in the request.
    pub(super) at: usize,
    /// What the answer names it by.
    pub(super) name: String,
    /// Whether it may be sent again.
    pub(super) is_retry: bool,
}

impl Speech {
    /// What answers to `operation` can say.
    pub(super) fn of(profile: &Profile, operation: &Operation) -> Self {
        let hint = profile.simulator.as_ref();
        let word = hint.map_or_else(|| "invalid".to_owned(), |hint| hint.rejected.clone());
        let again = hint.and_then(|hint| hint.retry.clone());
        let refuses = operation
            .answer
            .status
            .iter()
            .find_map(|range| match range {
                (StatusRange::Exactly(status), Meaning::Rejected) => Some(*status),
                (StatusRange::Exactly(_) | StatusRange::Class(_), _) => None,
            });
        let lists = &operation.answer.lists;
        let entry = |entry_of: &dyn Fn(&ItemList) -> Option<Option<String>>| {
            lists.iter().enumerate().find_map(|(list, said)| {
                let code = entry_of(said)?;
                Some(Entry { list, code })
            })
        };
        Self {
            status: hint.map_or(200, |hint| hint.status),
            base: hint.map_or(Value::Null, |hint| hint.answer.clone()),
            rejects: entry(&|list| rejecting(list, &word)),
            retries: entry(&|list| retrying(list, again.as_deref())),
            refused: refuses.unwrap_or(REFUSED),
            operation: operation.clone(),
            word,
        }
    }

    /// Whether an answer can say that single items are refused.
    pub(super) fn can_reject(&self) -> bool {
        self.rejects.is_some()
    }

    /// Whether an answer can say that single items may be sent again.
    pub(super) fn can_retry(&self) -> bool {
        self.retries.is_some()
    }

    /// Whether an answer counts what was received.
    pub(super) fn can_miss(&self) -> bool {
        self.operation.answer.received.is_some()
    }

    /// The answer to a request of `sent` items of which these failed and `missing` never came.
    pub(super) fn items(&self, sent: &[String], failed: &[Failed], missing: usize) -> (u16, Value) {
        let mut body = object(self.base.clone());
        for (number, list) in self.operation.answer.lists.iter().enumerate() {
            if list.holds == Holds::Each {
                for (at, name) in sent.iter().enumerate() {
                    let failure = failed.iter().find(|failed| failed.at == at);
                    self.push(&mut body, list, (at, name), failure);
                }
                continue;
            }
            let here = failed.iter().filter(|failed| {
                let entry = self.entry(failed.is_retry);
                entry.is_some_and(|entry| entry.list == number)
            });
            for failure in here {
                self.push(&mut body, list, (failure.at, &failure.name), Some(failure));
            }
        }
        let grammar = &self.operation.answer;
        let taken = sent.len().saturating_sub(missing);
        let counts = [
            (&grammar.received, taken),
            (&grammar.accepted, taken.saturating_sub(failed.len())),
            (&grammar.rejected, failed.len()),
        ];
        for (pointer, count) in counts {
            if let Some(pointer) = pointer {
                set(&mut body, pointer.as_str(), Value::from(count));
            }
        }
        (self.status, body)
    }

    /// The answer that refuses everything.
    pub(super) fn refusal(&self) -> (u16, Value) {
        (self.refused, message(&self.word))
    }

    fn entry(&self, is_retry: bool) -> Option<&Entry> {
        let entry = if is_retry {
            &self.retries
        } else {
            &self.rejects
        };
        entry.as_ref()
    }

    fn push(
        &self,
        body: &mut Value,
        list: &ItemList,
        (at, name): (usize, &str),
        failure: Option<&Failed>,
    ) {
        let said = failure.and_then(|failure| self.entry(failure.is_retry));
        let code = said.and_then(|entry| entry.code.clone());
        let is_object = body.pointer(list.at.as_str()).is_some_and(Value::is_object);
        if is_object {
            let code = code.unwrap_or_else(|| self.word.clone());
            let entry = format!("{}/{}", list.at.as_str(), escaped(name));
            set(body, &entry, Value::from(code));
            return;
        }
        let entry = entry(list, (at, name), code, failure.is_some());
        if body
            .pointer(list.at.as_str())
            .is_none_or(|at| !at.is_array())
        {
            set(body, list.at.as_str(), Value::Array(Vec::new()));
        }
        let entries = body.pointer_mut(list.at.as_str());
        if let Some(entries) = entries.and_then(Value::as_array_mut) {
            entries.push(entry);
        }
    }
}

fn entry(
    list: &ItemList,
    (at, name): (usize, &str),
    code: Option<String>,
    has_failed: bool,
) -> Value {
    let mut entry = Value::Object(Map::new());
    if let Some(success) = &list.success {
        let value = match (has_failed, success.values.first()) {
            (false, value) => value.cloned().unwrap_or_default(),
            (true, Some(Value::Bool(good))) => Value::Bool(!good),
            (true, _) => Value::from("failed"),
        };
        set(&mut entry, success.at.as_str(), value);
    }
    if let Some(index) = &list.index {
        set(&mut entry, index.as_str(), Value::from(at));
    }
    if let (Some(pointer), Some(code)) = (&list.code, code) {
        set(&mut entry, pointer.as_str(), Value::from(code));
    }
    if let Some(id) = &list.id {
        set(&mut entry, id.as_str(), Value::from(name));
    }
    entry
}

/// The code of an entry that refuses an item for good, where `list` can hold one.
fn rejecting(list: &ItemList, word: &str) -> Option<Option<String>> {
    if list.success.is_none() && list.holds == Holds::Each {
        return None;
    }
    let is_final = |code: &str| list.retryable.iter().all(|other| other != code);
    match (&list.code, &list.default_code) {
        (Some(_), _) => is_final(word).then(|| Some(word.to_owned())),
        (None, Some(code)) => is_final(code).then_some(None),
        (None, None) => Some(None),
    }
}

/// The code of an entry by which an item may be sent again, where `list` can hold one.
fn retrying(list: &ItemList, word: Option<&str>) -> Option<Option<String>> {
    match (&list.code, &list.default_code) {
        (Some(_), _) => {
            let named = list
                .retryable
                .iter()
                .find(|code| Some(code.as_str()) == word);
            let code = named.or(list.retryable.first())?;
            Some(Some(code.clone()))
        }
        (None, Some(code)) => list.retryable.contains(code).then_some(None),
        (None, None) => None,
    }
}

/// A body that says only this.
pub(super) fn message(text: &str) -> Value {
    Value::Object(Map::from_iter([("message".to_owned(), Value::from(text))]))
}

/// An object: what was one, else an empty one.
pub(super) fn object(value: Value) -> Value {
    if value.is_object() {
        value
    } else {
        Value::Object(Map::new())
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Puts a value where a pointer says, and makes what is on the way: arrays where it counts.
pub(super) fn set(value: &mut Value, pointer: &str, new: Value) {
    let mut at = value;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        at = match (token.parse::<usize>(), at) {
            (Ok(index), Value::Array(items)) => {
                // No grammar counts far: what is beyond is put at the end.
                if items.len() <= index {
                    items.push(Value::Null);
                }
                let last = items.len().saturating_sub(1);
                match items.get_mut(index.min(last)) {
                    Some(item) => item,
                    None => return,
                }
            }
            (Ok(0), at @ Value::Null) => {
                *at = Value::Array(vec![Value::Null]);
                match at.get_mut(0) {
                    Some(item) => item,
                    None => return,
                }
            }
            (_, at) => {
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                match at.as_object_mut() {
                    Some(members) => members.entry(token).or_insert(Value::Null),
                    None => return,
                }
            }
        };
    }
    *at = new;
}

#[cfg(test)]
mod tests {
    use schemas::profile::{ItemVerdict, Judged, READY, judge};
    use serde_json::json;

    use super::*;

    #[test]
    fn pointers_make_what_is_on_the_way() {
        let mut value = json!({"a": {"b": 1}});
        set(&mut value, "/a/c/0/d", json!(2));
        set(&mut value, "/a/c/0/e", json!(3));
        set(&mut value, "/x~1y/0", json!(4));
        set(&mut value, "/a/b/f", json!(5));
        let want = json!({"a": {"b": {"f": 5}, "c": [{"d": 2, "e": 3}]}, "x/y": [4]});
        assert_eq!(value, want);
        set(&mut value, "", json!(0));
        assert_eq!(value, json!(0));
    }

    /// What the simulator says is what the grammar reads, for every profile and operation.
    #[test]
    fn answers_are_read_as_they_were_meant() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut told = 0;
        for (name, file) in READY {
            let profile = Profile::from_yaml(file).unwrap();
            for (kind, operation) in profile
                .operations
                .all()
                .filter(|(kind, _)| kind.has_members())
            {
                let speech = Speech::of(&profile, operation);
                let verdicts = |failed: &[Failed], missing| {
                    let (status, body) = speech.items(&names, failed, missing);
                    let body = body.to_string();
                    match judge(&operation.answer, status, body.as_bytes(), &ids) {
                        Judged::Items(items) => items,
                        Judged::Whole(whole) => {
                            assert_eq!(whole, Some(Meaning::Delivered), "{name} {kind} {body}");
                            vec![ItemVerdict::Delivered; 3]
                        }
                    }
                };
                assert_eq!(
                    verdicts(&[], 0),
                    vec![ItemVerdict::Delivered; 3],
                    "{name} {kind}"
                );
                for is_retry in [false, true] {
                    let failed = Failed {
                        at: 1,
                        name: "b".to_owned(),
                        is_retry,
                    };
                    if speech.entry(is_retry).is_none() {
                        continue;
                    }
                    let verdicts = verdicts(&[failed], 0);
                    let [one, two, three] = verdicts.as_slice() else {
                        panic!("{verdicts:?}");
                    };
                    let kept = [one, three].map(|verdict| *verdict == ItemVerdict::Delivered);
                    assert_eq!(kept, [true; 2], "{name} {kind}");
                    let is_as_meant = match two {
                        ItemVerdict::Retry(_) => is_retry,
                        ItemVerdict::Rejected(_) => !is_retry,
                        ItemVerdict::Delivered | ItemVerdict::Unknown => false,
                    };
                    assert!(is_as_meant, "{name} {kind} {two:?}");
                    told += 1;
                }
                if speech.can_miss() {
                    assert!(
                        verdicts(&[], 1).contains(&ItemVerdict::Unknown),
                        "{name} {kind}"
                    );
                }
                let (status, body) = speech.refusal();
                let body = body.to_string();
                let judged = judge(&operation.answer, status, body.as_bytes(), &ids);
                assert_eq!(
                    judged,
                    Judged::Whole(Some(Meaning::Rejected)),
                    "{name} {kind}"
                );
            }
        }
        assert!(told > 12, "{told}");
    }
}
