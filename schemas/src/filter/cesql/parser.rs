//! Owns the grammar (SQ-3, SQ-4): from words to the compiled tree, by recursive descent.
//!
//! Never accepts what the evaluator could not finish quickly: length, depth and nodes are bounded
//! here (SQ-15). The surprise: identifiers in capitals are read in small letters, because keywords
//! have no case and the specification's own suite writes `EXISTS SOURCE`.

use super::error::{Error, Fault};
use super::function::Function;
use super::lexer::{Kind, Quote, Token, tokens};
use super::like::Pattern;
use super::tree::{Call, LEVELS, Literal, Node, Operator};
use super::{BYTES_MAX, DEPTH_MAX, NODES_MAX};
use crate::event::AttributeName;

/// The longest word that an error repeats.
const SHOWN_CHARS_MAX: usize = 32;
const KEYWORDS: [&str; 9] = [
    "AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE",
];
const OPERAND: &str = "an operand";

/// The tree of `text`, and the first function in it that does not exist (SQ-14).
pub(super) fn parse(text: &str) -> Result<(Node, Option<Error>), Error> {
    if text.len() > BYTES_MAX {
        return Err(Error::at(text, 0, Fault::TooLong));
    }
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        at: 0,
        nodes: 0,
        unknown: None,
    };
    let node = parser.expression(1)?;
    match parser.kind() {
        Kind::End => Ok((node, parser.unknown)),
        Kind::Word(_) | Kind::Digits(_) | Kind::Text(..) | Kind::Symbol(_) => {
            Err(parser.unexpected("an operator or the end"))
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    /// The last is the end.
    tokens: Vec<Token<'t>>,
    at: usize,
    nodes: usize,
    unknown: Option<Error>,
}

const END: Token<'static> = Token {
    kind: Kind::End,
    start: usize::MAX,
    end: usize::MAX,
};

impl<'t> Parser<'t> {
    fn token(&self, ahead: usize) -> &Token<'t> {
        self.tokens.get(self.at + ahead).unwrap_or(&END)
    }

    fn kind(&self) -> &Kind<'t> {
        &self.token(0).kind
    }

    fn start(&self) -> usize {
        self.token(0).start.min(self.text.len())
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::at(self.text, self.start(), fault)
    }

    fn unexpected(&self, wanted: &'static str) -> Error {
        let token = self.token(0);
        let found = match &token.kind {
            Kind::End => "the end".to_owned(),
            Kind::Word(_) | Kind::Digits(_) | Kind::Text(..) | Kind::Symbol(_) => {
                let found = self.text.get(token.start..token.end).unwrap_or_default();
                format!("`{}`", cut(found))
            }
        };
        self.fault(Fault::Unexpected {
            wanted,
            found: found.into(),
        })
    }

    /// Counts an operand or an operator, at which an error would be.
    fn count(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.fault(Fault::TooMany));
        }
        Ok(())
    }

    fn check(&self, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(self.fault(Fault::TooDeep));
        }
        Ok(())
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.kind(), Kind::Symbol(found) if *found == symbol)
    }

    fn is_keyword(&self, ahead: usize, keyword: &str) -> bool {
        matches!(self.token(ahead).kind, Kind::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_symbol(&mut self, symbol: &'static str, wanted: &'static str) -> Result<(), Error> {
        if !self.is_symbol(symbol) {
            return Err(self.unexpected(wanted));
        }
        self.at += 1;
        Ok(())
    }

    fn expression(&mut self, depth: usize) -> Result<Node, Error> {
        self.check(depth)?;
        self.chain(0, depth)
    }

    /// Operators of one precedence, from left to right.
    fn chain(&mut self, level: usize, depth: usize) -> Result<Node, Error> {
        if level == LEVELS {
            return self.postfix(depth);
        }
        let first = self.chain(level + 1, depth)?;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator().filter(|found| found.level() == level) {
            self.count()?;
            self.at += 1;
            rest.push((operator, self.chain(level + 1, depth)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Node::Chain {
            first: Box::new(first),
            rest: rest.into(),
        })
    }

    fn operator(&self) -> Option<Operator> {
        match self.kind() {
            Kind::Symbol(symbol) => Operator::of_symbol(symbol),
            Kind::Word(word) => Operator::of_word(word),
            Kind::Digits(_) | Kind::Text(..) | Kind::End => None,
        }
    }

    /// `LIKE` and `IN`, which bind tighter than every binary operator. Each holds what is before
    /// it, which is depth.
    fn postfix(&mut self, depth: usize) -> Result<Node, Error> {
        let mut node = self.unary(depth)?;
        let mut height = depth;
        loop {
            let negated = self.is_keyword(0, "NOT");
            let ahead = usize::from(negated);
            let (like, set) = (self.is_keyword(ahead, "LIKE"), self.is_keyword(ahead, "IN"));
            if !like && !set {
                if negated {
                    self.at += 1;
                    return Err(self.unexpected("`LIKE` or `IN`"));
                }
                return Ok(node);
            }
            height += 1;
            self.check(height)?;
            self.count()?;
            self.at += ahead + 1;
            let operand = Box::new(node);
            node = if like {
                self.like(operand, negated)?
            } else {
                self.set(operand, negated, depth)?
            };
        }
    }

    /// SQ-11: what follows `LIKE` is a literal.
    fn like(&mut self, operand: Box<Node>, negated: bool) -> Result<Node, Error> {
        let Kind::Text(text, quote) = self.kind().clone() else {
            return Err(self.unexpected("a string literal"));
        };
        self.at += 1;
        Ok(Node::Like {
            operand,
            negated,
            pattern: Pattern::of(&text),
            text: text.into(),
            quote,
        })
    }

    fn set(&mut self, operand: Box<Node>, negated: bool, depth: usize) -> Result<Node, Error> {
        self.take_symbol("(", "`(`")?;
        Ok(Node::In {
            operand,
            negated,
            set: self.list(depth)?,
        })
    }

    /// At least one expression, and the closing bracket.
    fn list(&mut self, depth: usize) -> Result<Box<[Node]>, Error> {
        let mut nodes = vec![self.expression(depth + 1)?];
        while self.is_symbol(",") {
            self.at += 1;
            nodes.push(self.expression(depth + 1)?);
        }
        self.take_symbol(")", "`,` or `)`")?;
        Ok(nodes.into())
    }

    fn unary(&mut self, depth: usize) -> Result<Node, Error> {
        self.check(depth)?;
        self.count()?;
        let sign = ["-", "+"].into_iter().find(|sign| self.is_symbol(sign));
        if let Some(sign) = sign {
            let (here, next) = (self.token(0), self.token(1));
            let signed = matches!(next.kind, Kind::Digits(_)) && here.end == next.start;
            if signed {
                return self.integer(sign);
            }
            if sign == "+" {
                return Err(self.unexpected(OPERAND));
            }
            self.at += 1;
            return Ok(Node::Negate(Box::new(self.unary(depth + 1)?)));
        }
        if self.is_keyword(0, "NOT") {
            self.at += 1;
            return Ok(Node::Not(Box::new(self.unary(depth + 1)?)));
        }
        self.operand(depth)
    }

    /// A literal with its sign, which is part of it: -2147483648 is one, 2147483648 is not (SQ-3).
    fn integer(&mut self, sign: &str) -> Result<Node, Error> {
        let ahead = usize::from(!sign.is_empty());
        let Kind::Digits(digits) = self.token(ahead).kind else {
            return Err(self.unexpected(OPERAND));
        };
        let read = format!("{sign}{digits}").parse();
        let integer = read.map_err(|_| self.fault(Fault::NotAnInteger))?;
        self.at += ahead + 1;
        Ok(Node::Literal(Literal::Integer(integer)))
    }

    fn operand(&mut self, depth: usize) -> Result<Node, Error> {
        match self.kind().clone() {
            Kind::Digits(_) => self.integer(""),
            Kind::Text(text, quote) => {
                self.at += 1;
                Ok(literal(text, quote))
            }
            Kind::Symbol("(") => {
                self.at += 1;
                let node = self.expression(depth + 1)?;
                self.take_symbol(")", "an operator or `)`")?;
                Ok(node)
            }
            Kind::Word(word) => self.word(word, depth),
            Kind::Symbol(_) | Kind::End => Err(self.unexpected(OPERAND)),
        }
    }

    fn word(&mut self, word: &str, depth: usize) -> Result<Node, Error> {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        if is("TRUE") || is("FALSE") {
            self.at += 1;
            return Ok(Node::Literal(Literal::Boolean(is("TRUE"))));
        }
        if is("EXISTS") {
            self.at += 1;
            return match self.kind().clone() {
                Kind::Word(name) | Kind::Digits(name) => Ok(Node::Exists(self.attribute(name)?)),
                Kind::Text(..) | Kind::Symbol(_) | Kind::End => {
                    Err(self.unexpected("the name of an attribute"))
                }
            };
        }
        if KEYWORDS.iter().any(|keyword| is(keyword)) {
            return Err(self.unexpected(OPERAND));
        }
        if self.token(1).kind == Kind::Symbol("(") {
            return self.call(word, depth);
        }
        Ok(Node::Attribute(self.attribute(word)?))
    }

    fn attribute(&mut self, word: &str) -> Result<AttributeName, Error> {
        let name = AttributeName::new(&word.to_ascii_lowercase());
        let wrong = KEYWORDS
            .iter()
            .any(|keyword| word.eq_ignore_ascii_case(keyword));
        match name {
            Ok(name) if !wrong => {
                self.at += 1;
                Ok(name)
            }
            Ok(_) | Err(_) => Err(self.fault(Fault::NotAnAttribute(cut(word)))),
        }
    }

    fn call(&mut self, word: &str, depth: usize) -> Result<Node, Error> {
        let letters = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        if word.starts_with('_') || !word.bytes().all(letters) {
            return Err(self.fault(Fault::NotAFunction(cut(word))));
        }
        let offset = self.start();
        self.at += 2;
        let arguments = if self.is_symbol(")") {
            self.at += 1;
            Box::default()
        } else {
            self.list(depth)?
        };
        let name: Box<str> = word.to_ascii_uppercase().into();
        let function = Function::resolve(&name, arguments.len());
        if function.is_none() && self.unknown.is_none() {
            let fault = Fault::UnknownFunction {
                name: cut(&name),
                arguments: arguments.len(),
            };
            self.unknown = Some(Error::at(self.text, offset, fault));
        }
        Ok(Node::Call(Call {
            name,
            function,
            arguments,
        }))
    }
}

fn literal(text: String, quote: Quote) -> Node {
    Node::Literal(Literal::Text(text.into(), quote))
}

fn cut(word: &str) -> Box<str> {
    word.chars()
        .take(SHOWN_CHARS_MAX)
        .collect::<String>()
        .into()
}
