//! Owns the reading of a transform that somebody wrote: every fault with a JSON pointer to it.
//!
//! Never stops at the first fault of the form, and refuses members that it does not know. The
//! surprise: places of one step that lie within each other are refused, since what came of them
//! would depend on which is first.

use serde_json::{Map, Value};

use super::Compiled;
use super::compile::steps;
use super::{
    DEPTH_MAX, HEADERS_MAX, PLACES_MAX, STEPS_MAX, TEMPLATES_MAX, TRANSFORM_BYTES_MAX, Transform,
};
use crate::event::{AttributeName, Context, is_reserved};
use crate::profile::Pointer;
use crate::profile::read::Reader;
use crate::resources::input::{Faults, header_name};

/// The steps there are.
const STEPS: [&str; 7] = [
    "select",
    "strip",
    "rename",
    "set",
    "compute",
    "attributes",
    "drop",
];
/// How a value may be computed.
const COMPUTED: [&str; 3] = ["value", "text", "json"];

impl Transform {
    /// Reads the transform that `value` is.
    ///
    /// # Errors
    /// Everything that is wrong with it, with pointers relative to `value`.
    pub fn read(value: &Value) -> Result<Self, Faults> {
        if value.to_string().len() > TRANSFORM_BYTES_MAX {
            let detail = format!("must be at most {TRANSFORM_BYTES_MAX} bytes of JSON");
            return Err(Faults::one("", detail));
        }
        let mut reader = Reader::default();
        let mut counts = Counts::default();
        reader.transform(value, &mut counts);
        reader.finish()?;
        // What passed every check is a transform; anything else is our fault, said and not hidden.
        let transform: Self = serde_json::from_value(value.clone())
            .map_err(|error| Faults::one("", format!("cannot be read: {error}")))?;
        Compiled::new(&transform)?;
        Ok(transform)
    }
}

/// What is bounded over all steps.
#[derive(Default)]
struct Counts {
    places: usize,
    templates: usize,
}

impl Reader {
    fn transform(&mut self, value: &Value, counts: &mut Counts) {
        let Some(members) = self.object(value, &["steps", "request"]) else {
            return;
        };
        if let Some(Value::Array(all)) = members.get("steps") {
            self.at("steps", |reader| {
                if all.len() > STEPS_MAX {
                    return reader.fault(format!("must have at most {STEPS_MAX} items"));
                }
                for (at, step) in all.iter().enumerate() {
                    at_index(reader, at, |reader| reader.step(step, counts));
                }
            });
        } else if members.contains_key("steps") {
            self.at("steps", |reader| reader.fault("must be an array"));
        }
        self.look_at(members, "request", |reader, request| {
            reader.request(request, counts);
        });
        if counts.places > PLACES_MAX {
            self.fault(format!("must name at most {PLACES_MAX} places"));
        }
        if counts.templates > TEMPLATES_MAX {
            let detail = format!("must have at most {TEMPLATES_MAX} templates and expressions");
            self.fault(detail);
        }
    }

    fn step(&mut self, value: &Value, counts: &mut Counts) {
        let Some(members) = self.object(value, &STEPS) else {
            return;
        };
        if members.len() != 1 {
            return self.fault(format!("must have one member: {}", STEPS.join(", ")));
        }
        self.look_at(members, "select", |reader, places| {
            reader.places(places, counts);
        });
        self.look_at(members, "strip", |reader, places| {
            reader.places(places, counts);
        });
        self.look_at(members, "rename", |reader, pairs| {
            reader.rename(pairs, counts);
        });
        self.look_at(members, "set", |reader, constants| {
            reader.entries(constants, counts);
        });
        self.look_at(members, "compute", |reader, computed| {
            for (place, computed) in reader.entries(computed, counts).into_iter().flatten() {
                reader.at(place, |reader| reader.computed(computed, counts));
            }
        });
        self.look_at(members, "attributes", |reader, attributes| {
            reader.attributes(attributes, counts);
        });
        self.look_at(members, "drop", |reader, expression| {
            reader.template(expression, counts);
        });
    }

    fn places(&mut self, value: &Value, counts: &mut Counts) {
        let Value::Array(places) = value else {
            return self.fault("must be an array");
        };
        if places.is_empty() {
            return self.fault("must not be empty");
        }
        for (at, place) in places.iter().enumerate().take(PLACES_MAX + 1) {
            at_index(self, at, |reader| match place.as_str() {
                Some(place) => reader.place(place, counts),
                None => reader.fault("must be a string"),
            });
        }
    }

    /// The pointer of the reader is at what names the place.
    fn place(&mut self, text: &str, counts: &mut Counts) {
        counts.places += 1;
        match Pointer::try_new(text) {
            Err(error) => self.fault(error.to_string()),
            Ok(pointer) if steps(&pointer).len() > DEPTH_MAX => {
                self.fault(format!("must be at most {DEPTH_MAX} steps deep"));
            }
            Ok(_) => {}
        }
    }

    /// Members whose names are places of which none lies within another.
    fn entries<'v>(
        &mut self,
        value: &'v Value,
        counts: &mut Counts,
    ) -> Option<&'v Map<String, Value>> {
        let Value::Object(members) = value else {
            self.fault("must be an object");
            return None;
        };
        if members.is_empty() {
            self.fault("must not be empty");
        }
        if members.len() > PLACES_MAX {
            self.fault(format!("must have at most {PLACES_MAX} members"));
            return None;
        }
        for place in members.keys() {
            self.at(place, |reader| reader.place(place, counts));
        }
        self.apart(members.keys().map(|place| (place.as_str(), place.as_str())));
        Some(members)
    }

    fn rename(&mut self, value: &Value, counts: &mut Counts) {
        let Some(members) = self.entries(value, counts) else {
            return;
        };
        for (from, to) in members {
            self.at(from, |reader| match to.as_str() {
                Some(to) => reader.place(to, counts),
                None => reader.fault("must be a string"),
            });
        }
        let to = members.iter();
        self.apart(to.filter_map(|(from, to)| Some((from.as_str(), to.as_str()?))));
    }

    /// Refuses places that lie within others; each with the member that names it.
    fn apart<'v>(&mut self, places: impl Iterator<Item = (&'v str, &'v str)>) {
        let mut places: Vec<(&str, String)> = places
            .map(|(member, place)| (member, format!("{place}/")))
            .collect();
        places.sort_by(|one, other| one.1.cmp(&other.1));
        let mut above: Option<String> = None;
        for (member, place) in places {
            match above.as_ref().filter(|above| place.starts_with(*above)) {
                Some(above) => {
                    let above = above.trim_end_matches('/');
                    let detail = format!("lies within `{above}`, which this step names too");
                    self.at(member, |reader| reader.fault(detail));
                }
                None => above = Some(place),
            }
        }
    }

    fn computed(&mut self, value: &Value, counts: &mut Counts) {
        let [one, two, three] = COMPUTED;
        let Some(members) = self.object(value, &[one, two, three, "when"]) else {
            return;
        };
        let ways = COMPUTED.iter().filter(|way| members.contains_key(**way));
        if ways.count() != 1 {
            self.fault(format!("must have one of {}", COMPUTED.join(", ")));
        }
        for source in members.keys() {
            self.look_at(members, source, |reader, source| {
                reader.template(source, counts);
            });
        }
    }

    fn attributes(&mut self, value: &Value, counts: &mut Counts) {
        let Value::Object(attributes) = value else {
            return self.fault("must be an object");
        };
        if attributes.is_empty() {
            self.fault("must not be empty");
        }
        for (name, template) in attributes {
            self.at(name, |reader| {
                reader.attribute(name, template);
                if !template.is_null() {
                    reader.template(template, counts);
                }
            });
        }
    }

    fn attribute(&mut self, name: &str, template: &Value) {
        let context = match AttributeName::new(name) {
            Err(error) => return self.fault(error.fault().to_string()),
            Ok(_) if is_reserved(name) => return self.fault("is kept for the pipeline"),
            Ok(known) => known.context(),
        };
        match context {
            Some(Context::SpecVersion | Context::Id | Context::Source) => {
                self.fault("says which event it is, and cannot be changed");
            }
            Some(Context::Type) if template.is_null() => self.fault("must be there"),
            Some(
                Context::Type
                | Context::Subject
                | Context::Time
                | Context::DataContentType
                | Context::DataSchema,
            )
            | None => {}
        }
    }

    fn request(&mut self, value: &Value, counts: &mut Counts) {
        let known = ["method", "path", "query", "headers"];
        let Some(members) = self.object(value, &known) else {
            return;
        };
        self.look_at(members, "method", |reader, method| {
            reader.one_of(method, &["POST", "PUT", "PATCH", "DELETE"]);
        });
        self.look_at(members, "path", |reader, path| {
            reader.template(path, counts)
        });
        self.look_at(members, "query", |reader, query| {
            reader.templates(query, counts, |name| match name.is_empty() {
                true => Err("must have a name".to_owned()),
                false => Ok(()),
            });
        });
        let mut known: Vec<String> = Vec::new();
        self.look_at(members, "headers", |reader, headers| {
            reader.templates(headers, counts, |name| {
                let lower = name.to_ascii_lowercase();
                let checked = match lower.as_str() {
                    "authorization" | "cookie" => Err("is the endpoint's to say".to_owned()),
                    twice if known.iter().any(|known| known == twice) => {
                        Err("is there already".to_owned())
                    }
                    _ => header_name(name),
                };
                known.push(lower);
                checked
            });
        });
    }

    fn templates(
        &mut self,
        value: &Value,
        counts: &mut Counts,
        mut name_is: impl FnMut(&str) -> Result<(), String>,
    ) {
        let Value::Object(members) = value else {
            return self.fault("must be an object");
        };
        if members.len() > HEADERS_MAX {
            return self.fault(format!("must have at most {HEADERS_MAX} members"));
        }
        for (name, template) in members {
            self.at(name, |reader| {
                if let Err(wrong) = name_is(name) {
                    reader.fault(wrong);
                }
                reader.template(template, counts);
            });
        }
    }

    /// How long it may be, who compiles it says.
    fn template(&mut self, value: &Value, counts: &mut Counts) {
        counts.templates += 1;
        if !value.is_string() {
            self.fault("must be a string");
        }
    }
}

fn at_index(reader: &mut Reader, index: usize, look: impl FnOnce(&mut Reader)) {
    reader.at(&index.to_string(), look);
}
