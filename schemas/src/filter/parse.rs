//! Reads filters from JSON and keeps their limits.
//!
//! Never accepts what the evaluator could not finish quickly: depth, nodes and bytes are bounded
//! before the tree exists. The surprise: it reads on behind a fault, so that all are told at once.

use serde_json::{Number, Value};

use super::cesql::Expression;
use super::data::{Bound, Clause, Literal, Test};
use super::error::{Error, Fault};
use super::extract::is_pointer;
use super::network::Network;
use super::wildcard::Wildcard;
use super::{BYTES_MAX, Comparison, DATA, DEPTH_MAX, Filter, Filters, GLOB, NODES_MAX, Pattern};
use crate::event::AttributeName;

/// Faults that are told of one array.
const FAULTS_MAX: usize = 32;

/// SB-2: an array of filters.
///
/// # Errors
/// Every fault in the order of the text, up to [`FAULTS_MAX`].
pub(super) fn filters(value: &Value) -> Result<Filters, Vec<Error>> {
    let mut parser = Parser {
        pointer: String::new(),
        nodes: 0,
        bytes: 0,
        paths: Vec::new(),
        faults: Vec::new(),
    };
    match parser.array(value, 1) {
        Some(filters) => Ok(Filters {
            filters,
            // At most NODES_MAX.
            paths: u16::try_from(parser.paths.len()).unwrap_or(u16::MAX),
        }),
        // What is not read has left its fault.
        None => Err(parser.faults),
    }
}

struct Parser {
    /// The JSON pointer of what is being read.
    pointer: String,
    nodes: usize,
    bytes: usize,
    /// The pointers into data, each once.
    paths: Vec<Box<str>>,
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
            "exact" => self.entries(body, Self::comparison).map(Filter::Exact),
            "prefix" => self.entries(body, Self::comparison).map(Filter::Prefix),
            "suffix" => self.entries(body, Self::comparison).map(Filter::Suffix),
            GLOB => self.entries(body, Self::pattern).map(Filter::Glob),
            DATA => self.entries(body, Self::clause).map(Filter::Data),
            "sql" => self.sql(body),
            "all" => self.some(body, depth).map(Filter::All),
            "any" => self.some(body, depth).map(Filter::Any),
            "not" => Some(Filter::Not(Box::new(self.filter(body, depth + 1)?))),
            _ => self.fault(Fault::UnsupportedDialect),
        }
    }

    /// SB-3: an expression that is not one is refused, with the place of the fault in it.
    fn sql(&mut self, body: &Value) -> Option<Filter> {
        let text = self.paid(body)?;
        match Expression::parse_filter(text) {
            Ok(expression) => Some(Filter::Sql(Box::new(expression))),
            Err(error) => self.fault(Fault::NotAnExpression(error)),
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

    /// An object with at least one entry, each read by `read`.
    fn entries<T>(
        &mut self,
        body: &Value,
        read: fn(&mut Self, &str, &Value) -> Option<T>,
    ) -> Option<Box<[T]>> {
        let Value::Object(entries) = body else {
            return self.fault(Fault::NotAnObject);
        };
        if entries.is_empty() {
            return self.fault(Fault::Empty);
        }
        let each = entries.iter();
        let read: Vec<_> = each
            .map(|(name, value)| self.at(&escape(name), |parser| read(parser, name, value)))
            .collect();
        read.into_iter().collect()
    }

    fn comparison(&mut self, name: &str, value: &Value) -> Option<Comparison> {
        self.count()?;
        let (attribute, text) = self.attribute(name, value)?;
        Some(Comparison {
            attribute,
            value: text.into(),
        })
    }

    fn pattern(&mut self, name: &str, value: &Value) -> Option<Pattern> {
        self.count()?;
        let (attribute, text) = self.attribute(name, value)?;
        let Some(wildcard) = Wildcard::parse(text) else {
            return self.fault(Fault::NotAPattern);
        };
        Some(Pattern {
            attribute,
            wildcard,
        })
    }

    /// The name of an attribute, and a text that is not empty (SB-4).
    fn attribute<'v>(&mut self, name: &str, value: &'v Value) -> Option<(AttributeName, &'v str)> {
        let Ok(attribute) = AttributeName::new(name) else {
            return self.fault(if name.is_empty() {
                Fault::Empty
            } else {
                Fault::NotAnAttribute
            });
        };
        let text = self.text(value)?;
        self.spend(name.len() + text.len())?;
        Some((attribute, text))
    }

    /// A string that is not empty.
    fn text<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        match value {
            Value::String(text) if text.is_empty() => self.fault(Fault::Empty),
            Value::String(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => self.fault(Fault::NotAString),
        }
    }

    /// `None` beyond the limit, which is told once, where it was passed.
    fn spend(&mut self, bytes: usize) -> Option<()> {
        let before = self.bytes;
        self.bytes += bytes;
        if self.bytes <= BYTES_MAX {
            return Some(());
        }
        if before <= BYTES_MAX {
            return self.fault(Fault::TooLong);
        }
        None
    }

    // === data ===

    fn clause(&mut self, pointer: &str, tests: &Value) -> Option<Clause> {
        self.count()?;
        if !is_pointer(pointer) {
            return self.fault(Fault::NotAPointer);
        }
        self.spend(pointer.len())?;
        let tests = self.entries(tests, Self::test)?;
        if tests.len() > 1 && tests.contains(&Test::Exists(false)) {
            return self.at("exists", |parser| parser.fault(Fault::NotAlone));
        }
        Some(Clause {
            pointer: pointer.into(),
            path: self.path(pointer),
            tests,
        })
    }

    /// The pointer's number.
    fn path(&mut self, pointer: &str) -> u16 {
        let known = self.paths.iter().position(|other| **other == *pointer);
        let path = known.unwrap_or_else(|| {
            self.paths.push(pointer.into());
            self.paths.len() - 1
        });
        // At most NODES_MAX.
        u16::try_from(path).unwrap_or(u16::MAX)
    }

    fn test(&mut self, name: &str, value: &Value) -> Option<Test> {
        self.count()?;
        let bound = |bound| move |number| Test::Bound(bound, number);
        match name {
            "exact" => self.literal(value).map(Test::Exact),
            "in" => self.literals(value).map(Test::In),
            "anything-but" => self.literals(value).map(Test::AnythingBut),
            "prefix" => self.paid(value).map(|text| Test::Prefix(text.into())),
            "suffix" => self.paid(value).map(|text| Test::Suffix(text.into())),
            "wildcard" => self.wildcard(value).map(Test::Wildcard),
            "cidr" => self.network(value).map(Test::Network),
            "gt" => self.number(value).map(bound(Bound::Greater)),
            "gte" => self.number(value).map(bound(Bound::GreaterOrEqual)),
            "lt" => self.number(value).map(bound(Bound::Less)),
            "lte" => self.number(value).map(bound(Bound::LessOrEqual)),
            "exists" => match value {
                Value::Bool(wanted) => Some(Test::Exists(*wanted)),
                Value::Null
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => self.fault(Fault::NotABoolean),
            },
            _ => self.fault(Fault::UnsupportedTest),
        }
    }

    /// A text that is not empty, paid for.
    fn paid<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        let text = self.text(value)?;
        self.spend(text.len())?;
        Some(text)
    }

    fn wildcard(&mut self, value: &Value) -> Option<Wildcard> {
        let wildcard = Wildcard::parse(self.paid(value)?);
        wildcard.or_else(|| self.fault(Fault::NotAPattern))
    }

    fn network(&mut self, value: &Value) -> Option<Network> {
        let network = Network::parse(self.paid(value)?);
        network.or_else(|| self.fault(Fault::NotANetwork))
    }

    fn number(&mut self, value: &Value) -> Option<Box<str>> {
        let Value::Number(number) = value else {
            return self.fault(Fault::NotANumber);
        };
        self.digits(number)
    }

    fn digits(&mut self, number: &Number) -> Option<Box<str>> {
        let text = number.to_string();
        self.spend(text.len())?;
        Some(text.into())
    }

    fn literals(&mut self, value: &Value) -> Option<Box<[Literal]>> {
        let Value::Array(items) = value else {
            return self.fault(Fault::NotAnArray);
        };
        if items.is_empty() {
            return self.fault(Fault::Empty);
        }
        let each = items.iter().enumerate();
        let read: Vec<_> = each
            .map(|(index, item)| self.at(&index.to_string(), |parser| parser.counted(item)))
            .collect();
        read.into_iter().collect()
    }

    fn counted(&mut self, value: &Value) -> Option<Literal> {
        self.count()?;
        self.literal(value)
    }

    fn literal(&mut self, value: &Value) -> Option<Literal> {
        match value {
            Value::Null => Some(Literal::Null),
            Value::Bool(value) => Some(Literal::Bool(*value)),
            Value::Number(number) => self.digits(number).map(Literal::Number),
            Value::String(text) => {
                self.spend(text.len())?;
                Some(Literal::String(text.as_str().into()))
            }
            Value::Array(_) | Value::Object(_) => self.fault(Fault::NotAScalar),
        }
    }
}

/// RFC 6901 §3; cut, because a client chooses the name.
fn escape(name: &str) -> String {
    let start: String = name.chars().take(64).collect();
    start.replace('~', "~0").replace('/', "~1")
}
