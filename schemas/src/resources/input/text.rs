//! Owns the rules of single texts: names for people, secrets, headers, PEM. None quotes what must
//! not be read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const SYMMETRIC_PREFIX: &str = "whsec_";
const ASYMMETRIC_PREFIX: &str = "whsk_";

/// The longest name of a header.
const HEADER_NAME_CHARS_MAX: usize = 100;
/// Several certificates of large keys.
const CERTIFICATES_BYTES_MAX: usize = 32 * 1_024;
/// An RSA key of 8,192 bits has 6.4 KiB.
const PRIVATE_KEY_BYTES_MAX: usize = 16 * 1_024;

/// Headers that a request has by itself, or that say how a connection is used.
const SET_HEADERS: [&str; 18] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "forwarded",
];
/// Beginnings of headers that a request has by itself.
const SET_PREFIXES: [&str; 4] = ["anabranch-", "ce-", "proxy-", "webhook-"];

pub(super) fn plain(text: &str, max_chars: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().count() > max_chars {
        return Err(format!("must be at most {max_chars} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    Ok(())
}

/// WH-5, WH-6. The message never quotes the text.
pub(super) fn signing_secret(text: &str) -> Result<(), String> {
    let bytes = |text: &str| STANDARD.decode(text).ok().map(|bytes| bytes.len());
    if let Some(text) = text.strip_prefix(ASYMMETRIC_PREFIX) {
        return match bytes(text) {
            Some(32 | 64) => Ok(()),
            Some(length) => Err(format!(
                "must have the 32 bytes of an ed25519 key, or 64 with its public key, got {length}"
            )),
            None => Err("must be `whsk_` and standard base64".to_owned()),
        };
    }
    match text.strip_prefix(SYMMETRIC_PREFIX).and_then(bytes) {
        Some(24..=64) => Ok(()),
        Some(length) => Err(format!("must have 24 to 64 bytes, got {length}")),
        None => Err("must be `whsec_` and standard base64".to_owned()),
    }
}

/// A name that an endpoint may choose: none that a request has by itself.
pub(crate) fn header_name(name: &str) -> Result<(), String> {
    let is_token = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
    if name.is_empty() || name.len() > HEADER_NAME_CHARS_MAX || !name.chars().all(is_token) {
        return Err(format!(
            "must be a header's name of at most {HEADER_NAME_CHARS_MAX} characters"
        ));
    }
    let lower = name.to_ascii_lowercase();
    let is_set = SET_HEADERS.contains(&lower.as_str())
        || SET_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    if is_set {
        Err("is set by every request itself".to_owned())
    } else {
        Ok(())
    }
}

/// Visible ASCII with single spaces and tabs inside: what every server takes.
pub(super) fn header_value(value: &str, max_bytes: usize) -> Result<(), String> {
    if value.len() > max_bytes {
        return Err(format!("must be at most {max_bytes} bytes"));
    }
    let is_visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if value.trim() != value || value.is_empty() || !value.bytes().all(is_visible) {
        return Err("must be visible ASCII, without white space around it".to_owned());
    }
    Ok(())
}

/// What is hidden goes into headers and forms.
pub(super) fn hidden(text: &str, max_chars: usize) -> Result<(), String> {
    plain(text, max_chars)
}

pub(super) fn certificates(text: &str) -> Result<(), String> {
    if text.len() > CERTIFICATES_BYTES_MAX {
        return Err(format!("must be at most {CERTIFICATES_BYTES_MAX} bytes"));
    }
    match pem_labels(text) {
        Some(labels) if !labels.is_empty() && labels.iter().all(|label| label == "CERTIFICATE") => {
            Ok(())
        }
        Some(_) | None => Err("must be certificates in PEM and nothing else".to_owned()),
    }
}

pub(super) fn private_key(text: &str) -> Result<(), String> {
    if text.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(format!("must be at most {PRIVATE_KEY_BYTES_MAX} bytes"));
    }
    let labels = pem_labels(text).unwrap_or_default();
    match labels.as_slice() {
        [label] => match label.as_str() {
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Ok(()),
            "ENCRYPTED PRIVATE KEY" => Err("must not be encrypted".to_owned()),
            _ => Err("must be one private key in PEM".to_owned()),
        },
        _ => Err("must be one private key in PEM".to_owned()),
    }
}

/// The labels of PEM blocks (RFC 7468); `None` where one is damaged.
fn pem_labels(text: &str) -> Option<Vec<String>> {
    let mut labels = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines().map(str::trim) {
        let begins = line
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.strip_suffix("-----"));
        let ends = line
            .strip_prefix("-----END ")
            .and_then(|rest| rest.strip_suffix("-----"));
        open = match (open, begins, ends) {
            (None, Some(label), _) => Some((label, String::new())),
            // Text between blocks explains them.
            (None, None, None) => None,
            (Some((label, body)), None, Some(end)) => {
                let decoded = STANDARD.decode(&body).ok();
                if label != end || decoded.is_none_or(|bytes| bytes.is_empty()) {
                    return None;
                }
                labels.push(label.to_owned());
                None
            }
            (Some((label, mut body)), None, None) => {
                body.push_str(line);
                Some((label, body))
            }
            (Some(_), Some(_), _) | (None, None, Some(_)) => return None,
        };
    }
    open.is_none().then_some(labels)
}
