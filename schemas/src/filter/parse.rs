//! Reads filters from JSON and keeps their limits.
//!
//! Never accepts what the evaluator could not finish quickly: depth, nodes and bytes are bounded
//! before the tree exists.

use serde_json::{Map, Value};

use super::error::{Error, Fault};
use super::{BYTES_MAX, Comparison, DEPTH_MAX, Filter, NODES_MAX};
use crate::event::AttributeName;

/// SB-2: an array of filters.
pub(super) fn filters(value: &Value) -> Result<Box<[Filter]>, Error> {
    Parser {
        pointer: String::new(),
        nodes: 0,
        bytes: 0,
    }
    .array(value, 1)
}

struct Parser {
    /// The JSON pointer of what is being read.
    pointer: String,
    nodes: usize,
    bytes: usize,
}

impl Parser {
    fn fault<T>(&self, fault: Fault) -> Result<T, Error> {
        Err(Error::new(&self.pointer, fault))
    }

    /// Reads something one step further down the pointer.
    fn at<T>(
        &mut self,
        step: &str,
        read: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(step);
        let result = read(self);
        self.pointer.truncate(length);
        result
    }

    fn count(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.fault(Fault::TooMany)
        } else {
            Ok(())
        }
    }

    fn array(&mut self, value: &Value, depth: usize) -> Result<Box<[Filter]>, Error> {
        let Value::Array(items) = value else {
            return self.fault(Fault::NotAnArray);
        };
        let each = items.iter().enumerate();
        each.map(|(index, item)| self.at(&index.to_string(), |parser| parser.filter(item, depth)))
            .collect()
    }

    fn filter(&mut self, value: &Value, depth: usize) -> Result<Filter, Error> {
        self.count()?;
        if depth > DEPTH_MAX {
            return self.fault(Fault::TooDeep);
        }
        let Value::Object(members) = value else {
            return self.fault(Fault::NotAnObject);
        };
        let mut members = members.iter();
        let (Some((dialect, body)), None) = (members.next(), members.next()) else {
            return self.fault(Fault::NotOneDialect);
        };
        self.at(&escape(dialect), |parser| {
            parser.dialect(dialect, body, depth)
        })
    }

    /// SB-4.
    fn dialect(&mut self, dialect: &str, body: &Value, depth: usize) -> Result<Filter, Error> {
        match dialect {
            "exact" => self.comparisons(body).map(Filter::Exact),
            "prefix" => self.comparisons(body).map(Filter::Prefix),
            "suffix" => self.comparisons(body).map(Filter::Suffix),
            "all" => self.some(body, depth).map(Filter::All),
            "any" => self.some(body, depth).map(Filter::Any),
            "not" => Ok(Filter::Not(Box::new(self.filter(body, depth + 1)?))),
            _ => self.fault(Fault::UnsupportedDialect),
        }
    }

    fn some(&mut self, body: &Value, depth: usize) -> Result<Box<[Filter]>, Error> {
        let filters = self.array(body, depth + 1)?;
        if filters.is_empty() {
            self.fault(Fault::Empty)
        } else {
            Ok(filters)
        }
    }

    fn comparisons(&mut self, body: &Value) -> Result<Box<[Comparison]>, Error> {
        let Value::Object(entries) = body else {
            return self.fault(Fault::NotAnObject);
        };
        if entries.is_empty() {
            return self.fault(Fault::Empty);
        }
        self.entries(entries)
    }

    fn entries(&mut self, entries: &Map<String, Value>) -> Result<Box<[Comparison]>, Error> {
        let each = entries.iter();
        each.map(|(name, value)| self.at(&escape(name), |parser| parser.comparison(name, value)))
            .collect()
    }

    fn comparison(&mut self, name: &str, value: &Value) -> Result<Comparison, Error> {
        self.count()?;
        let Ok(attribute) = AttributeName::new(name) else {
            return self.fault(if name.is_empty() {
                Fault::Empty
            } else {
                Fault::NotAnAttribute
            });
        };
        let Value::String(text) = value else {
            return self.fault(Fault::NotAString);
        };
        if text.is_empty() {
            return self.fault(Fault::Empty);
        }
        self.bytes += name.len() + text.len();
        if self.bytes > BYTES_MAX {
            return self.fault(Fault::TooLong);
        }
        Ok(Comparison {
            attribute,
            value: text.as_str().into(),
        })
    }
}

/// RFC 6901 §3; cut, because a client chooses the name.
fn escape(name: &str) -> String {
    let start: String = name.chars().take(64).collect();
    start.replace('~', "~0").replace('/', "~1")
}
