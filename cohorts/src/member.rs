//! Owns what a member is: an id, and its other fields in canonical form with their hash. Pure: it
//! decides over bytes and keeps nothing.
//!
//! *Canonical* means: a JSON object without the id, its fields in the order of their names' bytes,
//! no white space outside strings; names and values are otherwise left as they were written. So
//! neither the order of fields nor the layout of a file makes a member look changed, but `1.0` for
//! `1` does: the worst of that is an update that was not needed.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The longest member id, in bytes.
pub const ID_BYTES_MAX: usize = 1 << 10;

/// The longest row, and so the largest member, in bytes.
pub const ROW_BYTES_MAX: usize = 64 << 10;

/// The hash of a member's canonical fields: equal hashes are equal content.
#[must_use]
pub fn content_hash(canonical: &[u8]) -> u64 {
    xxh3_64(canonical)
}

/// A 128-bit hash over parts that cannot run into one another: each is preceded by its length.
#[must_use]
pub fn hash_of_parts(parts: &[&[u8]]) -> u128 {
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    xxh3_128(&text)
}

/// Says what is wrong with a member id, if anything is.
///
/// # Errors
/// The reason, for the list of rejects.
pub fn check_id(id: &[u8]) -> Result<(), &'static str> {
    if id.is_empty() {
        return Err("the id is empty");
    }
    if id.len() > ID_BYTES_MAX {
        return Err("the id is longer than 1 KiB");
    }
    if id.iter().any(u8::is_ascii_control) {
        return Err("the id has a control character");
    }
    Ok(())
}

/// Appends a member as partners' templates see it: `{"id":"…",…fields}`.
pub fn write_json(id: &str, canonical: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    write_string(id, out);
    if let Some(fields) = canonical.strip_prefix(b"{").filter(|rest| rest.len() > 1) {
        out.push(b',');
        out.extend_from_slice(fields);
    } else {
        out.push(b'}');
    }
}

/// Appends `text` as a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain_from = 0;
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(plain_from..at).unwrap_or_default());
        plain_from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(bytes.get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

/// The canonical object of only those `fields` that `canonical` has: what a removal needs, kept in
/// the roster when the member itself is gone. Empty when there are none.
#[must_use]
pub fn select(canonical: &[u8], fields: &[String]) -> Vec<u8> {
    if fields.is_empty() {
        return Vec::new();
    }
    let mut scan = crate::scan::Scan::default();
    if scan.object(canonical).is_err() {
        return Vec::new();
    }
    let mut kept = Vec::new();
    scan.write_canonical(
        canonical,
        |name| fields.iter().any(|f| f.as_bytes() == name),
        &mut kept,
    );
    if kept.len() > 2 { kept } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_as_an_object_that_opens_with_its_id() {
        for (id, fields, expected) in [
            ("a", "{}", r#"{"id":"a"}"#),
            ("a", "", r#"{"id":"a"}"#),
            ("a\"b\\", r#"{"x":1}"#, r#"{"id":"a\"b\\","x":1}"#),
            (
                "\u{1}\n\té",
                r#"{"x":[1]}"#,
                "{\"id\":\"\\u0001\\n\\té\",\"x\":[1]}",
            ),
        ] {
            let mut json = Vec::new();
            write_json(id, fields.as_bytes(), &mut json);
            assert_eq!(String::from_utf8(json.clone()).unwrap(), expected);
            let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(read["id"], id);
        }
    }

    #[test]
    fn ids_have_bounds() {
        assert!(check_id(b"a").is_ok());
        assert!(check_id(&[b'a'; ID_BYTES_MAX]).is_ok());
        assert!(check_id(&[b'a'; ID_BYTES_MAX + 1]).is_err());
        for bad in [&b""[..], b"a\0b", b"a\nb", b"\x7f"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_selection_keeps_the_named_fields_alone() {
        let body = br#"{"age":3,"email":"a@b","phone":"+1"}"#;
        let names = ["phone".to_owned(), "email".to_owned()];
        assert_eq!(select(body, &names), br#"{"email":"a@b","phone":"+1"}"#);
        assert_eq!(select(body, &["x".to_owned()]), b"");
        assert_eq!(select(body, &[]), b"");
    }

    #[test]
    fn parts_do_not_run_into_one_another() {
        assert_ne!(hash_of_parts(&[b"ab", b"c"]), hash_of_parts(&[b"a", b"bc"]));
        assert_eq!(hash_of_parts(&[b"ab", b"c"]), hash_of_parts(&[b"ab", b"c"]));
    }
}
