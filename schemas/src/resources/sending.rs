//! Owns how requests to an endpoint are made up beside their body: authentication, headers, the
//! client's certificate, and the secrets behind them.
//!
//! A secret is here in its sealed form alone (rule 17): nothing in this module can open it.

use serde::{Deserialize, Serialize};

/// The most headers of an endpoint's own.
pub const HEADERS_MAX: usize = 32;

/// What a signing secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretKind {
    /// `whsec_`: both sides know it; signs with `v1` (WH-5).
    #[default]
    Symmetric,
    /// `whsk_`: the endpoint knows its public key; signs with `v1a` (WH-6).
    Ed25519,
}

/// A signing secret, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Names the secret within its endpoint: the `field` of the associated data.
    pub id: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "is_symmetric")]
    pub kind: SecretKind,
    /// The sealed text.
    pub sealed: String,
    /// The public key (`whpk_…`) of an asymmetric one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Signs until then (unix milliseconds); `None` for the current secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// A text that nobody may read again, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedText {
    /// Names it within its endpoint: the `field` of the associated data.
    pub id: String,
    /// The sealed text.
    pub sealed: String,
}

/// How a request says on whose behalf it comes. `S` is the form of what is secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Authentication<S = SealedText> {
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: S,
    },
    /// `Authorization: Bearer` (RFC 6750).
    Bearer {
        /// The token.
        token: S,
    },
    /// A key in a header.
    ApiKey {
        /// The header's name.
        header: String,
        /// Its value.
        value: S,
    },
    /// OAuth 2.0 client credentials (RFC 6749 §4.4).
    Oauth2(ClientCredentials<S>),
}

/// Where tokens are fetched, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCredentials<S = SealedText> {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: S,
    /// The scopes asked for, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The audience asked for, where the server wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// How the client names itself to the server.
    #[serde(default)]
    pub client_in: ClientIn,
}

/// Where a token request names its client (RFC 6749 §2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientIn {
    /// In `Authorization: Basic`, which every server must take.
    #[default]
    Header,
    /// In the form.
    Body,
}

/// A header of the endpoint's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticHeader {
    /// Its name, in any case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// In which case headers' names are sent over HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderCase {
    /// `webhook-id`
    #[default]
    Lower,
    /// `Webhook-Id`
    Title,
}

/// What the client shows in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate<S = SealedText> {
    /// The certificate, then those that lead to its authority, as PEM.
    pub certificate_pem: String,
    /// Its private key, as PEM.
    pub key: S,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_symmetric(kind: &SecretKind) -> bool {
    matches!(kind, SecretKind::Symmetric)
}

impl<S> Authentication<S> {
    /// What nobody may read again.
    pub fn secret(&self) -> &S {
        match self {
            Self::Basic { password, .. } => password,
            Self::Bearer { token } => token,
            Self::ApiKey { value, .. } => value,
            Self::Oauth2(client) => &client.client_secret,
        }
    }

    /// The member that holds it.
    pub fn secret_name(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "password",
            Self::Bearer { .. } => "token",
            Self::ApiKey { .. } => "value",
            Self::Oauth2(_) => "client_secret",
        }
    }

    /// The same with its secret in another form.
    ///
    /// # Errors
    /// Those of `form`.
    pub fn try_map<T, E>(
        self,
        form: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<Authentication<T>, E> {
        Ok(match self {
            Self::Basic { username, password } => Authentication::Basic {
                username,
                password: form(password)?,
            },
            Self::Bearer { token } => Authentication::Bearer {
                token: form(token)?,
            },
            Self::ApiKey { header, value } => Authentication::ApiKey {
                header,
                value: form(value)?,
            },
            Self::Oauth2(client) => Authentication::Oauth2(ClientCredentials {
                token_url: client.token_url,
                client_id: client.client_id,
                client_secret: form(client.client_secret)?,
                scope: client.scope,
                audience: client.audience,
                client_in: client.client_in,
            }),
        })
    }
}
