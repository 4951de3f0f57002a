//! Owns reading one flat JSON object without building a value: where its fields are, and that it is
//! JSON at all (RFC 8259). Pure, allocation-free once warm, and never recursive beyond a bound.
//!
//! The surprise: it is stricter than most parsers in one thing, as a member's fields must be told
//! apart by partners: a field that is named twice is refused.

/// The deepest nesting of a field's value.
const DEPTH_MAX: u32 = 32;

/// Where a field of an object is, in bytes from its start.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: (usize, usize),
    /// The name is in `names`, decoded, and not in the object.
    decoded: bool,
    value: (usize, usize),
}

/// A scanned object; reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    fields: Vec<Field>,
    names: Vec<u8>,
}

/// A value that was found: its bytes as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

type Fault = &'static str;

const NOT_JSON: Fault = "not a JSON object";

const NOT_TEXT: Fault = "a string has an escape that is not text";

impl Scan {
    /// Reads one object, which must be all of `text` but for white space around it. `text` must be
    /// UTF-8 already.
    pub(crate) fn object(&mut self, text: &[u8]) -> Result<(), Fault> {
        self.fields.clear();
        self.names.clear();
        let mut at = Reader { text, at: 0 };
        at.space();
        at.expect(b'{')?;
        at.space();
        if !at.take(b'}') {
            loop {
                self.field(&mut at)?;
                at.space();
                if at.take(b'}') {
                    break;
                }
                at.expect(b',')?;
                at.space();
            }
        }
        at.space();
        if at.at != text.len() {
            return Err("more than one JSON object in a row");
        }
        self.sort(text)
    }

    fn field(&mut self, at: &mut Reader<'_>) -> Result<(), Fault> {
        let start = at.at + 1;
        let escaped = at.string()?;
        let mut name = (start, at.at - 1);
        if escaped {
            let from = self.names.len();
            decode(at.slice(name), &mut self.names)?;
            name = (from, self.names.len());
        }
        at.space();
        at.expect(b':')?;
        at.space();
        let from = at.at;
        at.value(0)?;
        self.fields.push(Field {
            name,
            decoded: escaped,
            value: (from, at.at),
        });
        Ok(())
    }

    /// Puts the fields in the order of their names; the usual file has them so, or nearly.
    fn sort(&mut self, text: &[u8]) -> Result<(), Fault> {
        let names = &self.names;
        let name = |field: &Field| {
            let from = if field.decoded {
                names.as_slice()
            } else {
                text
            };
            from.get(field.name.0..field.name.1).unwrap_or_default()
        };
        if !self.fields.is_sorted_by(|one, next| name(one) < name(next)) {
            self.fields.sort_by(|one, other| name(one).cmp(name(other)));
            let twice = self
                .fields
                .windows(2)
                .any(|pair| matches!(pair, [one, next] if name(one) == name(next)));
            if twice {
                return Err("a field is there twice");
            }
        }
        Ok(())
    }

    fn name<'a>(&'a self, field: &Field, text: &'a [u8]) -> &'a [u8] {
        let from = if field.decoded {
            self.names.as_slice()
        } else {
            text
        };
        from.get(field.name.0..field.name.1).unwrap_or_default()
    }

    /// The value of the field `name`.
    pub(crate) fn get<'a>(&self, text: &'a [u8], name: &[u8]) -> Option<Raw<'a>> {
        let field = self
            .fields
            .iter()
            .find(|field| self.name(field, text) == name)?;
        text.get(field.value.0..field.value.1).map(Raw)
    }

    /// Appends the object in canonical form, with the fields that `keep` keeps.
    pub(crate) fn write_canonical(
        &self,
        text: &[u8],
        keep: impl Fn(&[u8]) -> bool,
        out: &mut Vec<u8>,
    ) {
        out.push(b'{');
        let mut first = true;
        for field in &self.fields {
            let name = self.name(field, text);
            if !keep(name) {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            if field.decoded {
                // A scanned name is UTF-8: the text was, and its escapes were decoded as such.
                crate::member::write_string(&String::from_utf8_lossy(name), out);
            } else {
                out.push(b'"');
                out.extend_from_slice(name);
                out.push(b'"');
            }
            out.push(b':');
            write_compact(
                text.get(field.value.0..field.value.1).unwrap_or_default(),
                out,
            );
        }
        out.push(b'}');
    }
}

impl Raw<'_> {
    /// Appends an id's text: a string decoded, or an integer as it is written.
    pub(crate) fn write_id(self, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.0 {
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
                out.extend_from_slice(inner);
                Ok(())
            }
            [b'"', inner @ .., b'"'] => decode(inner, out),
            number
                if number
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || *byte == b'-') =>
            {
                out.extend_from_slice(number);
                Ok(())
            }
            _ => Err("the id is neither a string nor an integer"),
        }
    }
}

/// Appends a value without the white space that is outside its strings.
fn write_compact(value: &[u8], out: &mut Vec<u8>) {
    if !matches!(value.first(), Some(b'{' | b'[')) {
        out.extend_from_slice(value);
        return;
    }
    let (mut in_string, mut escaped) = (false, false);
    for &byte in value {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
}

/// Appends a string's text, its escapes resolved.
fn decode(inner: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    let text: String = serde_json::from_slice(&quoted).map_err(|_| NOT_TEXT)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn slice(&self, (from, to): (usize, usize)) -> &'a [u8] {
        self.text.get(from..to).unwrap_or_default()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(NOT_JSON)
        }
    }

    /// Reads a string, quotes included; says whether it has escapes.
    fn string(&mut self) -> Result<bool, Fault> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.iter().take_while(|&&byte| is_plain(byte)).count();
            self.at += plain + 1;
            match rest.get(plain) {
                Some(b'"') => return Ok(escaped),
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err("a string has a control character"),
                None => return Err("a string is not closed"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => match self.unit()? {
                0xd800..=0xdbff => {
                    let second = self.take(b'\\') && self.peek() == Some(b'u');
                    if !second || !matches!(self.unit()?, 0xdc00..=0xdfff) {
                        return Err(NOT_TEXT);
                    }
                }
                0xdc00..=0xdfff => return Err(NOT_TEXT),
                _ => {}
            },
            _ => return Err(NOT_TEXT),
        }
        Ok(())
    }

    /// Reads `uXXXX`, one UTF-16 unit; half a pair would be refused by whoever parses it next.
    fn unit(&mut self) -> Result<u32, Fault> {
        let digits = self.slice((self.at + 1, self.at + 5));
        let digits = std::str::from_utf8(digits).map_err(|_| NOT_TEXT)?;
        if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NOT_TEXT);
        }
        self.at += 5;
        u32::from_str_radix(digits, 16).map_err(|_| NOT_TEXT)
    }

    fn value(&mut self, depth: u32) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err("a value is nested more than 32 deep");
        }
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'[') => self.nested(b']', depth, Self::value),
            Some(b'{') => self.nested(b'}', depth, Self::pair),
            _ => Err(NOT_JSON),
        }
    }

    fn nested(
        &mut self,
        close: u8,
        depth: u32,
        item: fn(&mut Self, u32) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.at += 1;
        self.space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            item(self, depth + 1)?;
            self.space();
            if self.take(close) {
                return Ok(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    fn pair(&mut self, depth: u32) -> Result<(), Fault> {
        self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        self.value(depth)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if self.slice((self.at, self.at + word.len())) != word {
            return Err(NOT_JSON);
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let from = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        self.check_size(from)
    }

    /// A number beyond a double is one that the next parser refuses.
    fn check_size(&self, from: usize) -> Result<(), Fault> {
        let text = self.slice((from, self.at));
        if text.len() < 300 && !text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
            return Ok(());
        }
        let number = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<f64>().ok());
        if number.is_some_and(f64::is_finite) {
            Ok(())
        } else {
            Err("a number is too large")
        }
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from {
            Err("a number is not one")
        } else {
            Ok(())
        }
    }
}

/// Whether a byte neither ends a string nor needs a second look.
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn canonical(text: &str) -> Result<String, Fault> {
        let mut scan = Scan::default();
        scan.object(text.as_bytes())?;
        let mut out = Vec::new();
        scan.write_canonical(text.as_bytes(), |name| name != b"id", &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn order_and_layout_do_not_matter() {
        let expected = r#"{"a":1,"b":"x y","c":[1,{"z":" ","y":null}]}"#;
        for text in [
            r#"{"id":"1","a":1,"b":"x y","c":[1,{"z":" ","y":null}]}"#,
            r#"  {"c" : [ 1 , { "z" : " " , "y" : null } ] , "b":"x y", "id":"1", "a" :1} "#,
            r#"{"\u0063":[1,{"z":" ","y":null}],"a":1,"b":"x y"}"#,
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(canonical("{}").as_deref(), Ok("{}"));
        assert_eq!(canonical(r#"{"id":3}"#).as_deref(), Ok("{}"));
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in [
            "",
            " ",
            "[]",
            "1",
            "{",
            "{}}",
            "{} {}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":+1}",
            "{\"a\":tru}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"b}",
            "{\"a\":[1,]}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\\ud800\"}",
            "{\"a\":1e999}",
            "{\"a\":{\"b\"}}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":NaN}",
        ] {
            assert!(canonical(text).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60));
        assert!(canonical(&deep).is_err());
    }

    #[test]
    fn an_id_is_a_string_or_an_integer() {
        for (text, expected) in [
            (r#"{"id":"a"}"#, Ok("a")),
            (r#"{"id":"\u00e9\n"}"#, Ok("é\n")),
            (r#"{"id":-42}"#, Ok("-42")),
            (r#"{"id":4.2}"#, Err(())),
            (r#"{"id":4e2}"#, Err(())),
            (r#"{"id":null}"#, Err(())),
            (r#"{"id":["a"]}"#, Err(())),
            (r#"{"id":"\ud83d\ude00"}"#, Ok("😀")),
        ] {
            let mut scan = Scan::default();
            scan.object(text.as_bytes()).unwrap();
            let mut id = Vec::new();
            let found = scan.get(text.as_bytes(), b"id").unwrap().write_id(&mut id);
            let id = String::from_utf8(id).unwrap();
            assert_eq!(
                found.map(|()| id.as_str()).map_err(|_| ()),
                expected,
                "{text}"
            );
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            "\\PC{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec(("[a-z\"\\\\é]{1,3}", inner), 0..3)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_whole_parser(
            pairs in prop::collection::btree_map("[a-z\"\\\\é]{1,4}", value(), 0..6),
            pretty: bool,
        ) {
            let object = Value::Object(pairs.into_iter().filter(|(name, _)| name != "id").collect());
            let text = if pretty { format!("{object:#}") } else { object.to_string() };
            let out = canonical(&text).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Value>(&out).unwrap(), &object);
            prop_assert_eq!(canonical(&out), Ok(out));
        }

        #[test]
        fn it_never_takes_what_a_whole_parser_refuses(text in "[{}\\[\\]\":,a0-9\\\\ntru.e-]{0,12}") {
            if canonical(&text).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }
    }
}
