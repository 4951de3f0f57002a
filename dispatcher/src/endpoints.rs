//! Owns what this process knows of `control`: endpoints ready to be attempted, and which
//! subscriptions exist.
//!
//! It never reaches the network. Secrets are opened here and nowhere else, and never leave but as
//! signing keys.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use runtime::secret::{ExposeSecret, Sealer};
use runtime::view::{Change, Update};
use schemas::ids::{EndpointId, SubscriptionId, TenantId};
use schemas::profile::ResponseGrammar;
use schemas::records::{self, ControlKey, ControlObject};
use schemas::resources::{
    Batch, BodyMode, DISABLE_AFTER_MS, DisabledReason, Endpoint, EndpointState, HeaderCase,
    Placement, Quota, RateWindow, SealedText,
};
use tracing::error;
use url::Url;
use zeroize::Zeroizing;

use crate::delivery::identity::Identity;
use crate::delivery::sending::Sending;
use crate::delivery::sign::SigningKey;
use crate::delivery::template::Requests;
use crate::delivery::transform::Transforming;
use crate::delivery::{Destination, Dress};
use crate::order::{Key, is_line_of};
use crate::schedule::{DEFAULT_MAX_AGE, Schedule};

/// An endpoint in the form in which it is attempted.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its id.
    pub(crate) id: EndpointId,
    /// Its tenant.
    pub(crate) tenant: TenantId,
    /// Where requests go.
    pub(crate) destination: Arc<Destination>,
    /// What its attempts are counted against.
    pub(crate) quota: Quota,
    /// Its partition.
    pub(crate) placement: Placement,
    /// Whether it is attempted.
    pub(crate) state: EndpointState,
    /// How events are written.
    pub(crate) body: BodyMode,
    /// Several events in one request, if it takes them so.
    pub(crate) batch: Option<Batch>,
    /// How its answers are read, if they say more than their status.
    pub(crate) grammar: Option<Box<ResponseGrammar>>,
    /// The windows it allows.
    pub(crate) limits: Vec<RateWindow>,
    /// Requests at once, if it says so.
    pub(crate) concurrency: Option<u32>,
    /// An attempt's total deadline, if it says so.
    pub(crate) timeout: Option<Duration>,
    /// When retries are due and when they end.
    pub(crate) schedule: Schedule,
    /// Why it was disabled, if the pipeline did it and it may come back by itself.
    reenable: Option<DisabledReason>,
    /// After this time of failing it is given up; `None` for never.
    pub(crate) disable_after: Option<Duration>,
    /// When the endpoint was last changed, unix milliseconds.
    pub(crate) updated_at: i64,
    /// How its requests are made up beside event and signature.
    pub(crate) sending: Sending,
    keys: Vec<SigningKey>,
    /// Until when each key signs, unix milliseconds.
    expiries: Vec<Option<i64>>,
}

impl Target {
    /// Whether it is disabled for failing, and its owner allows it to come back by itself.
    pub(crate) fn may_come_back(&self) -> bool {
        self.state == EndpointState::Disabled && self.reenable == Some(DisabledReason::Failing)
    }

    /// The keys that sign at `now` (unix milliseconds), the current one first (WH-3).
    pub(crate) fn keys_at(&self, now: i64) -> Cow<'_, [SigningKey]> {
        let signs = |expiry: &Option<i64>| expiry.is_none_or(|expires_at| now < expires_at);
        if self.expiries.iter().all(signs) {
            return Cow::Borrowed(&self.keys);
        }
        let keys = self.keys.iter().zip(&self.expiries);
        keys.filter(|(_, expiry)| signs(expiry))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// The endpoints and subscriptions as far as `control` has been applied.
#[derive(Debug)]
pub(crate) struct Endpoints {
    sealer: Arc<Sealer>,
    by_id: HashMap<EndpointId, Arc<Target>>,
    /// Exist, and cannot be attempted as they are.
    unusable: HashMap<EndpointId, Quota>,
    /// Who shares a quota with others.
    shared: HashMap<Quota, BTreeSet<EndpointId>>,
    subscriptions: HashSet<SubscriptionId>,
    /// Of subscriptions that say how their deliveries become requests.
    requests: HashMap<SubscriptionId, Arc<Requests>>,
    /// Of subscriptions that transform events.
    transforms: HashMap<SubscriptionId, Arc<Transforming>>,
    applied: i64,
}

impl Endpoints {
    /// Knows nothing yet; `sealer` opens the secrets.
    pub(crate) fn new(sealer: Arc<Sealer>) -> Self {
        Self {
            sealer,
            by_id: HashMap::new(),
            unusable: HashMap::new(),
            shared: HashMap::new(),
            subscriptions: HashSet::new(),
            requests: HashMap::new(),
            transforms: HashMap::new(),
            applied: 0,
        }
    }

    /// Applies what `control` says next.
    pub(crate) fn apply(&mut self, update: Update) {
        for change in update.changes {
            self.change(change);
        }
        self.applied = update.applied;
    }

    /// The offset behind the last record of `control` that has been applied.
    pub(crate) fn applied(&self) -> i64 {
        self.applied
    }

    /// The endpoint, if it exists.
    pub(crate) fn get(&self, id: EndpointId) -> Option<&Arc<Target>> {
        self.by_id.get(&id)
    }

    /// Whether the endpoint exists and cannot be attempted: its deliveries wait.
    pub(crate) fn is_unusable(&self, id: EndpointId) -> bool {
        self.unusable.contains_key(&id)
    }

    /// Whether anybody is known who spends from `quota`.
    pub(crate) fn has_quota(&self, quota: &Quota) -> bool {
        self.of_quota(quota).next().is_some()
    }

    /// Whether the endpoint is known whose line this is.
    pub(crate) fn has_line(&self, key: &Key) -> bool {
        self.of_quota(&key.quota).any(|id| is_line_of(id, key))
    }

    /// Who is known to spend from `quota`. One that nobody shares bears its endpoint's name.
    fn of_quota(&self, quota: &Quota) -> impl Iterator<Item = EndpointId> {
        let own = quota.as_str().parse().ok();
        let exists = |id: &EndpointId| self.by_id.contains_key(id) || self.is_unusable(*id);
        let shared = self.shared.get(quota).into_iter().flatten();
        own.filter(exists).into_iter().chain(shared.copied())
    }

    /// Keeps who shares a quota with others.
    fn share(&mut self, id: EndpointId, quota: &Quota) {
        if *quota != Quota::of_endpoint(id) {
            self.shared.entry(quota.clone()).or_default().insert(id);
        }
    }

    fn share_no_more(&mut self, id: EndpointId, quota: &Quota) {
        if let Some(ids) = self.shared.get_mut(quota) {
            ids.remove(&id);
            if ids.is_empty() {
                self.shared.remove(quota);
            }
        }
    }

    /// Whether the subscription exists. The nil id stands for a delivery without one (a test
    /// event, addressed to an endpoint) and always does.
    pub(crate) fn has_subscription(&self, id: SubscriptionId) -> bool {
        id.bits() == 0 || self.subscriptions.contains(&id)
    }

    /// How a delivery becomes a request, where its subscription says so.
    pub(crate) fn requests(&self, target: &records::Target) -> Option<Arc<Requests>> {
        self.requests.get(&target.subscription).cloned()
    }

    /// Whether any subscription transforms events.
    pub(crate) fn has_transforms(&self) -> bool {
        !self.transforms.is_empty()
    }

    /// What becomes of a delivery's event on its way, where its subscription says so.
    pub(crate) fn transform(&self, target: &records::Target) -> Option<Arc<Transforming>> {
        self.transforms.get(&target.subscription).cloned()
    }

    /// Whether a delivery shares no request with others.
    pub(crate) fn goes_alone(&self, target: &records::Target) -> bool {
        let transform = self.transforms.get(&target.subscription);
        transform.is_some_and(|transform| transform.goes_alone())
    }

    /// Takes in a subscription as far as its requests are concerned.
    fn subscribe(&mut self, id: SubscriptionId, object: ControlObject) {
        self.subscriptions.insert(id);
        self.requests.remove(&id);
        self.transforms.remove(&id);
        let ControlObject::Subscription(subscription) = object else {
            return;
        };
        if let Some(templates) = subscription.request {
            let requests = Requests::new(id, *templates);
            self.requests.insert(id, Arc::new(requests));
        }
        if let Some(transform) = subscription.transform {
            let transforming = Transforming::new(id, transform);
            self.transforms.insert(id, Arc::new(transforming));
        }
    }

    fn change(&mut self, change: Change) {
        match (change.key, change.object) {
            (ControlKey::Endpoint(id), Some(ControlObject::Endpoint(endpoint))) => {
                let quota = endpoint.quota.clone();
                self.share(id, &quota);
                match self.resolve(*endpoint) {
                    Ok(target) => {
                        self.unusable.remove(&id);
                        self.by_id.insert(id, Arc::new(target));
                    }
                    // Control validates before it writes: this is a missing key or a later version.
                    // Its deliveries wait, so that nothing is lost meanwhile.
                    Err(reason) => {
                        error!(endpoint = %id, reason, "endpoint cannot be attempted");
                        self.by_id.remove(&id);
                        self.unusable.insert(id, quota);
                    }
                }
            }
            (ControlKey::Endpoint(id), _) => {
                let usable = self.by_id.remove(&id);
                let usable = usable.map(|target| target.quota.clone());
                if let Some(quota) = self.unusable.remove(&id).or(usable) {
                    self.share_no_more(id, &quota);
                }
            }
            (ControlKey::Subscription(id), Some(object)) => self.subscribe(id, object),
            (ControlKey::Subscription(id), None) => {
                self.subscriptions.remove(&id);
                self.requests.remove(&id);
                self.transforms.remove(&id);
            }
            (
                ControlKey::Installation
                | ControlKey::Tenant(_)
                | ControlKey::ApiKey(_)
                | ControlKey::Redrive(_)
                | ControlKey::Cohort(_)
                | ControlKey::Sync(_)
                | ControlKey::Source(_),
                _,
            ) => {}
        }
    }

    /// A secret's text, in the clear.
    fn open(&self, endpoint: EndpointId, secret: &SealedText) -> Result<Zeroizing<String>, String> {
        let opened = self
            .sealer
            .open(&endpoint.to_string(), &secret.id, &secret.sealed)
            .map_err(|error| format!("secret {}: {error}", secret.id))?;
        std::str::from_utf8(opened.expose_secret())
            .map(|text| Zeroizing::new(text.to_owned()))
            .map_err(|_| format!("secret {} is not text", secret.id))
    }

    fn sending(&self, endpoint: &Endpoint) -> Result<Sending, String> {
        let authentication = endpoint.authentication.clone();
        let authentication =
            authentication.map(|known| known.try_map(|secret| self.open(endpoint.id, &secret)));
        Sending::new(
            &endpoint.headers,
            authentication.transpose()?,
            endpoint.compress,
        )
    }

    fn identity(&self, endpoint: &Endpoint) -> Result<Option<Identity>, String> {
        let Some(certificate) = &endpoint.client_certificate else {
            return Ok(None);
        };
        let key = self.open(endpoint.id, &certificate.key)?;
        let identity = Identity::parse(&certificate.certificate_pem, key.as_bytes());
        identity
            .map(Some)
            .map_err(|error| format!("client certificate: {error}"))
    }

    fn resolve(&self, endpoint: Endpoint) -> Result<Target, String> {
        let url = Url::parse(&endpoint.url).map_err(|error| format!("url: {error}"))?;
        let object = endpoint.id.to_string();
        let keys = endpoint
            .secrets
            .iter()
            .map(|secret| {
                let opened = self
                    .sealer
                    .open(&object, &secret.id, &secret.sealed)
                    .map_err(|error| format!("secret {}: {error}", secret.id))?;
                let text = std::str::from_utf8(opened.expose_secret())
                    .map_err(|_| format!("secret {} is not text", secret.id))?;
                let signing = SigningKey::parse(text)
                    .map_err(|error| format!("secret {}: {error}", secret.id))?;
                Ok((signing, secret.expires_at))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let (keys, expiries) = keys.into_iter().unzip();
        let dress = Dress {
            title_case: endpoint.header_case == HeaderCase::Title,
            identity: self.identity(&endpoint)?.map(Arc::new),
        };
        let sending = self.sending(&endpoint)?;
        let mut schedule = Schedule::default();
        if let Some(waits) = endpoint.retry_schedule_ms {
            schedule.delays = waits.into_iter().map(Duration::from_millis).collect();
        }
        schedule.jitter = endpoint.retry_jitter;
        schedule.max_age = endpoint
            .max_age_ms
            .map_or(DEFAULT_MAX_AGE, Duration::from_millis);
        Ok(Target {
            id: endpoint.id,
            tenant: endpoint.tenant,
            destination: Arc::new(Destination::dressed(url, dress)),
            sending,
            quota: endpoint.quota,
            placement: endpoint.placement,
            state: endpoint.state,
            body: endpoint.body,
            batch: endpoint.batch,
            grammar: endpoint.grammar,
            limits: endpoint.limits,
            concurrency: endpoint.concurrency.map(std::num::NonZeroU32::get),
            timeout: endpoint
                .timeout_ms
                .map(|timeout| Duration::from_millis(u64::from(timeout.get()))),
            schedule,
            disable_after: Some(endpoint.disable_after_ms.unwrap_or(DISABLE_AFTER_MS))
                .filter(|after| *after > 0)
                .map(Duration::from_millis),
            reenable: endpoint
                .disabled
                .filter(|_| endpoint.reenable)
                .map(|disabled| disabled.reason),
            updated_at: endpoint.updated_at,
            keys,
            expiries,
        })
    }
}
