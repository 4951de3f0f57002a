//! Owns what the demo needs before the first event: a tenant, its key, an endpoint and a
//! subscription for each department, all made by the public API; and the commands that do the same.

use std::net::SocketAddr;

use anyhow::Context;
use dispatcher::delivery::sign::VerifyingKey;
use reqwest::{Method, Url};
use runtime::config::Config;
use runtime::secret::ExposeSecret;
use schemas::ids::SubscriptionId;
use serde_json::{Value, json};

use super::samples::Department;
use crate::api::Api;
use crate::cli::ApiArgs;
use crate::keyring::Keyring;
use crate::output;

/// Where the demo plays.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) tenant: String,
    pub(super) run: String,
    pub(super) ingest: SocketAddr,
    pub(super) control: SocketAddr,
    pub(super) config: Config,
}

/// What was made.
#[derive(Debug)]
pub(super) struct Cast {
    /// With the tenant's own key.
    pub(super) publisher: Api,
    pub(super) signing: VerifyingKey,
    pub(super) subscriptions: Vec<(Department, SubscriptionId)>,
    endpoint: String,
    key: String,
}

impl Stage {
    /// Makes everything; the endpoint is at `address`.
    ///
    /// # Errors
    /// What the API refuses.
    pub(super) async fn set(&self, address: SocketAddr) -> anyhow::Result<Cast> {
        let operator = self.config.control.operator_key.as_ref();
        let api = self.api(operator.map(|key| key.expose_secret().to_owned()))?;
        let tenant = self.tenant.as_str();
        post(
            &api,
            &["tenants"],
            &json!({"id": tenant, "name": "The demo"}),
        )
        .await?;
        let key = post(
            &api,
            &["tenants", tenant, "keys"],
            &json!({"name": "publisher"}),
        )
        .await?;
        let url = json!({"url": format!("http://{address}/"), "name": "This terminal"});
        let endpoint = post(&api, &["tenants", tenant, "endpoints"], &url).await?;
        let (endpoint, secret) = (text(&endpoint, "id")?, text(&endpoint, "secret")?);
        let mut subscriptions = Vec::new();
        for department in Department::ALL {
            let body = json!({
                "endpoint": endpoint,
                "name": department.name(),
                "filters": department.filters(),
            });
            let made = post(&api, &["tenants", tenant, "subscriptions"], &body).await?;
            subscriptions.push((department, text(&made, "id")?.parse()?));
        }
        Ok(Cast {
            publisher: self.api(Some(text(&key, "key")?.to_owned()))?,
            signing: VerifyingKey::parse(secret)?,
            subscriptions,
            endpoint: endpoint.to_owned(),
            key: text(&key, "id")?.to_owned(),
        })
    }

    /// Removes everything again.
    ///
    /// # Errors
    /// What the API refuses.
    pub(super) async fn strike(&self, cast: &Cast) -> anyhow::Result<()> {
        let operator = self.config.control.operator_key.as_ref();
        let api = self.api(operator.map(|key| key.expose_secret().to_owned()))?;
        let tenant = self.tenant.as_str();
        let paths: [&[&str]; 3] = [
            &["tenants", tenant, "endpoints", &cast.endpoint],
            &["tenants", tenant, "keys", &cast.key],
            &["tenants", tenant],
        ];
        for path in paths {
            api.control(Method::DELETE, path, &[], None).await?;
        }
        Ok(())
    }

    fn api(&self, key: Option<String>) -> anyhow::Result<Api> {
        let args = ApiArgs {
            control_url: Url::parse(&format!("http://{}", self.control))?,
            ingest_url: Url::parse(&format!("http://{}", self.ingest))?,
            key,
        };
        Api::new(&args, &self.config.general.data_dir)
    }

    /// Prints the commands that do the same, and how to do it on Kafka.
    ///
    /// # Errors
    /// Where nobody reads standard output.
    pub(super) fn by_hand(&self) -> std::io::Result<()> {
        output::text(
            "\nThe same by hand, each in a terminal of its own:\n\
             \x20 anabranch up\n\
             \x20 anabranch listen --port 9000\n\
             \x20 anabranch deliveries tail\n\
             and in another:\n\
             \x20 anabranch tenant create demo\n\
             \x20 anabranch endpoint create --tenant demo --url http://127.0.0.1:9000/\n",
        )?;
        for department in Department::ALL {
            output::line(format_args!(
                "  anabranch subscription create --tenant demo --endpoint ep_… --name {} --filters '{}'",
                department.name(),
                department.filters()
            ))?;
        }
        output::text("  anabranch demo --print-events | anabranch publish --tenant demo\n\n")?;
        if self.config.kafka.brokers.is_empty() {
            output::line(
                "The same on Kafka (`deploy/kafka/kafka up` starts one on this machine):",
            )?;
            output::line("  anabranch demo --brokers HOST:PORT")?;
        } else {
            let prefix = &self.config.topics.prefix;
            output::line(format_args!(
                "This was on Kafka; its topics begin with `{prefix}`."
            ))?;
        }
        Ok(())
    }

    /// Says where everything is, for those who look around.
    ///
    /// # Errors
    /// Where nobody reads standard output.
    pub(super) fn invite(&self) -> std::io::Result<()> {
        let data = self.config.general.data_dir.display();
        let key = Keyring::operator_path(&self.config.general.data_dir);
        output::line(format_args!(
            "\nLeft running until Ctrl-C. Commands find it with:\n\
             \x20 export ANABRANCH_CONTROL_URL=http://{} ANABRANCH_INGEST_URL=http://{}\n\
             \x20 export ANABRANCH_DATA_DIR={data} ANABRANCH_TENANT={}\n\
             The operator's key is in {}.",
            self.control,
            self.ingest,
            self.tenant,
            key.display()
        ))
    }
}

async fn post(api: &Api, path: &[&str], body: &Value) -> anyhow::Result<Value> {
    let what = || format!("making {}", path.last().unwrap_or(&"nothing"));
    let applied = [("wait", "applied")];
    let answer = api
        .control(Method::POST, path, &applied, Some(body))
        .await
        .with_context(what)?;
    answer.json()
}

fn text<'a>(value: &'a Value, member: &str) -> anyhow::Result<&'a str> {
    let text = value.get(member).and_then(Value::as_str);
    text.with_context(|| format!("answer has no `{member}`"))
}
