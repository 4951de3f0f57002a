//! Owns what clients say of cohorts and syncs.
//!
//! A sync that passes can be sent: its profile is whole, its settings are those of the profile, and
//! every request was rendered once. The surprise: what decides what is sent never changes, for what
//! was sent by the old could not be taken back by the new (rule 14).

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{COHORT, SYNC};
use super::{Faults, Fields, UrlPolicy, check, document, unreadable};
use crate::ids::{CohortId, EndpointId};
use crate::profile::{LIST_NAME, Profile, READY, ready};
use crate::resources::{Cohort, Overlap, REMOVALS_MAX_PERCENT, Schedule, Sync};

/// What is said of a cohort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CohortInput {
    /// A name for people.
    pub name: String,
}

/// What is said of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncInput {
    /// Whom it sends.
    pub cohort: CohortId,
    /// Where they go.
    pub endpoint: EndpointId,
    /// What the partner takes.
    pub profile: Box<Profile>,
    /// A name for people.
    pub name: Option<String>,
    /// The profile's settings.
    pub variables: Map<String, Value>,
    /// The partner's list, where it exists.
    pub list: Option<String>,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// Whether a schedule that cannot be kept is refused.
    pub schedule_must_fit: bool,
    /// What becomes of a run that is not over when the next is due.
    pub overlap: Overlap,
    /// The share that a run may remove without approval.
    pub removals_max_percent: u8,
    /// Whether the endpoint gets the profile's limits where it has none.
    pub apply_limits: bool,
}

impl CohortInput {
    /// Reads the body of a cohort.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        Self::of(&check::create(COHORT, body, &UrlPolicy::default())?)
    }

    /// What `cohort` becomes by a merge patch.
    ///
    /// # Errors
    /// Everything that is wrong with the patch or its result.
    pub fn patched(cohort: &Cohort, patch: &Value) -> Result<Self, Faults> {
        let document = document(COHORT, cohort);
        Self::of(&check::patch(
            COHORT,
            document,
            patch,
            &UrlPolicy::default(),
        )?)
    }

    fn of(fields: &Fields) -> Result<Self, Faults> {
        Ok(Self {
            name: fields.value("name").ok_or_else(unreadable)?,
        })
    }
}

impl SyncInput {
    /// Reads the body of a sync, but for what depends on other objects: see
    /// [`SyncInput::settle`].
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        let fields = check::create(SYNC, body, &UrlPolicy::default())?;
        let profile = fields.0.get("profile").ok_or_else(unreadable)?;
        let cohort = fields.value("cohort").ok_or_else(unreadable)?;
        let endpoint = fields.value("endpoint").ok_or_else(unreadable)?;
        let profile = Box::new(profile_in(profile)?);
        Ok(Self {
            list: fields.value("list"),
            apply_limits: fields.value("apply_limits").unwrap_or(true),
            ..Self::of(&fields, (cohort, endpoint), profile)
        })
    }

    /// What `sync` becomes by a merge patch.
    ///
    /// # Errors
    /// Everything that is wrong with the patch or its result.
    pub fn patched(sync: &Sync, patch: &Value) -> Result<Self, Faults> {
        let document = document(SYNC, sync);
        let fields = check::patch(SYNC, document, patch, &UrlPolicy::default())?;
        let input = Self {
            list: sync.list.clone(),
            apply_limits: false,
            ..Self::of(&fields, (sync.cohort, sync.endpoint), sync.profile.clone())
        };
        input.check_settings()?;
        input.keeps_settings(sync)?;
        Ok(input)
    }

    /// Says the name of the partner's list where the profile wants one and nobody said it, and
    /// checks the settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn settle(mut self, cohort: &Cohort) -> Result<Self, Faults> {
        if self.profile.variables.contains_key(LIST_NAME) && !self.variables.contains_key(LIST_NAME)
        {
            let name = Value::from(cohort.name.as_str());
            self.variables.insert(LIST_NAME.to_owned(), name);
        }
        self.check_settings()?;
        Ok(self)
    }

    fn check_settings(&self) -> Result<(), Faults> {
        self.profile
            .check_settings(&self.variables, self.list.as_deref())
    }

    fn of(
        fields: &Fields,
        (cohort, endpoint): (CohortId, EndpointId),
        profile: Box<Profile>,
    ) -> Self {
        Self {
            cohort,
            endpoint,
            profile,
            name: fields.value("name"),
            variables: fields.value("variables").unwrap_or_default(),
            list: None,
            schedule: fields.value("schedule"),
            schedule_must_fit: fields.value("schedule_must_fit").unwrap_or(true),
            overlap: fields.value("overlap").unwrap_or_default(),
            removals_max_percent: fields
                .value("removals_max_percent")
                .unwrap_or(REMOVALS_MAX_PERCENT),
            apply_limits: true,
        }
    }

    /// Only the name of a list that can be renamed may be another.
    fn keeps_settings(&self, sync: &Sync) -> Result<(), Faults> {
        let names = sync.variables.keys().chain(self.variables.keys());
        let changed = |name: &&String| sync.variables.get(*name) != self.variables.get(*name);
        let fixed = |name: &&String| name.as_str() != LIST_NAME || !self.profile.can_rename();
        let Some(name) = names.filter(changed).find(fixed) else {
            return Ok(());
        };
        let pointer = format!("/variables/{}", name.replace('~', "~0").replace('/', "~1"));
        Err(Faults::one(
            pointer,
            "cannot be changed, for what was sent by it could not be removed: make another sync",
        ))
    }
}

/// Checks a profile, said by its id or whole.
pub(super) fn profile(value: &Value) -> Result<(), Faults> {
    profile_in(value).map(drop)
}

fn profile_in(value: &Value) -> Result<Profile, Faults> {
    let Value::String(id) = value else {
        return Profile::read(value);
    };
    if let Some(file) = ready(id) {
        return Profile::from_yaml(file);
    }
    let known: Vec<&str> = READY.iter().map(|(id, _)| *id).collect();
    let detail = format!(
        "is none of those that come with the program ({}): give its content instead of its id",
        known.join(", ")
    );
    Err(Faults::one("", detail))
}

/// Checks a schedule.
pub(super) fn schedule(value: &Value) -> Result<(), Faults> {
    let Value::Object(members) = value else {
        return Err(Faults::one("", "must be an object"));
    };
    if let Some(name) = members
        .keys()
        .find(|name| !["cron", "time_zone"].contains(&name.as_str()))
    {
        let name: String = name.chars().take(64).collect();
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        return Err(Faults::one(pointer, "is not a known member"));
    }
    let text = |name: &str| {
        let missing = || Faults::one(format!("/{name}"), "is required");
        let value = members.get(name).filter(|value| !value.is_null());
        let text = String::deserialize(value.ok_or_else(missing)?);
        text.map_err(|_| Faults::one(format!("/{name}"), "must be a string"))
    };
    Schedule::new(&text("cron")?, &text("time_zone")?)
        .map(drop)
        .map_err(|error| Faults::one(format!("/{}", error.member()), error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::json;

    use super::*;
    use crate::ids::{SubscriptionId, SyncId};
    use crate::resources::{Placement, Quota, SyncState};

    const COHORT_ID: &str = "coh_00000000000000000000000001";
    const ENDPOINT_ID: &str = "ep_00000000000000000000000001";

    fn body(more: &Value) -> Value {
        let mut body = json!({
            "cohort": COHORT_ID, "endpoint": ENDPOINT_ID, "profile": "generic-50",
        });
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body
    }

    fn cohort() -> Cohort {
        Cohort {
            id: COHORT_ID.parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            name: "VIP".to_owned(),
            created_at: 0,
            updated_at: 0,
        }
    }

    fn sync(more: &Value) -> Sync {
        let input = SyncInput::read(&body(more)).unwrap();
        let input = input.settle(&cohort()).unwrap();
        Sync {
            id: SyncId::from_bits(1),
            tenant: "acme".parse().unwrap(),
            name: input.name,
            cohort: input.cohort,
            endpoint: input.endpoint,
            subscription: SubscriptionId::from_bits(1),
            placement: Placement::of(&Quota::from_text(""), NonZeroU32::MIN),
            profile: input.profile,
            variables: input.variables,
            list: input.list,
            schedule: input.schedule,
            overlap: input.overlap,
            removals_max_percent: input.removals_max_percent,
            state: SyncState::Active,
            created_at: 0,
            updated_at: 0,
        }
    }

    fn pointers(faults: Option<Faults>) -> Vec<String> {
        let faults = faults.map_or_else(Vec::new, |faults| faults.0);
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[track_caller]
    fn check(more: &Value, expected: &[&str]) {
        let read = SyncInput::read(&body(more)).and_then(|input| input.settle(&cohort()));
        assert_eq!(pointers(read.err()), expected, "{more}");
    }

    #[test]
    fn every_fault_names_its_member() {
        check(&json!({}), &[]);
        check(
            &json!({ "cohort": null, "endpoint": "x", "removals_max_percent": 101, "overlap": "no" }),
            &["/cohort", "/endpoint", "/overlap", "/removals_max_percent"],
        );
        check(&json!({ "profile": "nobody" }), &["/profile"]);
        check(&json!({ "profile": 7 }), &["/profile"]);
        check(&json!({ "state": "active" }), &["/state"]);
        check(&json!({ "variables": [] }), &["/variables"]);
        check(&json!({ "variables": { "nme": "x" } }), &["/variables/nme"]);
        check(&json!({ "profile": "iterable", "list": "x" }), &["/list"]);
    }

    #[test]
    fn a_schedule_is_checked_where_it_is() {
        let zone = "Europe/Zurich";
        check(
            &json!({ "schedule": { "cron": "0 * * * *", "time_zone": zone } }),
            &[],
        );
        check(&json!({ "schedule": "0 * * * *" }), &["/schedule"]);
        check(
            &json!({ "schedule": { "time_zone": zone } }),
            &["/schedule/cron"],
        );
        check(
            &json!({ "schedule": { "cron": "0 * * * *" } }),
            &["/schedule/time_zone"],
        );
        check(
            &json!({ "schedule": { "cron": "x", "time_zone": zone } }),
            &["/schedule/cron"],
        );
        check(
            &json!({ "schedule": { "cron": "0 * * * *", "time_zone": 7 } }),
            &["/schedule/time_zone"],
        );
        check(
            &json!({ "schedule": { "cron": "0 * * * *", "time_zone": zone, "a": 1 } }),
            &["/schedule/a"],
        );
    }

    #[test]
    fn a_list_is_named_after_its_cohort_where_nothing_else_is_said() {
        assert_eq!(sync(&json!({})).variables["name"], "VIP");
        let said = sync(&json!({ "variables": { "name": "Gold" } }));
        assert_eq!(said.variables["name"], "Gold");
    }

    #[test]
    fn a_profile_may_be_brought_whole() {
        let mut whole = serde_json::to_value(&*sync(&json!({})).profile).unwrap();
        whole["profile"] = json!("our-own");
        assert_eq!(
            sync(&json!({ "profile": whole })).profile.profile,
            "our-own"
        );
        whole["limits"]["items"] = json!(0);
        check(&json!({ "profile": whole }), &["/profile/limits/items"]);
    }

    #[test]
    fn what_decides_what_is_sent_never_changes() {
        // rule 14
        let check = |sync: &Sync, patch: Value, expected: &[&str]| {
            let found = SyncInput::patched(sync, &patch);
            assert_eq!(pointers(found.err()), expected, "{patch}");
        };
        let generic = sync(&json!({}));
        check(&generic, json!({ "variables": { "name": "Gold" } }), &[]);
        check(
            &generic,
            json!({ "variables": { "name": null } }),
            &["/variables"],
        );
        check(
            &generic,
            json!({ "cohort": COHORT_ID, "list": "7", "profile": "hubspot", "apply_limits": true }),
            &["/cohort", "/list", "/profile", "/apply_limits"],
        );
        let braze = sync(&json!({
            "profile": "braze-users-track",
            "variables": { "attribute": "cohorts", "cohort": "vip" },
        }));
        check(&braze, json!({ "variables": { "cohort": "vip" } }), &[]);
        check(
            &braze,
            json!({ "variables": { "cohort": "gold" } }),
            &["/variables/cohort"],
        );
    }

    #[test]
    fn a_patch_says_when_it_runs_and_what_it_may_remove() {
        let schedule = json!({ "cron": "0 * * * *", "time_zone": "UTC" });
        let old = sync(&json!({ "schedule": schedule, "removals_max_percent": 5 }));
        let patch = json!({ "schedule": { "cron": "5 * * * *" }, "overlap": "finish" });
        let input = SyncInput::patched(&old, &patch).unwrap();
        let read = input.schedule.unwrap();
        assert_eq!(
            (read.cron.as_str(), read.time_zone.as_str()),
            ("5 * * * *", "UTC")
        );
        assert_eq!(
            (input.overlap, input.removals_max_percent),
            (Overlap::Finish, 5)
        );
        let none = SyncInput::patched(&old, &json!({ "schedule": null })).unwrap();
        assert_eq!(none.schedule, None);
    }

    #[test]
    fn a_cohort_has_a_name() {
        let read = |body: Value| pointers(CohortInput::read(&body).err());
        assert_eq!(read(json!({ "name": "VIP" })), Vec::<String>::new());
        assert_eq!(read(json!({})), ["/name"]);
        assert_eq!(
            read(json!({ "name": "", "members": [] })),
            ["/name", "/members"]
        );
        let patched = CohortInput::patched(&cohort(), &json!({ "name": "Gold" })).unwrap();
        assert_eq!(patched.name, "Gold");
        assert!(CohortInput::patched(&cohort(), &json!({ "name": null })).is_err());
    }
}
