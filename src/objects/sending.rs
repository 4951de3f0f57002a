//! Owns how credentials, headers, certificates, batches and grammars are said in flags.
//!
//! It must never print a credential. The surprise: `@FILE` in its place names a file that holds it,
//! since a command line can be seen by others on the machine.

use serde_json::{Map, Value, json};

use super::json as json_flag;
use super::limit::millis;
use crate::cli::Sending;
use crate::settings::Usage;

/// The members of an endpoint's body that `said` makes.
///
/// # Errors
/// What cannot be read; the API judges the values.
pub(super) fn members(said: Sending) -> Result<Map<String, Value>, Usage> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    put("batch", said.batch.as_deref().map(batch).transpose()?);
    put("grammar", said.grammar.as_deref().map(grammar).transpose()?);
    let disable_after = said.disable_after.as_deref().map(disable_after);
    put("disable_after_ms", disable_after.transpose()?);
    put("reenable", said.reenable.map(Value::from));
    put("header_case", said.header_case.map(Value::from));
    put("compress", said.compress.map(Value::from));
    let headers = said.headers.iter().map(|text| header(text));
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    put(
        "headers",
        Some(headers).filter(|all| !all.is_empty()).map(Value::from),
    );
    let authentication = [
        said.basic.as_deref().map(basic),
        said.bearer.as_deref().map(bearer),
        said.api_key.as_deref().map(api_key),
        said.oauth2.as_deref().map(oauth2),
    ];
    for authentication in authentication.into_iter().flatten() {
        put("authentication", Some(authentication?));
    }
    let mut certificate = Map::new();
    for (name, flag, file) in [
        (
            "certificate_pem",
            "--client-certificate",
            said.client_certificate,
        ),
        ("key", "--client-key", said.client_key),
    ] {
        if let Some(file) = file {
            certificate.insert(name.to_owned(), contents(flag, &file)?.into());
        }
    }
    put(
        "client_certificate",
        Some(certificate)
            .filter(|all| !all.is_empty())
            .map(Value::from),
    );
    Ok(members)
}

/// A credential, or what the file named after `@` holds, without the line's end.
///
/// # Errors
/// Where the file cannot be read.
pub(super) fn credential(flag: &str, text: &str) -> Result<String, Usage> {
    match text.strip_prefix('@') {
        Some(file) => Ok(contents(flag, file)?
            .trim_end_matches(['\r', '\n'])
            .to_owned()),
        None => Ok(text.to_owned()),
    }
}

fn contents(flag: &str, file: &str) -> Result<String, Usage> {
    std::fs::read_to_string(file).map_err(|error| Usage(format!("`{flag}`: {file}: {error}")))
}

/// What is said of the two sides of a colon; never quotes the second.
fn pair<'a>(flag: &str, text: &'a str, form: &str) -> Result<(&'a str, &'a str), Usage> {
    let wrong = || Usage(format!("`{flag}`: expected `{form}`"));
    let (first, second) = text.split_once(':').ok_or_else(wrong)?;
    Ok((first.trim(), second.trim()))
}

fn header(text: &str) -> Result<Value, Usage> {
    let (name, value) = pair("--header", text, "NAME: VALUE")?;
    Ok(json!({"name": name, "value": value}))
}

fn basic(text: &str) -> Result<Value, Usage> {
    let (username, password) = pair("--basic", text, "USER:PASSWORD or USER:@FILE")?;
    let password = credential("--basic", password)?;
    Ok(json!({"kind": "basic", "username": username, "password": password}))
}

fn bearer(text: &str) -> Result<Value, Usage> {
    Ok(json!({"kind": "bearer", "token": credential("--bearer", text)?}))
}

fn api_key(text: &str) -> Result<Value, Usage> {
    let (header, value) = pair("--api-key", text, "HEADER:VALUE or HEADER:@FILE")?;
    let value = credential("--api-key", value)?;
    Ok(json!({"kind": "api_key", "header": header, "value": value}))
}

/// `TOKEN_URL,CLIENT_ID:SECRET[,scope=…][,audience=…][,client_in=…]`
fn oauth2(text: &str) -> Result<Value, Usage> {
    const FORM: &str = "TOKEN_URL,CLIENT_ID:SECRET[,scope=…][,audience=…][,client_in=body]";
    let wrong = || Usage(format!("`--oauth2`: expected `{FORM}`"));
    let mut parts = text.split(',');
    let (url, client) = (
        parts.next().unwrap_or_default(),
        parts.next().ok_or_else(wrong)?,
    );
    let (id, secret) = pair("--oauth2", client, FORM)?;
    let mut members = Map::new();
    let secret = credential("--oauth2", secret)?;
    for (name, value) in [
        ("kind", "oauth2"),
        ("token_url", url),
        ("client_id", id),
        ("client_secret", &secret),
    ] {
        members.insert(name.to_owned(), value.into());
    }
    for part in parts {
        let (name, value) = part.split_once('=').ok_or_else(wrong)?;
        members.insert(name.to_owned(), value.into());
    }
    Ok(members.into())
}

/// `ITEMS[,bytes=N][,wait=TIME][,format=array]`
fn batch(text: &str) -> Result<Value, Usage> {
    let wrong = || {
        Usage(format!(
            "`--batch {text}`: expected e.g. `50` or `50,bytes=100000,wait=20ms,format=array`"
        ))
    };
    let mut parts = text.split(',');
    let items = parts
        .next()
        .and_then(|items| items.trim().parse::<u64>().ok());
    let mut members = Map::new();
    members.insert("max_items".to_owned(), items.ok_or_else(wrong)?.into());
    for part in parts {
        let (name, value) = match part.split_once('=').ok_or_else(wrong)? {
            ("bytes", bytes) => {
                let bytes: u64 = bytes.parse().map_err(|_| wrong())?;
                ("max_bytes", bytes.into())
            }
            ("wait", wait) => ("max_wait_ms", millis(wait).ok_or_else(wrong)?.into()),
            ("format", format) => ("format", format.into()),
            _ => return Err(wrong()),
        };
        members.insert(name.to_owned(), value);
    }
    Ok(members.into())
}

/// A response grammar, as text or in a file (rule 15).
fn grammar(text: &str) -> Result<Value, Usage> {
    const FLAG: &str = "--grammar";
    match text.strip_prefix('@') {
        Some(file) => json_flag(FLAG, &contents(FLAG, file)?),
        None => json_flag(FLAG, text),
    }
}

fn disable_after(text: &str) -> Result<Value, Usage> {
    if text == "never" {
        return Ok(0.into());
    }
    let wrong = || {
        Usage(format!(
            "`--disable-after {text}`: expected e.g. `5d` or `never`"
        ))
    };
    millis(text).map(Value::from).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn credentials_are_said_in_a_word_or_by_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "from file").unwrap();
        let path = file.path().display();
        let said = Sending {
            basic: Some(format!("me:@{path}")),
            headers: vec!["X-A: b:c".to_owned()],
            ..Sending::default()
        };
        let expected = json!({
            "headers": [{"name": "X-A", "value": "b:c"}],
            "authentication": {"kind": "basic", "username": "me", "password": "from file"},
        });
        assert_eq!(Value::from(members(said).unwrap()), expected);
        let oauth2 = oauth2("https://l.example/t,me:hush,scope=a b,client_in=body").unwrap();
        let expected = json!({
            "kind": "oauth2", "token_url": "https://l.example/t", "client_id": "me",
            "client_secret": "hush", "scope": "a b", "client_in": "body",
        });
        assert_eq!(oauth2, expected);
        assert_eq!(
            api_key("X-Key: k:1").unwrap(),
            json!({"kind": "api_key", "header": "X-Key", "value": "k:1"})
        );
    }

    #[test]
    fn batches_and_ages_are_said_in_a_word() {
        assert_eq!(batch("50").unwrap(), json!({"max_items": 50}));
        let all = json!({"max_items": 5, "max_bytes": 9, "max_wait_ms": 20, "format": "array"});
        assert_eq!(batch("5,bytes=9,wait=20ms,format=array").unwrap(), all);
        assert_eq!(disable_after("5d").unwrap(), 432_000_000);
        assert_eq!(disable_after("never").unwrap(), 0);
        for wrong in ["", "x", "5,wait", "5,wait=1", "5,size=2"] {
            assert!(batch(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_grammar_is_said_by_a_file_or_as_it_is() {
        let text = r#"{"status": {"409": "delivered"}}"#;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{text}").unwrap();
        let said = |grammar: String| {
            let grammar = Some(grammar);
            members(Sending {
                grammar,
                ..Sending::default()
            })
        };
        let expected = json!({"grammar": {"status": {"409": "delivered"}}});
        for whole in [text.to_owned(), format!("@{}", file.path().display())] {
            assert_eq!(Value::from(said(whole).unwrap()), expected);
        }
        for wrong in ["{", "@/does/not/exist"] {
            let error = said(wrong.to_owned()).unwrap_err().0;
            assert!(error.contains("`--grammar`"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_without_the_credential() {
        let texts = [
            basic("hush").unwrap_err().0,
            oauth2("hush").unwrap_err().0,
            bearer("@/does/not/exist").unwrap_err().0,
        ];
        assert!(texts.iter().all(|text| !text.contains("hush")), "{texts:?}");
    }
}
