//! Owns which request each command is: its method, path and body.

use reqwest::Method;
use serde_json::{Map, Value};

use super::{json as json_flag, limit, sending};
use crate::cli::{
    ApiArgs, Common, EndpointArgs, EndpointCommand, EndpointFields, KeyArgs, KeyCommand,
    NewEndpoint, OfTenant, One, SubscriptionArgs, SubscriptionCommand, Tenant, TenantArgs,
    TenantCommand, TenantFields, WebhookArgs, WebhookCommand, WhichEvents,
};
use crate::explain::input;
use crate::settings::Usage;

/// One request of the public API.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) api: ApiArgs,
    pub(super) method: Method,
    /// Behind `/v1`.
    pub(super) path: Vec<String>,
    pub(super) body: Option<Value>,
    /// Whether a change waits until it is applied.
    pub(super) wait: bool,
    /// Whether the answer is a page of objects.
    pub(super) list: bool,
}

impl Request {
    fn new(method: Method, path: &[&str], common: Common) -> Self {
        Self {
            api: common.api,
            method,
            path: path.iter().map(ToString::to_string).collect(),
            body: None,
            wait: !common.no_wait,
            list: false,
        }
    }

    /// About the kind of object at `path`, or one of it, under no tenant's path.
    pub(crate) fn of(method: Method, path: &[&str], common: Common, body: Option<Value>) -> Self {
        let list = method == Method::GET && path.len() == 1;
        Self {
            body,
            list,
            ..Self::new(method, path, common)
        }
    }

    fn with(self, body: Fields) -> Self {
        Self {
            body: Some(Value::Object(body.0)),
            ..self
        }
    }

    fn create(kind: &str, tenant: &Tenant, common: Common, body: Fields) -> Self {
        Self::new(Method::POST, &["tenants", &tenant.tenant, kind], common).with(body)
    }

    fn list(kind: &str, all: OfTenant) -> Self {
        let OfTenant { tenant, common } = all;
        let request = Self::new(Method::GET, &["tenants", &tenant.tenant, kind], common);
        Self {
            list: true,
            ..request
        }
    }

    fn one(method: Method, kind: &str, one: One) -> Self {
        let One { id, tenant, common } = one;
        Self::new(method, &["tenants", &tenant.tenant, kind, &id], common)
    }

    fn action(kind: &str, one: One, action: &str) -> Self {
        let mut request = Self::one(Method::POST, kind, one);
        request.path.push(action.to_owned());
        request
    }
}

/// The members of a body that were said.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put<T: Into<Value>>(mut self, name: &str, value: Option<T>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    fn tenant(self, fields: TenantFields) -> Self {
        let share = Self::default()
            .put("events_per_second", fields.fair_share_events)
            .put("bytes_per_second", fields.fair_share_bytes)
            .0;
        self.put("name", fields.name)
            .put("events_per_second", fields.events_per_second)
            .put("bytes_per_second", fields.bytes_per_second)
            .put("fair_share", (!share.is_empty()).then_some(share))
    }

    fn endpoint(self, fields: EndpointFields) -> anyhow::Result<Self> {
        let limits = fields.limits.iter().map(|text| limit::window(text));
        let limits = limits.collect::<Result<Vec<_>, _>>()?;
        let limits = Some(limits).filter(|limits| !limits.is_empty());
        let mut all = self
            .put("url", fields.url)
            .put("name", fields.name)
            .put("body", fields.body)
            .put("limits", limits)
            .put("concurrency", fields.concurrency)
            .put("timeout_ms", fields.timeout_ms);
        all.0.extend(sending::members(fields.sending)?);
        if let Some(text) = fields.json {
            let Value::Object(more) = json_flag("--json", &text)? else {
                return Err(Usage("`--json` takes an object".to_owned()).into());
            };
            all.0.extend(more);
        }
        Ok(all)
    }

    fn new_endpoint(self, new: NewEndpoint) -> Self {
        self.put("secret", new.secret)
            .put("signature", new.signature)
            .put("quota", new.quota)
    }

    fn events(self, events: WhichEvents) -> anyhow::Result<Self> {
        let types = Some(events.types).filter(|types| !types.is_empty());
        let filters = events
            .filters
            .map(|text| json_flag("--filters", &text))
            .transpose()?;
        let transform = match &events.transform {
            None => events.no_transform.then_some(Value::Null),
            Some(file) => Some(json_flag(&file.display().to_string(), &input(file)?)?),
        };
        Ok(self
            .put("types", types)
            .put("filters", filters)
            .put("ordered", events.ordered)
            .put("transform", transform))
    }
}

impl TryFrom<TenantArgs> for Request {
    type Error = anyhow::Error;

    fn try_from(args: TenantArgs) -> anyhow::Result<Self> {
        Ok(match args.command {
            TenantCommand::Create { id, fields, common } => {
                let body = Fields::default().put("id", Some(id)).tenant(fields);
                Self::new(Method::POST, &["tenants"], common).with(body)
            }
            TenantCommand::List(common) => Self {
                list: true,
                ..Self::new(Method::GET, &["tenants"], common)
            },
            TenantCommand::Show { id, common } => Self::new(Method::GET, &["tenants", &id], common),
            TenantCommand::Update { id, fields, common } => {
                let body = Fields::default().tenant(fields);
                Self::new(Method::PATCH, &["tenants", &id], common).with(body)
            }
            TenantCommand::Delete { id, common } => {
                Self::new(Method::DELETE, &["tenants", &id], common)
            }
        })
    }
}

impl TryFrom<KeyArgs> for Request {
    type Error = anyhow::Error;

    fn try_from(args: KeyArgs) -> anyhow::Result<Self> {
        Ok(match args.command {
            KeyCommand::Create {
                name,
                endpoint,
                tenant,
                common,
            } => {
                let body = Fields::default()
                    .put("name", name)
                    .put("endpoint", endpoint);
                Self::create("keys", &tenant, common, body)
            }
            KeyCommand::List(all) => Self::list("keys", all),
            KeyCommand::Delete(one) => Self::one(Method::DELETE, "keys", one),
        })
    }
}

impl TryFrom<EndpointArgs> for Request {
    type Error = anyhow::Error;

    fn try_from(args: EndpointArgs) -> anyhow::Result<Self> {
        const KIND: &str = "endpoints";
        Ok(match args.command {
            EndpointCommand::Create {
                fields,
                new,
                tenant,
                common,
            } => {
                let body = Fields::default().endpoint(fields)?.new_endpoint(new);
                Self::create(KIND, &tenant, common, body)
            }
            EndpointCommand::List(all) => Self::list(KIND, all),
            EndpointCommand::Show(one) => Self::one(Method::GET, KIND, one),
            EndpointCommand::Update { one, fields } => {
                let body = Fields::default().endpoint(fields)?;
                Self::one(Method::PATCH, KIND, one).with(body)
            }
            EndpointCommand::Delete(one) => Self::one(Method::DELETE, KIND, one),
            EndpointCommand::Pause(one) => Self::action(KIND, one, "pause"),
            EndpointCommand::Resume(one) => Self::action(KIND, one, "resume"),
            EndpointCommand::RotateSecret {
                one,
                secret,
                expires_in,
                signature,
            } => {
                let body = Fields::default()
                    .put("secret", secret)
                    .put("signature", signature)
                    .put("expires_in", expires_in);
                Self::action(KIND, one, "rotate-secret").with(body)
            }
            EndpointCommand::RotateCredential { one, value } => {
                let value = sending::credential("--value", &value)?;
                let body = Fields::default().put("value", Some(value));
                Self::action(KIND, one, "rotate-credential").with(body)
            }
            EndpointCommand::Test(one) => Self::action(KIND, one, "test"),
        })
    }
}

impl TryFrom<SubscriptionArgs> for Request {
    type Error = anyhow::Error;

    fn try_from(args: SubscriptionArgs) -> anyhow::Result<Self> {
        const KIND: &str = "subscriptions";
        Ok(match args.command {
            SubscriptionCommand::Create {
                endpoint,
                name,
                events,
                start,
                tenant,
                common,
            } => {
                let body = Fields::default()
                    .put("endpoint", Some(endpoint))
                    .put("name", name)
                    .put("start", start.start);
                Self::create(KIND, &tenant, common, body.events(events)?)
            }
            SubscriptionCommand::List(all) => Self::list(KIND, all),
            SubscriptionCommand::Show(one) => Self::one(Method::GET, KIND, one),
            SubscriptionCommand::Update { one, name, events } => {
                let body = Fields::default().put("name", name).events(events)?;
                Self::one(Method::PATCH, KIND, one).with(body)
            }
            SubscriptionCommand::Delete(one) => Self::one(Method::DELETE, KIND, one),
            SubscriptionCommand::Pause(one) => Self::action(KIND, one, "pause"),
            SubscriptionCommand::Resume(one) => Self::action(KIND, one, "resume"),
        })
    }
}

impl TryFrom<WebhookArgs> for Request {
    type Error = anyhow::Error;

    fn try_from(args: WebhookArgs) -> anyhow::Result<Self> {
        let WebhookCommand::Create {
            fields,
            new,
            events,
            start,
            tenant,
            common,
        } = args.command;
        let body = Fields::default()
            .endpoint(fields)?
            .new_endpoint(new)
            .put("start", start.start)
            .events(events)?;
        Ok(Self::create("webhooks", &tenant, common, body))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only these are about objects"
    )]
    fn request(line: &[&str]) -> anyhow::Result<Request> {
        let words = std::iter::once("anabranch").chain(line.iter().copied());
        match Cli::try_parse_from(words)?.command {
            Command::Tenant(args) => args.try_into(),
            Command::Key(args) => args.try_into(),
            Command::Endpoint(args) => args.try_into(),
            Command::Subscription(args) => args.try_into(),
            Command::Webhook(args) => args.try_into(),
            other => Err(anyhow!("{other:?} is not about objects")),
        }
    }

    /// A command, for tenant `a` where it takes one, and what it asks for; null for no body.
    fn check(line: &str, more: &[&str], asked: &str, body: &Value) {
        let words: Vec<&str> = line.split(' ').chain(more.iter().copied()).collect();
        let request = request(&words).unwrap();
        let (method, path) = (&request.method, request.path.join("/"));
        assert_eq!(format!("{method} {path}"), asked, "{line}");
        assert_eq!(
            request.body.as_ref().unwrap_or(&Value::Null),
            body,
            "{line}"
        );
    }

    #[test]
    fn commands_about_tenants_and_keys_are_their_requests() {
        let null = &Value::Null;
        let named = json!({"id": "a", "name": "A"});
        check("tenant create a --name A", &[], "POST tenants", &named);
        check("tenant list", &[], "GET tenants", null);
        check("tenant show a", &[], "GET tenants/a", null);
        let limits = json!({"events_per_second": 5});
        check(
            "tenant update a --events-per-second 5",
            &[],
            "PATCH tenants/a",
            &limits,
        );
        check("tenant delete a", &[], "DELETE tenants/a", null);
        check(
            "key create --tenant a",
            &[],
            "POST tenants/a/keys",
            &json!({}),
        );
        check("key list --tenant a", &[], "GET tenants/a/keys", null);
        check(
            "key delete key_1 --tenant a",
            &[],
            "DELETE tenants/a/keys/key_1",
            null,
        );
    }

    #[test]
    fn commands_about_endpoints_and_webhooks_are_their_requests() {
        let null = &Value::Null;
        check(
            "endpoint create --tenant a --url https://x/ --limit 9/1s --json",
            &[r#"{"max_age_ms":1000}"#],
            "POST tenants/a/endpoints",
            &json!({"url": "https://x/", "limits": [{"count": 9, "per_ms": 1000}], "max_age_ms": 1000}),
        );
        let said = "--compress --header-case title --signature v1a --bearer t --limit 5/m,sliding";
        check(
            &format!("endpoint create --tenant a --url https://x/ {said}"),
            &[],
            "POST tenants/a/endpoints",
            &json!({
                "url": "https://x/", "header_case": "title", "compress": true,
                "authentication": {"kind": "bearer", "token": "t"}, "signature": "v1a",
                "limits": [{"count": 5, "per_ms": 60_000, "kind": "sliding"}],
            }),
        );
        let endpoint = "tenants/a/endpoints/ep_1";
        check(
            "endpoint rotate-credential ep_1 --tenant a --value new",
            &[],
            &format!("POST {endpoint}/rotate-credential"),
            &json!({"value": "new"}),
        );
        check(
            "endpoint show ep_1 --tenant a",
            &[],
            &format!("GET {endpoint}"),
            null,
        );
        check(
            "endpoint pause ep_1 --tenant a",
            &[],
            &format!("POST {endpoint}/pause"),
            null,
        );
        check(
            "endpoint test ep_1 --tenant a",
            &[],
            &format!("POST {endpoint}/test"),
            null,
        );
        check(
            "endpoint rotate-secret ep_1 --tenant a --expires-in 0",
            &[],
            &format!("POST {endpoint}/rotate-secret"),
            &json!({"expires_in": 0}),
        );
        check(
            "webhook create --tenant a --url https://x/ --type t --start 2026-11-22T08:00:00Z",
            &[],
            "POST tenants/a/webhooks",
            &json!({"url": "https://x/", "types": ["t"], "start": "2026-11-22T08:00:00Z"}),
        );
    }

    #[test]
    fn commands_about_subscriptions_are_their_requests() {
        check(
            "subscription create --tenant a --endpoint ep_1 --type x --type y --ordered",
            &[],
            "POST tenants/a/subscriptions",
            &json!({"endpoint": "ep_1", "types": ["x", "y"], "ordered": true}),
        );
        check(
            "subscription create --tenant a --endpoint ep_1 --start latest",
            &[],
            "POST tenants/a/subscriptions",
            &json!({"endpoint": "ep_1", "start": "latest"}),
        );
        check(
            "subscription update sub_1 --tenant a --filters",
            &[r#"[{"exact":{"type":"x"}}]"#],
            "PATCH tenants/a/subscriptions/sub_1",
            &json!({"filters": [{"exact": {"type": "x"}}]}),
        );
        check(
            "subscription update sub_1 --tenant a --no-transform",
            &[],
            "PATCH tenants/a/subscriptions/sub_1",
            &json!({"transform": null}),
        );
        let resumed = "POST tenants/a/subscriptions/sub_1/resume";
        check(
            "subscription resume sub_1 --tenant a",
            &[],
            resumed,
            &Value::Null,
        );
    }

    #[test]
    fn json_that_is_none_is_a_usage_error() {
        for wrong in ["{", "[]"] {
            let line = [
                "endpoint",
                "create",
                "--tenant",
                "a",
                "--url",
                "https://x/",
                "--json",
                wrong,
            ];
            assert!(request(&line).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
