//! Writes an event as JSON in one pass.
//!
//! Never parses attributes or copies data twice. The surprise: whether `data` is a string or
//! base64 depends on the media type first, so that one producer's events all look alike.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::super::Reserved;
use crate::event::{AttributeValue, Event, essence};

/// Appends one event in the JSON format (CE-7 to CE-9).
pub fn encode(event: &Event, reserved: Reserved, out: &mut Vec<u8>) {
    out.reserve(event.size_bytes() + OVERHEAD_BYTES);
    let mut separator = b'{';
    for (context, text) in event.context() {
        write_name(separator, context.name(), out);
        write_string(text, out);
        separator = b',';
    }
    for (name, value) in event.extensions().filter(|(name, _)| reserved.admits(name)) {
        write_name(separator, name, out);
        write_value(value, out);
    }
    write_data(event, out);
    out.push(b'}');
}

/// Names of the context attributes, quotes and commas.
const OVERHEAD_BYTES: usize = 128;

/// Names need no escapes: they are of letters and digits (CE-1).
fn write_name(separator: u8, name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&[separator, b'"']);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_value(value: AttributeValue<'_>, out: &mut Vec<u8>) {
    match value {
        AttributeValue::Boolean(true) => out.extend_from_slice(b"true"),
        AttributeValue::Boolean(false) => out.extend_from_slice(b"false"),
        AttributeValue::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        AttributeValue::String(text)
        | AttributeValue::Uri(text)
        | AttributeValue::UriRef(text)
        | AttributeValue::Timestamp(text) => write_string(text, out),
        AttributeValue::Binary(bytes) => write_base64(bytes, out),
    }
}

/// CE-8, CE-9.
fn write_data(event: &Event, out: &mut Vec<u8>) {
    let Some(data) = event.data() else { return };
    if event.has_valid_json() {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
        return;
    }
    let text = event
        .datacontenttype()
        .filter(|media_type| is_text(media_type));
    if let Some(text) = text.and_then(|_| std::str::from_utf8(data).ok()) {
        out.extend_from_slice(b",\"data\":");
        write_string(text, out);
    } else {
        out.extend_from_slice(b",\"data_base64\":");
        write_base64(data, out);
    }
}

/// Media types beside `text/*` and XML whose content is text.
const TEXT_TYPES: &[&str] = &[
    "application/graphql",
    "application/javascript",
    "application/sql",
    "application/toml",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
];

fn is_text(media_type: &str) -> bool {
    let essence = essence(media_type).to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+yaml")
        || TEXT_TYPES.contains(&essence.as_str())
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends `text` as a JSON string with the least escapes (RFC 8259 §7).
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| is_escaped(*byte)) {
        let (clean, tail) = rest.split_at(at);
        out.extend_from_slice(clean);
        let Some((byte, after)) = tail.split_first() else {
            break;
        };
        write_escape(*byte, out);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
    }
}
