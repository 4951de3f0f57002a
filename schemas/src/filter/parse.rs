//! Reads filters from JSON and keeps their limits.
//!
//! Never accepts what the evaluator could not finish quickly: depth, nodes and bytes are bounded
//! before the tree exists. The surprise: it reads on behind a fault, so that all are told at once.

use serde_json::{Map, Value};

use super::error::{Error, Fault};
use super::{BYTES_MAX, Comparison, DEPTH_MAX, Filter, NODES_MAX};
use crate::event::AttributeName;

/// Faults that are told of one array.
const FAULTS_MAX: usize = 32;

/// SB-2: an array of filters.
///
/// # Errors
/// Every fault in the order of the text, up to [`FAULTS_MAX`].
pub(super) fn filters(value: &Value) -> Result<Box<[Filter]>, Vec<Error>> {
    let mut parser = Parser {
        pointer: String::new(),
        nodes: 0,
        bytes: 0,
        faults: Vec::new(),
    };
    // What is not read has left its fault.
    parser.array(value, 1).ok_or(parser.faults)
}

struct Parser {
    /// The JSON pointer of what is being read.
    pointer: String,
    nodes: usize,
    bytes: usize,
    faults: Vec<Error>,
}

impl Parser {
    fn fault<T>(&mut self, fault: Fault) -> Option<T> {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Error::new(&self.pointer, fault));
        }
        None
    }

    /// Reads something one step further down the pointer.
    fn at<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(step);
        let result = read(self);
        self.pointer.truncate(length);
        result
    }

    /// `None` beyond the limit, which is told once.
    fn count(&mut self) -> Option<()> {
        self.nodes += 1;
        if self.nodes == NODES_MAX + 1 {
            return self.fault(Fault::TooMany);
        }
        (self.nodes <= NODES_MAX).then_some(())
    }

    fn array(&mut self, value: &Value, depth: usize) -> Option<Box<[Filter]>> {
        let Value::Array(items) = value else {
            return self.fault(Fault::NotAnArray);
        };
        let each = items.iter().enumerate();
        let read: Vec<_> = each
            .map(|(index, item)| self.at(&index.to_string(), |parser| parser.filter(item, depth)))
            .collect();
        read.into_iter().collect()
    }

    fn filter(&mut self, value: &Value, depth: usize) -> Option<Filter> {
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
    fn dialect(&mut self, dialect: &str, body: &Value, depth: usize) -> Option<Filter> {
        match dialect {
            "exact" => self.comparisons(body).map(Filter::Exact),
            "prefix" => self.comparisons(body).map(Filter::Prefix),
            "suffix" => self.comparisons(body).map(Filter::Suffix),
            "all" => self.some(body, depth).map(Filter::All),
            "any" => self.some(body, depth).map(Filter::Any),
            "not" => Some(Filter::Not(Box::new(self.filter(body, depth + 1)?))),
            _ => self.fault(Fault::UnsupportedDialect),
        }
    }

    fn some(&mut self, body: &Value, depth: usize) -> Option<Box<[Filter]>> {
        let filters = self.array(body, depth + 1)?;
        if filters.is_empty() {
            self.fault(Fault::Empty)
        } else {
            Some(filters)
        }
    }

    fn comparisons(&mut self, body: &Value) -> Option<Box<[Comparison]>> {
        let Value::Object(entries) = body else {
            return self.fault(Fault::NotAnObject);
        };
        if entries.is_empty() {
            return self.fault(Fault::Empty);
        }
        self.entries(entries)
    }

    fn entries(&mut self, entries: &Map<String, Value>) -> Option<Box<[Comparison]>> {
        let each = entries.iter();
        let read: Vec<_> = each
            .map(|(name, value)| self.at(&escape(name), |parser| parser.comparison(name, value)))
            .collect();
        read.into_iter().collect()
    }

    fn comparison(&mut self, name: &str, value: &Value) -> Option<Comparison> {
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
        let before = self.bytes;
        self.bytes += name.len() + text.len();
        if self.bytes > BYTES_MAX {
            // Told once, where the limit was passed.
            return if before <= BYTES_MAX {
                self.fault(Fault::TooLong)
            } else {
                None
            };
        }
        Some(Comparison {
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
