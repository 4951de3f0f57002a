//! Owns what endpoints authenticate with: sealing it, keeping what a change leaves out, replacing it,
//! and showing it without its secrets (rule 17).

use axum::extract::State;
use axum::response::Response;
use runtime::problem::{Problem, ProblemType};
use runtime::secret::{ExposeSecret, SecretString};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schemas::ids::EndpointId;
use schemas::resources::input::{ClientCertificateInput, CredentialInput, EndpointInput};
use schemas::resources::{Authentication, ClientCertificate, Endpoint, SealedText};
use serde_json::{Map, Value};

use super::auth::Principal;
use super::kind::change;
use super::request::{JsonBody, Params, Segments, Waiting, invalid};
use super::schema::CredentialBody;
use super::view::EndpointView;
use super::{App, conflict};

/// Seals `text` under a new name of `endpoint`'s.
fn seal(app: &App, endpoint: EndpointId, text: &SecretString) -> Result<SealedText, Problem> {
    let id = format!("cred_{:032x}", app.fresh_bits());
    let text = text.expose_secret().as_bytes();
    let sealed = app
        .sealer
        .seal(&endpoint.to_string(), &id, text, &app.entropy)
        .map_err(|error| {
            tracing::error!(%endpoint, %error, "credential cannot be sealed");
            Problem::new(ProblemType::Internal)
        })?;
    Ok(SealedText { id, sealed })
}

/// What is stored of what a client said, with what it left out as `old` has it.
#[derive(Debug)]
pub(super) struct Credentials {
    authentication: Option<Authentication>,
    client_certificate: Option<ClientCertificate>,
}

impl Credentials {
    /// Seals what `input` says for `endpoint`; `old` is the endpoint before a change.
    pub(super) fn seal(
        app: &App,
        endpoint: EndpointId,
        input: &mut EndpointInput,
        old: Option<&Endpoint>,
    ) -> Result<Self, Problem> {
        let known = old.and_then(|old| old.authentication.as_ref());
        let authentication = input.authentication.take().map(|said| {
            said.try_map(|text| match text {
                Some(text) => seal(app, endpoint, &text),
                // The checks of a change have seen that it is there.
                None => known
                    .map(|known| known.secret().clone())
                    .ok_or_else(|| Problem::new(ProblemType::Internal)),
            })
        });
        let certificate = input.client_certificate.take();
        let known = old.and_then(|old| old.client_certificate.as_ref());
        Ok(Self {
            authentication: authentication.transpose()?,
            client_certificate: certificate
                .map(|said| certify(app, endpoint, said, known))
                .transpose()?,
        })
    }

    /// `endpoint` with these.
    pub(super) fn put(self, endpoint: Endpoint) -> Endpoint {
        Endpoint {
            authentication: self.authentication,
            client_certificate: self.client_certificate,
            ..endpoint
        }
    }
}

/// Whether both say the same but for their secrets, which are sealed anew each time.
pub(super) fn is_like(new: &Endpoint, old: &Endpoint) -> bool {
    let bare = |endpoint: &Endpoint| {
        let authentication = endpoint.authentication.as_ref().map(shown);
        let certificate = endpoint.client_certificate.as_ref();
        (
            authentication,
            certificate.map(|known| known.certificate_pem.clone()),
        )
    };
    bare(new) == bare(old)
}

/// Its members but the secret.
pub(super) fn shown(authentication: &Authentication) -> Map<String, Value> {
    let mut members = match serde_json::to_value(authentication) {
        Ok(Value::Object(members)) => members,
        Ok(_) | Err(_) => Map::new(),
    };
    members.remove(authentication.secret_name());
    members
}

fn certify(
    app: &App,
    endpoint: EndpointId,
    said: ClientCertificateInput,
    known: Option<&ClientCertificate>,
) -> Result<ClientCertificate, Problem> {
    let key = match (&said.key, known) {
        (Some(text), _) => {
            belong_together(&said.certificate_pem, text.expose_secret().as_bytes())?;
            seal(app, endpoint, text)?
        }
        (None, Some(known)) => {
            let text = app
                .sealer
                .open(&endpoint.to_string(), &known.key.id, &known.key.sealed)
                .map_err(|error| {
                    tracing::error!(%endpoint, %error, "key of a client certificate does not open");
                    Problem::new(ProblemType::Internal)
                })?;
            belong_together(&said.certificate_pem, text.expose_secret())?;
            known.key.clone()
        }
        (None, None) => return Err(Problem::new(ProblemType::Internal)),
    };
    Ok(ClientCertificate {
        certificate_pem: said.certificate_pem,
        key,
    })
}

/// Whether TLS could use the two, so that it is known now and not at each attempt.
fn belong_together(certificates: &str, key: &[u8]) -> Result<(), Problem> {
    let wrong = |member: &str, detail: &str| {
        Problem::validation([(format!("/client_certificate/{member}"), detail.to_owned())])
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
    let certificates =
        certificates.map_err(|_| wrong("certificate_pem", "holds no certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| wrong("key", "is no private key that is known here"))?;
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(certificates, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(wrong("key", "does not belong to the certificate"))
        }
        Err(_) => Err(wrong("certificate_pem", "cannot be used for TLS")),
    }
}

/// Seals with the newest key what older keys have sealed.
pub(super) fn sealed_again(
    old: &Endpoint,
    again: impl Fn(&str, &str) -> Result<String, runtime::secret::Error>,
) -> Result<(Option<Authentication>, Option<ClientCertificate>), runtime::secret::Error> {
    let again = |text: SealedText| {
        let sealed = again(&text.id, &text.sealed)?;
        Ok::<_, runtime::secret::Error>(SealedText { sealed, ..text })
    };
    let authentication = old.authentication.clone();
    let certificate = old.client_certificate.clone();
    Ok((
        authentication
            .map(|known| known.try_map(again))
            .transpose()?,
        certificate
            .map(|known| {
                Ok(ClientCertificate {
                    key: again(known.key)?,
                    ..known
                })
            })
            .transpose()?,
    ))
}

/// All of an endpoint's sealed texts beside its signing secrets.
pub(super) fn sealed_texts(endpoint: &Endpoint) -> impl Iterator<Item = &SealedText> {
    let authentication = endpoint.authentication.as_ref().map(Authentication::secret);
    let key = endpoint.client_certificate.as_ref().map(|known| &known.key);
    authentication.into_iter().chain(key)
}

/// Replaces the secret that the endpoint's requests authenticate with: a password, a token, an API
/// key or a client's secret. It is used from the next attempt on.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/rotate-credential",
    operation_id = "rotate_credential", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id."), Waiting),
    request_body = CredentialBody,
    responses((status = 200, body = EndpointView, description = "Replaced.")))]
pub(super) async fn rotate(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let place = principal.endpoint(&tenant, &endpoint)?;
    let CredentialInput { value } = CredentialInput::read(&body).map_err(invalid)?;
    let sealed = seal(&app, place.1, &value)?;
    change(&app, waiting, place, move |old: &Endpoint| {
        let Some(known) = old.authentication.clone() else {
            return Err(conflict("the endpoint has no `authentication`"));
        };
        let authentication: Result<_, std::convert::Infallible> = known.try_map(|_| Ok(sealed));
        let Ok(authentication) = authentication;
        Ok(Endpoint {
            authentication: Some(authentication),
            ..old.clone()
        })
    })
    .await
}
