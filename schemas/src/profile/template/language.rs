//! Owns which part of the template language profiles may use.
//!
//! MiniJinja bounds the steps of a template, not what one of them makes: `~`, `+` and `*` can double
//! a text at each step, and literals can nest. What could grow is refused here, before a template is
//! compiled, so that no value is larger than what came in or what a filter allows. The surprise:
//! joining texts is a filter (`concat`), because filters count what they make.

/// The statements there are.
const STATEMENTS: [&str; 7] = ["for", "endfor", "if", "elif", "else", "endif", "set"];
/// Words behind which a value begins.
const OPERATORS: [&str; 8] = ["in", "and", "or", "not", "is", "if", "elif", "else"];
/// Words that are values.
const CONSTANTS: [&str; 6] = ["true", "false", "none", "True", "False", "None"];

/// The filters there are.
pub(super) const FILTERS: [&str; 24] = [
    "add",
    "concat",
    "default",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "rejectattr",
    "replace",
    "round",
    "segment",
    "selectattr",
    "sha256",
    "string",
    "times",
    "tojson",
    "trim",
    "upper",
];
/// The tests there are.
pub(super) const TESTS: [&str; 7] = [
    "defined",
    "mapping",
    "none",
    "number",
    "sequence",
    "string",
    "undefined",
];

/// Why a template is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Refused {
    /// Counted from 1.
    pub line: usize,
    /// What is not allowed.
    pub reason: String,
}

/// Refuses what profiles may not use. What is no template at all is left to the compiler.
pub(super) fn check(source: &str) -> Result<(), Refused> {
    let mut at = 0;
    while let Some(begin) = source.get(at..).and_then(next_tag).map(|next| at + next) {
        let kind = source.as_bytes().get(begin + 1);
        let inside = source.get(begin + 2..).unwrap_or_default();
        let length = match kind {
            Some(b'#') => Ok(inside.find("#}").unwrap_or(inside.len())),
            Some(b'%') => Tag::new(inside, "%}").read(true),
            Some(_) | None => Tag::new(inside, "}}").read(false),
        };
        let length = length.map_err(|reason| Refused {
            line: source
                .get(..begin)
                .unwrap_or_default()
                .matches('\n')
                .count()
                + 1,
            reason,
        })?;
        at = (begin + 2 + length + 2).min(source.len());
    }
    Ok(())
}

fn next_tag(text: &str) -> Option<usize> {
    let mut pairs = text.as_bytes().windows(2);
    pairs.position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// What stands between the marks of a tag.
struct Tag<'a> {
    text: &'a str,
    end: &'a str,
    at: usize,
    /// Open parentheses.
    depth: usize,
    /// Whether what was read last is a value, which `[` looks into.
    is_value: bool,
    assigns: bool,
}

impl<'a> Tag<'a> {
    fn new(text: &'a str, end: &'a str) -> Self {
        Self {
            text,
            end,
            at: 0,
            depth: 0,
            is_value: false,
            assigns: false,
        }
    }

    /// Reads to the end of the tag; says how long it is.
    fn read(mut self, is_statement: bool) -> Result<usize, String> {
        // White space control.
        self.skip(|byte| matches!(byte, b'-' | b'+'));
        self.skip(|byte| byte.is_ascii_whitespace());
        if is_statement {
            let statement = self.word();
            if !STATEMENTS.contains(&statement) {
                return Err(format!("the statement `{statement}` is not allowed"));
            }
            self.rest()?;
            if statement == "set" && !self.assigns {
                return Err("`set` must have a value".to_owned());
            }
        } else {
            self.rest()?;
        }
        Ok(self.at)
    }

    fn rest(&mut self) -> Result<(), String> {
        while !self.left().starts_with(self.end) {
            let Some(byte) = self.peek() else {
                return Ok(());
            };
            match byte {
                b'"' | b'\'' => self.text_literal(byte),
                b'~' | b'*' => return Err(not_allowed(byte, "use the filter `concat`")),
                // The other form of white space control.
                b'+' if self
                    .left()
                    .get(1..)
                    .is_some_and(|rest| rest.starts_with(self.end)) =>
                {
                    self.at += 1;
                }
                b'+' => return Err(not_allowed(byte, "use the filter `concat`")),
                b'|' => self.filter()?,
                b'{' | b'}' => return Err(not_allowed(byte, "write objects as text")),
                b'[' if !self.is_value => self.list_literal()?,
                _ if is_word(byte) => self.name()?,
                _ => self.sign(byte),
            }
        }
        Ok(())
    }

    fn sign(&mut self, byte: u8) {
        match byte {
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            b'=' => self.assigns |= self.depth == 0,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            self.is_value = matches!(byte, b')' | b']');
        }
        self.at += 1;
        // Never in the middle of a character.
        self.skip(|byte| (0x80..0xc0).contains(&byte));
    }

    fn name(&mut self) -> Result<(), String> {
        let word = self.word();
        if word == "recursive" {
            return Err("recursive loops are not allowed".to_owned());
        }
        if word == "is" {
            self.test()?;
        }
        self.is_value = !OPERATORS.contains(&word);
        Ok(())
    }

    fn filter(&mut self) -> Result<(), String> {
        self.at += 1;
        self.skip(|byte| byte.is_ascii_whitespace());
        let word = self.word();
        self.is_value = true;
        match word.is_empty() || FILTERS.contains(&word) {
            true => Ok(()),
            false => Err(format!("there is no filter `{word}`")),
        }
    }

    fn test(&mut self) -> Result<(), String> {
        let mut word = "not";
        while word == "not" {
            self.skip(|byte| byte.is_ascii_whitespace());
            word = self.word();
        }
        match word.is_empty() || TESTS.contains(&word) {
            true => Ok(()),
            false => Err(format!("there is no test `{word}`")),
        }
    }

    fn text_literal(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                break;
            }
        }
        self.is_value = true;
    }

    /// A list may name constants alone: what does not grow needs no bound.
    fn list_literal(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Ok(()),
                Some(b']') => {
                    self.at += 1;
                    self.is_value = true;
                    return Ok(());
                }
                Some(quote @ (b'"' | b'\'')) => self.text_literal(quote),
                Some(byte) if is_word(byte) => {
                    let word = self.word();
                    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
                    if !is_number && !CONSTANTS.contains(&word) {
                        return Err(format!("a list may hold constants alone, not `{word}`"));
                    }
                }
                Some(byte) if byte.is_ascii_whitespace() || matches!(byte, b',' | b'-' | b'.') => {
                    self.at += 1;
                }
                Some(byte) => return Err(not_allowed(byte, "a list may hold constants alone")),
            }
        }
    }

    fn word(&mut self) -> &'a str {
        let begin = self.at;
        self.skip(is_word);
        self.text.get(begin..self.at).unwrap_or_default()
    }

    fn skip(&mut self, is: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn left(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn not_allowed(byte: u8, instead: &str) -> String {
    format!("`{}` is not allowed: {instead}", char::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_grow_is_allowed() {
        for source in [
            "",
            r#"{"a": {"b": {{ members|tojson }}}}"#,
            r#"{% for m in members %}{{ "," if not loop.first }}{{ m.id|tojson }}{% endfor %}"#,
            "{%- set x = members[0].id -%}{{ x|replace('+*~{', \"}}\") }}",
            "{% if x in ['a', \"b\", 1, -2.5, none] and y[0] == 3 %}a{% elif z %}b{% else %}c{% endif %}",
            "{# {{ a ~ b }} #}a + b * c ~ d {e} [f]",
            "{{ m is not none }}{{ m is defined and x is  number }}{{ 'is odd' | upper }}",
            "{{ m['key'] }}{{ f(x)[1] }}{{ -1 - 2 }}{% if a +%}{% endif %}{{ 'é'|upper }}{{ é }}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_could_grow_is_refused_with_its_line() {
        let check = |source: &str, line: usize, part: &str| {
            let refused = check(source).unwrap_err();
            assert_eq!(refused.line, line, "{source}");
            assert!(refused.reason.contains(part), "{source}: {refused}");
        };
        check("{{ a ~ b }}", 1, "`~`");
        check("x\n\n{{ a * 9 }}", 3, "`*`");
        check("{{ a + b }}", 1, "concat");
        check("{{ '}}' }}\n{{ {'a': 1} }}", 2, "objects");
        check("{% for x in [a, a] recursive %}", 1, "constants");
        check("{% for x in a recursive %}", 1, "recursive");
        check("{{ [[1]] }}", 1, "constants");
        check("{{ [f(x)] }}", 1, "`f`");
        check("{{ a|upper|\n nothing }}", 1, "no filter `nothing`");
        check("{% if a is not odd %}", 1, "no test `odd`");
        for statement in [
            "macro m()",
            "include 'x'",
            "filter upper",
            "call m()",
            "raw",
            "with",
            "",
        ] {
            check(&format!("{{% {statement} %}}"), 1, "statement");
        }
        check("{% set x %}a{% endset %}", 1, "must have a value");
        check("{% set x | default(a=1) %}", 1, "must have a value");
    }

    #[test]
    fn no_text_makes_it_panic() {
        bolero::check!()
            .with_iterations(2_000)
            .for_each(|input: &[u8]| {
                let text = String::from_utf8_lossy(input);
                for source in [
                    text.to_string(),
                    format!("{{{{{text}"),
                    format!("{{%{text}"),
                ] {
                    check(&source).ok();
                }
            });
    }
}
