//! Owns how the command line talks about cohorts: definitions to `control`, members and runs to the
//! cohorts service.
//!
//! It must never hold members: bodies and reports are streams. The surprise: whoever names a cohort
//! or a sync may say its name instead of its id, where only one has it.

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use reqwest::{Body, Method, Response, Url};
use serde_json::Value;

use crate::api::{Answer, Api};
use crate::cli::ApiArgs;
use crate::settings::Settings;

/// How a client reaches the API and the cohorts service.
#[derive(Clone, Debug, Args)]
pub(crate) struct CohortsArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// Where `cohorts` is
    #[arg(
        long,
        env = "ANABRANCH_COHORTS_URL",
        default_value = "http://127.0.0.1:8082",
        help_heading = "Connection"
    )]
    pub(crate) cohorts_url: Url,
}

/// A client of `control` and of the cohorts service, for one tenant.
#[derive(Debug)]
pub(crate) struct Service {
    api: Api,
    base: Url,
    tenant: String,
}

/// What may be said by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Cohort,
    Sync,
}

impl Noun {
    const fn word(self) -> &'static str {
        match self {
            Self::Cohort => "cohort",
            Self::Sync => "sync",
        }
    }

    /// The part of a path.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Cohort => "cohorts",
            Self::Sync => "syncs",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Cohort => "coh_",
            Self::Sync => "syn_",
        }
    }
}

/// What goes with an upload beside its path.
#[derive(Debug, Default)]
pub(crate) struct Form {
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) content_encoding: Option<&'static str>,
}

impl Service {
    /// A client for `tenant`.
    ///
    /// # Errors
    /// As [`Api::new`].
    pub(crate) fn new(
        args: &CohortsArgs,
        tenant: &str,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let data_dir = &settings.config().general.data_dir;
        Ok(Self {
            api: Api::reaching(&args.api, &args.cohorts_url, data_dir)?,
            base: args.cohorts_url.clone(),
            tenant: tenant.to_owned(),
        })
    }

    /// Asks the cohorts service about something of the tenant.
    ///
    /// # Errors
    /// [`crate::api::Refused`] where the answer is a problem, else what went wrong on the way.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let path = self.path(path);
        let asked = self.api.ask(&self.base, (method, &path), body);
        asked.await.with_context(|| self.hint())?.accepted()
    }

    /// Reads something of the tenant at the cohorts service, with a query.
    ///
    /// # Errors
    /// What went wrong on the way; the answer may say no.
    pub(crate) async fn look(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let path = self.path(path);
        let request = self.api.begin(&self.base, (Method::GET, &path), query)?;
        let sent = self.api.finish(&self.base, request).await;
        sent.with_context(|| self.hint())
    }

    /// Asks `control` about something of the tenant.
    ///
    /// # Errors
    /// As [`Api::control`].
    pub(crate) async fn control(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let path = self.path(path);
        self.api.control(method, &path, query, body).await
    }

    /// Sends a body of any length, for as long as it takes.
    ///
    /// # Errors
    /// What went wrong on the way; the answer may say no.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        form: &Form,
        body: Body,
    ) -> anyhow::Result<Answer> {
        let query: Vec<(&str, &str)> = form
            .query
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let (method, path) = (Method::POST, self.path(path));
        let mut request = self.api.begin(&self.base, (method, &path), &query)?;
        if let Some(content_type) = form.content_type {
            request = request.header("content-type", content_type);
        }
        if let Some(encoding) = form.content_encoding {
            request = request.header("content-encoding", encoding);
        }
        let sent = self.api.finish(&self.base, request.body(body)).await;
        sent.with_context(|| self.hint())
    }

    /// The beginning of an answer of any length.
    ///
    /// # Errors
    /// As [`Service::ask`].
    pub(crate) async fn stream(&self, path: &[&str]) -> anyhow::Result<Response> {
        let path = self.path(path);
        let request = self.api.begin(&self.base, (Method::GET, &path), &[])?;
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        let response = sent.with_context(|| self.hint())?;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = Api::read(&self.base, response).await?;
        Err(answer.refused().into())
    }

    /// The id of what is named by its id, or by a name that it alone has.
    ///
    /// # Errors
    /// Where nothing has the name, or several have.
    pub(crate) async fn id(&self, noun: Noun, text: &str) -> anyhow::Result<String> {
        if text.starts_with(noun.prefix()) {
            return Ok(text.to_owned());
        }
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("limit", "100")];
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = self
                .control(Method::GET, &[noun.path()], &query, None)
                .await?;
            let page = page.json()?;
            let items = page.get("items").and_then(Value::as_array);
            let named = items.into_iter().flatten();
            let named = named.filter(|item| member(item, "name") == Some(text));
            found.extend(named.filter_map(|item| member(item, "id").map(str::to_owned)));
            match member(&page, "next") {
                Some(next) => cursor = Some(next.to_owned()),
                None => return self.only(noun, text, found),
            }
        }
    }

    fn only(&self, noun: Noun, text: &str, mut found: Vec<String>) -> anyhow::Result<String> {
        let word = noun.word();
        match (found.pop(), found.len()) {
            (Some(id), 0) => Ok(id),
            (Some(id), _) => {
                found.push(id);
                let ids = found.join(", ");
                anyhow::bail!("several are called `{text}`: say which {word} by its id: {ids}")
            }
            (None, _) => anyhow::bail!(
                "there is no {word} `{text}`: `anabranch {word} list --tenant {}` shows what there \
                 is, `anabranch {word} create` makes one",
                self.tenant
            ),
        }
    }

    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut path = vec!["tenants", self.tenant.as_str()];
        path.extend(rest);
        path
    }

    fn hint(&self) -> String {
        format!(
            "no cohorts service at {}: `anabranch up` and `anabranch cohorts` run one; name it with \
             `--cohorts-url`",
            self.base.origin().ascii_serialization()
        )
    }
}

/// A member's text.
pub(crate) fn member<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}
