//! Owns what clients say of authentication and certificates.
//!
//! A stored secret never comes back into a body. The surprise: a change may leave a secret out, and
//! then keeps it; but not while it sends the secret to another place, which would read it (rule 17).

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::{Origin, Url};

use super::{EndpointInput, Faults, Fields};
use crate::resources::{Authentication, ClientCertificate, Endpoint};

/// How requests authenticate; no secret where the one that is stored is kept.
pub type AuthenticationInput = Authentication<Option<SecretString>>;

/// What the client shows in the TLS handshake; no key where the one that is stored is kept.
pub type ClientCertificateInput = ClientCertificate<Option<SecretString>>;

fn secret(text: Option<String>) -> Option<SecretString> {
    text.map(SecretString::from)
}

pub(super) fn authentication(fields: &Fields) -> Option<AuthenticationInput> {
    let said: Authentication<Option<String>> = fields.value("authentication")?;
    let hidden: Result<_, std::convert::Infallible> = said.try_map(|text| Ok(secret(text)));
    let Ok(hidden) = hidden;
    Some(hidden)
}

pub(super) fn client_certificate(fields: &Fields) -> Option<ClientCertificateInput> {
    let said: ClientCertificate<Option<String>> = fields.value("client_certificate")?;
    Some(ClientCertificate {
        certificate_pem: said.certificate_pem,
        key: secret(said.key),
    })
}

/// Takes the sealed texts out of the body that would make `endpoint` again. Another kind of
/// authentication begins from nothing.
pub(super) fn hide(document: &mut Map<String, Value>, endpoint: &Endpoint, patch: &Value) {
    let remove = |document: &mut Map<String, Value>, object: &str, member: &str| {
        if let Some(Value::Object(object)) = document.get_mut(object) {
            object.remove(member);
        }
    };
    remove(document, "client_certificate", "key");
    let Some(authentication) = &endpoint.authentication else {
        return;
    };
    remove(document, "authentication", authentication.secret_name());
    let kind = document
        .get("authentication")
        .and_then(|old| old.get("kind"));
    let wanted = patch.get("authentication").and_then(|new| new.get("kind"));
    if wanted.is_some_and(|wanted| Some(wanted) != kind) {
        document.remove("authentication");
    }
}

/// Whether what a change leaves out is there to be kept.
pub(super) fn kept(endpoint: &Endpoint, input: &EndpointInput) -> Result<(), Faults> {
    if let Some(new) = &input.authentication
        && new.secret().is_none()
    {
        let pointer = format!("/authentication/{}", new.secret_name());
        match &endpoint.authentication {
            Some(old) if old.secret_name() != new.secret_name() => {
                return Err(Faults::one(pointer, "is required"));
            }
            None => return Err(Faults::one(pointer, "is required")),
            Some(old) if !same_place(endpoint, old, input, new) => {
                let detail = "is required: requests would take it to another place";
                return Err(Faults::one(pointer, detail));
            }
            Some(_) => {}
        }
    }
    let keeps_key = input
        .client_certificate
        .as_ref()
        .is_some_and(|new| new.key.is_none());
    if keeps_key && endpoint.client_certificate.is_none() {
        return Err(Faults::one("/client_certificate/key", "is required"));
    }
    Ok(())
}

/// Whether the secret goes where it went: to the token endpoint, else to the endpoint. The token
/// that comes of it goes to the endpoint too.
fn same_place(
    endpoint: &Endpoint,
    old: &Authentication,
    input: &EndpointInput,
    new: &AuthenticationInput,
) -> bool {
    if let (Authentication::Oauth2(old), Authentication::Oauth2(new)) = (old, new)
        && !same_origin(&old.token_url, &new.token_url)
    {
        return false;
    }
    same_origin(&endpoint.url, &input.url)
}

fn same_origin(old: &str, new: &str) -> bool {
    let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin());
    match (origin(old), origin(new)) {
        (Some(old @ Origin::Tuple(..)), Some(new)) => old == new,
        (Some(Origin::Opaque(_)) | None, _) | (_, None) => false,
    }
}
