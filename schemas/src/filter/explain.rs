//! Owns the explaining of a match: each clause of the filters, what it wanted, what it saw, and why
//! it did not hold.
//!
//! Never has an opinion of its own: whether a clause matched is what matching says. The surprise:
//! clauses behind the one that decided are explained too, though matching never comes to them; only
//! within an expression is what was not evaluated told as such, because that is its semantics (SQ-5).

use serde::Serialize;
use serde_json::Value;

use super::cesql::{self, Expression, Step};
use super::data::{Clause, Clauses, Test};
use super::{Comparison, DATA, Filter, Filters, Found, GLOB, Pattern, Scalar, Slot, Subject};
use crate::event::{AttributeName, Event};

/// Clauses of one explanation; what is more is left out.
pub const CLAUSES_MAX: usize = 1_000;
/// Clauses in each other; what is deeper is left out. As JSON that is two levels each, and readers
/// commonly take 128.
const DEPTH_MAX: usize = 48;
/// The longest text that is shown of an event.
const SHOWN_CHARS_MAX: usize = 256;
/// The most values at one place of data that are shown.
const SHOWN_VALUES_MAX: usize = 8;

/// Why filters, or a part of them, match an event or do not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Where the clause is: a JSON pointer into the filters. Parts of an expression have the
    /// expression's.
    pub pointer: String,
    /// What it is: a dialect and an attribute or a place in data, or a part of an expression.
    pub clause: String,
    /// Whether it matched; none for what is neither true nor false, and for what was not evaluated.
    pub matched: Option<bool>,
    /// What it wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Value>,
    /// What the event has there; none where it has nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Value>,
    /// Why it did not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Explanation>,
}

impl Filters {
    /// Why the event passes these filters or does not.
    #[must_use]
    pub fn explain(&self, event: &Event) -> Explanation {
        let (paths, slots) = self.paths();
        let mut found = Found::default();
        let mut explainer = Explainer {
            subject: Subject::new(event, &paths, &mut found),
            slots: &slots,
            left: CLAUSES_MAX,
            depth: 1,
            pointer: String::new(),
        };
        let matched = self.passes(&mut explainer.subject, &slots);
        let parts = explainer.each(&self.filters);
        let why = (!matched).then(|| failed(&parts));
        Explanation {
            why,
            parts,
            ..explainer.clause("filters", matched)
        }
    }
}

impl Explanation {
    /// How many clauses it has, itself included.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.parts.iter().map(Self::count).sum::<usize>()
    }
}

struct Explainer<'s, 'e> {
    subject: Subject<'e>,
    slots: &'s [Slot],
    /// Clauses that may still be told of.
    left: usize,
    /// Of the clauses that are told of now.
    depth: usize,
    /// Of the clause that is being explained.
    pointer: String,
}

impl Explainer<'_, '_> {
    fn clause(&self, clause: impl Into<String>, matched: bool) -> Explanation {
        Explanation {
            pointer: self.pointer.clone(),
            clause: clause.into(),
            matched: Some(matched),
            wanted: None,
            seen: None,
            why: None,
            parts: Vec::new(),
        }
    }

    /// Explains something one step further down the pointer.
    fn at<T>(&mut self, step: &str, explain: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        let step = step.replace('~', "~0").replace('/', "~1");
        self.pointer.push_str(&step);
        let result = explain(self);
        self.pointer.truncate(length);
        result
    }

    /// Explains as many as may still be told of, each at its step.
    fn some<'f, T: 'f>(
        &mut self,
        all: impl Iterator<Item = (String, &'f T)>,
        explain: impl Fn(&mut Self, &'f T) -> Explanation,
    ) -> Vec<Explanation> {
        let mut explained = Vec::new();
        for (step, one) in all {
            if !self.begin() {
                break;
            }
            explained.push(self.at(&step, |explainer| explain(explainer, one)));
            self.depth -= 1;
        }
        explained
    }

    /// Whether one more clause may be told of, at this depth; if so, it is one step further down.
    fn begin(&mut self) -> bool {
        let may = self.left > 0 && self.depth <= DEPTH_MAX;
        self.left -= usize::from(may);
        self.depth += usize::from(may);
        may
    }

    fn each(&mut self, filters: &[Filter]) -> Vec<Explanation> {
        let steps = filters.iter().enumerate();
        let steps = steps.map(|(index, filter)| (index.to_string(), filter));
        self.some(steps, Self::filter)
    }

    fn filter(&mut self, filter: &Filter) -> Explanation {
        let matched = filter.passes(&mut self.subject, self.slots);
        let (dialect, parts) = match filter {
            Filter::Exact(entries) => ("exact", self.comparisons("exact", entries)),
            Filter::Prefix(entries) => ("prefix", self.comparisons("prefix", entries)),
            Filter::Suffix(entries) => ("suffix", self.comparisons("suffix", entries)),
            Filter::Glob(patterns) => (GLOB, self.patterns(patterns)),
            Filter::Data(clauses) => (DATA, self.data(clauses)),
            Filter::Sql(expression) => {
                return self.at("sql", |it| it.expression(expression, matched));
            }
            Filter::All(filters) => ("all", self.at("all", |it| it.each(filters))),
            Filter::Any(filters) => ("any", self.at("any", |it| it.each(filters))),
            Filter::Not(inner) => {
                let inner = std::iter::once(("not".to_owned(), &**inner));
                ("not", self.some(inner, Self::filter))
            }
        };
        let why = match filter {
            _ if matched => None,
            Filter::Any(_) => Some("none of them matched".to_owned()),
            Filter::Not(_) => Some("what it denies matched".to_owned()),
            Filter::Exact(_)
            | Filter::Prefix(_)
            | Filter::Suffix(_)
            | Filter::Glob(_)
            | Filter::Data(_)
            | Filter::Sql(_)
            | Filter::All(_) => Some(failed(&parts)),
        };
        Explanation {
            why,
            parts,
            ..self.clause(dialect, matched)
        }
    }

    fn comparisons(&mut self, dialect: &str, entries: &[Comparison]) -> Vec<Explanation> {
        let steps = entries.iter();
        let steps = steps.map(|entry| (entry.attribute.as_str().to_owned(), entry));
        self.at(dialect, |it| {
            it.some(steps, |it, entry| {
                let (wanted, seen) = (&*entry.value, it.subject.event().get(&entry.attribute));
                let (matched, why) = match (dialect, seen) {
                    ("exact", Some(seen)) => (seen == wanted, "the value is another"),
                    ("prefix", Some(seen)) => (
                        seen.starts_with(wanted),
                        "the value begins with something else",
                    ),
                    (_, Some(seen)) => {
                        (seen.ends_with(wanted), "the value ends with something else")
                    }
                    (_, None) => (false, MISSING),
                };
                let clause = it.clause(entry.attribute.as_str(), matched);
                compared(clause, (Value::from(wanted), seen, why))
            })
        })
    }

    fn patterns(&mut self, patterns: &[Pattern]) -> Vec<Explanation> {
        let name = |pattern: &Pattern| AttributeName::as_str(&pattern.attribute).to_owned();
        let steps = patterns.iter().map(|pattern| (name(pattern), pattern));
        self.at(GLOB, |it| {
            it.some(steps, |it, pattern| {
                let event = it.subject.event();
                let seen = event.get(&pattern.attribute);
                let why = seen.map_or(MISSING, |_| "the value is not like this");
                let clause = it.clause(name(pattern), pattern.holds(event));
                compared(
                    clause,
                    (Value::from(&*pattern.wildcard.pattern()), seen, why),
                )
            })
        })
    }

    fn data(&mut self, clauses: &[Clause]) -> Vec<Explanation> {
        let steps = clauses.iter();
        let steps = steps.map(|clause| (clause.pointer.to_string(), clause));
        self.at(DATA, |it| it.some(steps, Self::place))
    }

    /// A place in data.
    fn place(&mut self, clause: &Clause) -> Explanation {
        let matched = clause.holds(&mut self.subject, self.slots);
        let wanted = serde_json::to_value(Clauses(std::slice::from_ref(clause)));
        let wanted = wanted
            .ok()
            .and_then(|all| all.get(&*clause.pointer).cloned());
        let explained = Explanation {
            wanted,
            ..self.clause(&*clause.pointer, matched)
        };
        let slot = self.slots.get(usize::from(clause.path));
        let Some(values) = slot.and_then(|slot| self.subject.values(*slot)) else {
            return Explanation {
                why: Some("the data is not a json document".to_owned()),
                ..explained
            };
        };
        let is_present = values.is_present();
        let mut shown: Vec<Value> = values.take(SHOWN_VALUES_MAX).map(value).collect();
        let why = match (is_present, &*clause.tests) {
            _ if matched => None,
            (true, [Test::Exists(false)]) => Some("there is something at this place"),
            (false, _) => Some("there is nothing at this place"),
            (true, _) if shown.is_empty() => Some("what is at this place cannot be compared"),
            (true, _) if shown.len() > 1 => Some("no element passes every test"),
            (true, _) => Some("the value does not pass every test"),
        };
        Explanation {
            seen: match shown.len() {
                0 => None,
                1 => shown.pop(),
                _ => Some(Value::Array(shown)),
            },
            why: why.map(str::to_owned),
            ..explained
        }
    }

    fn expression(&mut self, expression: &Expression, matched: bool) -> Explanation {
        let step = expression.trace(self.subject.event());
        let root = self.step(&step);
        let is_boolean = matches!(step.value, Some(cesql::Value::Boolean(_)));
        let why = match &*step.errors {
            _ if matched => None,
            [] if is_boolean => Some("the expression is false".to_owned()),
            [] => Some("the value is not a boolean".to_owned()),
            errors => Some(errors.join("; ")),
        };
        Explanation {
            clause: "sql".to_owned(),
            matched: Some(matched),
            wanted: Some(Value::from(cut(expression.text()))),
            why,
            ..root
        }
    }

    fn step(&mut self, step: &Step) -> Explanation {
        let mut parts = Vec::new();
        for part in &step.parts {
            if !self.begin() {
                break;
            }
            parts.push(self.step(part));
            self.depth -= 1;
        }
        let (matched, seen) = match &step.value {
            Some(cesql::Value::Boolean(boolean)) => (Some(*boolean), None),
            Some(cesql::Value::Integer(integer)) => (None, Some(Value::from(*integer))),
            Some(cesql::Value::Text(text)) => (None, Some(Value::from(cut(text)))),
            None => (None, None),
        };
        let errors = (!step.errors.is_empty()).then(|| step.errors.join("; "));
        let unevaluated = || "was decided before, and not evaluated".to_owned();
        Explanation {
            matched,
            seen,
            why: errors.or_else(|| step.value.is_none().then(unevaluated)),
            parts,
            ..self.clause(&*step.text, false)
        }
    }
}

const MISSING: &str = "the event has no such attribute";

/// `clause` with what was wanted, what was there, and, where it did not match, why.
fn compared(clause: Explanation, (wanted, seen, why): (Value, Option<&str>, &str)) -> Explanation {
    Explanation {
        wanted: Some(wanted),
        seen: seen.map(|seen| Value::from(cut(seen))),
        why: (clause.matched == Some(false)).then(|| why.to_owned()),
        ..clause
    }
}

fn failed(parts: &[Explanation]) -> String {
    let failed = parts.iter().filter(|part| part.matched != Some(true));
    format!("{} of {} did not match", failed.count(), parts.len())
}

fn value(scalar: Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(boolean) => Value::Bool(boolean),
        // One that no number type holds is shown as it is written.
        Scalar::Number(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(cut(text)))
        }
        Scalar::String(text) => Value::from(cut(text)),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event::builder("1", "/shop/eu", "order.paid.v1")
            .data(
                "application/json",
                r#"{"total":12.5,"items":["a","b"],"none":null}"#,
            )
            .build()
            .unwrap()
    }

    /// `path` leads to a clause by the numbers of the parts.
    #[track_caller]
    fn check(filters: &Value, path: &[usize], expected: &Value) {
        let compiled = Filters::parse(filters).unwrap();
        let root = compiled.explain(&event());
        assert_eq!(root.matched, Some(compiled.matches(&event())), "{filters}");
        let part = path.iter().fold(&root, |part, index| &part.parts[*index]);
        let mut shown = serde_json::to_value(part).unwrap();
        shown.as_object_mut().unwrap().remove("parts");
        assert_eq!(shown, *expected, "{filters}");
    }

    #[test]
    fn each_clause_says_what_it_wanted_what_it_saw_and_why_it_failed() {
        check(
            &json!([]),
            &[],
            &json!({"pointer": "", "clause": "filters", "matched": true}),
        );
        check(
            &json!([{"exact": {"type": "a", "subject": "b"}}]),
            &[],
            &json!({"pointer": "", "clause": "filters", "matched": false,
                "why": "1 of 1 did not match"}),
        );
        check(
            &json!([{"exact": {"type": "a", "subject": "b"}}]),
            &[0, 0],
            &json!({"pointer": "/0/exact/type", "clause": "type", "matched": false,
                "wanted": "a", "seen": "order.paid.v1", "why": "the value is another"}),
        );
        check(
            &json!([{"exact": {"type": "a", "subject": "b"}}]),
            &[0, 1],
            &json!({"pointer": "/0/exact/subject", "clause": "subject", "matched": false,
                "wanted": "b", "why": "the event has no such attribute"}),
        );
        check(
            &json!([{"any": [{"suffix": {"type": ".v1"}}, {"prefix": {"type": "x"}}]}]),
            &[0, 0, 0],
            &json!({"pointer": "/0/any/0/suffix/type", "clause": "type", "matched": true,
                "wanted": ".v1", "seen": "order.paid.v1"}),
        );
        check(
            &json!([{"not": {"exact": {"id": "1"}}}]),
            &[0],
            &json!({"pointer": "/0", "clause": "not", "matched": false,
                "why": "what it denies matched"}),
        );
        check(
            &json!([{"anabranch-glob": {"type": "order.*.v2"}}]),
            &[0, 0],
            &json!({"pointer": "/0/anabranch-glob/type", "clause": "type", "matched": false,
                "wanted": "order.*.v2", "seen": "order.paid.v1",
                "why": "the value is not like this"}),
        );
    }

    #[test]
    fn data_is_explained_by_what_is_at_its_places() {
        let filters = |tests: Value| json!([{ "anabranch-data": tests }]);
        let pointer = |place: &str| format!("/0/anabranch-data/~1{place}");
        check(
            &filters(json!({"/total": {"gt": 20}})),
            &[0, 0],
            &json!({"pointer": pointer("total"), "clause": "/total", "matched": false,
                "wanted": {"gt": 20}, "seen": 12.5, "why": "the value does not pass every test"}),
        );
        check(
            &filters(json!({"/items": {"exact": "c"}})),
            &[0, 0],
            &json!({"pointer": pointer("items"), "clause": "/items", "matched": false,
                "wanted": {"exact": "c"}, "seen": ["a", "b"],
                "why": "no element passes every test"}),
        );
        check(
            &filters(json!({"/absent": {"exists": true}})),
            &[0, 0],
            &json!({"pointer": pointer("absent"), "clause": "/absent", "matched": false,
                "wanted": {"exists": true}, "why": "there is nothing at this place"}),
        );
        check(
            &filters(json!({"/none": {"exists": false}})),
            &[0, 0],
            &json!({"pointer": pointer("none"), "clause": "/none", "matched": false,
                "wanted": {"exists": false}, "seen": null,
                "why": "there is something at this place"}),
        );
    }

    #[test]
    fn expressions_are_explained_part_by_part() {
        let sql = json!([{"sql": "id = '2' AND type LIKE 'a%' OR LENGTH(subject) = 1"}]);
        check(
            &sql,
            &[0],
            &json!({"pointer": "/0/sql", "clause": "sql", "matched": false,
                "wanted": "id = '2' AND type LIKE 'a%' OR LENGTH(subject) = 1",
                "why": "the event has no attribute `subject`"}),
        );
        check(
            &sql,
            &[0, 1],
            &json!({"pointer": "/0/sql", "clause": "type LIKE 'a%'", "matched": null,
                "why": "was decided before, and not evaluated"}),
        );
        check(
            &sql,
            &[0, 0, 0],
            &json!({"pointer": "/0/sql", "clause": "id", "matched": null, "seen": "1"}),
        );
        check(
            &json!([{"sql": "id"}]),
            &[0],
            &json!({"pointer": "/0/sql", "clause": "sql", "matched": false, "wanted": "id",
                "seen": "1", "why": "the value is not a boolean"}),
        );
    }

    #[test]
    fn an_explanation_is_bounded() {
        let many = vec![json!({"sql": "id = 'a' OR id = 'b' OR id = 'c' OR id = 'd'"}); 400];
        let root = Filters::parse(&Value::Array(many))
            .unwrap()
            .explain(&event());
        assert_eq!(root.count(), CLAUSES_MAX + 1);
        assert_eq!(root.matched, Some(false));
        // Deep ones can be read again by whoever reads JSON.
        let sql = format!("{}TRUE{}", "(1 = - ".repeat(15), " = FALSE)".repeat(15));
        let deep = (1..super::super::DEPTH_MAX)
            .fold(json!({"sql": sql}), |inner, _| json!({"not": inner}));
        let root = Filters::parse(&json!([deep])).unwrap().explain(&event());
        let text = serde_json::to_string(&json!({ "items": [{ "explanation": root }] })).unwrap();
        serde_json::from_str::<Value>(&text).unwrap();
    }
}
