//! Cohorts and syncs: what can be made of them, and what goes with what.

use axum::body::Body;
use runtime::log::{Headers, ProducerOptions, Record};
use schemas::profile::{OperationKind, Profile, ready};
use schemas::records::{ControlObject, MemberCount, MemberCountKey};
use schemas::resources::{Subscription, Sync};
use serde_json::{Value, json};

use super::rig::{Answer, OPERATOR, Rig, request};

const COHORTS: &str = "/v1/tenants/acme/cohorts";
const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const SUBSCRIPTIONS: &str = "/v1/tenants/acme/subscriptions";
const SYNCS: &str = "/v1/tenants/acme/syncs";

/// A tenant with a cohort and an endpoint that a profile takes.
struct Scene {
    rig: Rig,
    key: String,
    cohort: String,
    endpoint: String,
}

impl Scene {
    async fn start() -> Self {
        let rig = Rig::start().await;
        let key = rig.acme().await;
        let cohort = rig
            .call(&key, &format!("POST {COHORTS}"), json!({ "name": "VIP" }))
            .await
            .expect(201)
            .string("/id");
        let endpoint = json!({
            "url": "https://partner.example",
            "authentication": { "kind": "bearer", "token": "t-1" },
        });
        let endpoint = rig
            .call(&key, &format!("POST {ENDPOINTS}"), endpoint)
            .await
            .expect(201)
            .string("/id");
        Self {
            rig,
            key,
            cohort,
            endpoint,
        }
    }

    async fn call(&self, call: &str, body: Value) -> Answer {
        self.rig.call(&self.key, call, body).await
    }

    fn body(&self, more: &Value) -> Value {
        let mut body = json!({
            "cohort": self.cohort, "endpoint": self.endpoint, "profile": "generic-50",
        });
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body
    }

    async fn sync(&self, more: &Value) -> Answer {
        self.call(&format!("POST {SYNCS}"), self.body(more)).await
    }

    /// Everything that `control` was told of one kind.
    fn stored<T>(&self, pick: impl Fn(ControlObject) -> Option<T>) -> Vec<T> {
        let records = self.rig.sim.records(&self.rig.topics.control.partition(0));
        let values = records.into_iter().filter_map(|record| record.value);
        values
            .filter_map(|value| pick(ControlObject::decode(&value).unwrap()))
            .collect()
    }

    fn stored_sync(&self) -> Sync {
        let mut syncs = self.stored(|object| {
            let ControlObject::Sync(sync) = object else {
                return None;
            };
            Some(*sync)
        });
        syncs.pop().unwrap()
    }

    fn hidden(&self) -> Subscription {
        let mut found = self.stored(|object| {
            let ControlObject::Subscription(subscription) = object else {
                return None;
            };
            Some(*subscription)
        });
        found.pop().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_cohort_lives_and_dies() {
    let scene = Scene::start().await;
    let path = format!("{COHORTS}/{}", scene.cohort);
    let shown = scene.call(&format!("GET {path}"), Value::Null).await;
    assert_eq!(shown.expect(200).string("/name"), "VIP");
    let patch = json!({ "name": "Gold" });
    let patched = scene.call(&format!("PATCH {path}"), patch).await;
    assert_eq!(patched.expect(200).string("/name"), "Gold");
    let refused = scene.call(&format!("POST {COHORTS}"), json!({})).await;
    assert_eq!(refused.expect(422).pointers(), ["/name"]);
    let listed = scene.call(&format!("GET {COHORTS}"), Value::Null).await;
    assert_eq!(listed.expect(200).string("/items/0/id"), scene.cohort);

    // A tenant goes last.
    let endpoint = format!("DELETE {ENDPOINTS}/{}", scene.endpoint);
    scene.call(&endpoint, Value::Null).await.expect(204);
    let tenant = "DELETE /v1/tenants/acme";
    scene.rig.operator(tenant, Value::Null).await.expect(409);
    let delete = format!("DELETE {path}");
    scene.call(&delete, Value::Null).await.expect(204);
    scene.call(&delete, Value::Null).await.expect(404);
    scene.rig.operator(tenant, Value::Null).await.expect(204);
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sync_holds_its_profile_whole_and_its_subscription_has_its_requests() {
    let scene = Scene::start().await;
    let schedule = json!({ "cron": "0 * * * *", "time_zone": "Europe/Zurich" });
    let made = scene
        .sync(&json!({ "schedule": schedule }))
        .await
        .expect(201);
    let shown = made.json();
    assert_eq!(shown["profile"]["id"], "generic-50");
    assert_eq!(shown["variables"], json!({ "name": "VIP" }));
    assert_eq!(shown["schedule"], schedule);
    assert_eq!(
        (
            &shown["overlap"],
            &shown["removals_max_percent"],
            &shown["state"]
        ),
        (&json!("replace"), &json!(20), &json!("active"))
    );
    let profile = Profile::from_yaml(ready("generic-50").unwrap()).unwrap();
    let (sync, subscription) = (scene.stored_sync(), scene.hidden());
    assert_eq!(*sync.profile, profile);
    assert_eq!(shown["id"], sync.id.to_string());
    assert_eq!(sync.subscription, subscription.id);
    assert_eq!(sync.placement, subscription.placement);
    assert!(subscription.hidden);
    let request = subscription.request.as_deref().unwrap();
    assert_eq!(
        request.get(OperationKind::Add),
        profile.operations.get(OperationKind::Add)
    );
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_or_changes_the_subscription_of_a_sync() {
    let scene = Scene::start().await;
    let shown = scene.sync(&json!({})).await.expect(201);
    let own = json!({ "endpoint": scene.endpoint, "types": ["a"] });
    let own = scene.call(&format!("POST {SUBSCRIPTIONS}"), own).await;
    let own = own.expect(201).string("/id");
    let listed = scene
        .call(&format!("GET {SUBSCRIPTIONS}?limit=1"), Value::Null)
        .await;
    let listed = listed.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["items"][0]["id"], &listed["next"]),
        (&json!(own), &Value::Null)
    );
    let path = format!("{SUBSCRIPTIONS}/{}", shown.string("/subscription"));
    for call in [
        format!("GET {path}"),
        format!("PATCH {path}"),
        format!("DELETE {path}"),
        format!("POST {path}/pause"),
    ] {
        scene.call(&call, json!({})).await.expect(404);
    }
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_limits_gets_those_of_the_profile() {
    let scene = Scene::start().await;
    let path = format!("{ENDPOINTS}/{}", scene.endpoint);
    let limits = async || {
        let shown = scene.call(&format!("GET {path}"), Value::Null).await;
        let shown = shown.expect(200).json();
        (shown["limits"].clone(), shown["concurrency"].clone())
    };
    scene
        .sync(&json!({ "apply_limits": false }))
        .await
        .expect(201);
    assert_eq!(limits().await, (json!([]), Value::Null));
    scene.sync(&json!({})).await.expect(201);
    let window = json!({ "count": 1_000, "per_ms": 1_000, "kind": "sliding", "unit": "requests" });
    assert_eq!(limits().await, (json!([window]), json!(16)));
    // What its owner says stays.
    let patch = json!({ "limits": [{ "count": 5 }], "concurrency": 2 });
    scene
        .call(&format!("PATCH {path}"), patch)
        .await
        .expect(200);
    let before = limits().await;
    scene.sync(&json!({})).await.expect(201);
    assert_eq!(limits().await, before);
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_one_quota_get_the_profiles_limits_together() {
    let scene = Scene::start().await;
    let mut ids = Vec::new();
    for at in 0..2 {
        let body = json!({
            "url": format!("https://partner.example/{at}"), "quota": "crm",
            "authentication": { "kind": "bearer", "token": "t-1" },
        });
        let made = scene.call(&format!("POST {ENDPOINTS}"), body).await;
        ids.push(made.expect(201).string("/id"));
    }
    scene.sync(&json!({ "endpoint": ids[0] })).await.expect(201);
    for id in ids {
        let shown = scene
            .call(&format!("GET {ENDPOINTS}/{id}"), Value::Null)
            .await;
        assert_eq!(shown.expect(200).json()["concurrency"], 16, "{id}");
    }
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_refused_by_name() {
    let scene = Scene::start().await;
    let bare = scene.rig.endpoint().await;
    let bare = bare.rsplit('/').next().unwrap().to_owned();
    let check = async |more: Value, expected: &[&str]| {
        let refused = scene.sync(&more).await.expect(422);
        assert_eq!(refused.pointers(), expected, "{more}");
    };
    check(
        json!({ "cohort": "coh_00000000000000000000000001" }),
        &["/cohort"],
    )
    .await;
    check(
        json!({ "endpoint": "ep_00000000000000000000000001" }),
        &["/endpoint"],
    )
    .await;
    check(json!({ "endpoint": bare }), &["/endpoint"]).await;
    check(json!({ "profile": "nobody" }), &["/profile"]).await;
    check(
        json!({ "profile": "braze-users-track", "variables": { "cohort": "vip" } }),
        &["/variables/attribute"],
    )
    .await;
    check(
        json!({ "schedule": { "cron": "0 0 30 2 *", "time_zone": "UTC" } }),
        &["/schedule/cron"],
    )
    .await;
    let listed = scene.call(&format!("GET {SYNCS}"), Value::Null).await;
    assert_eq!(listed.expect(200).json()["items"], json!([]));
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sync_is_paused_changed_and_deleted_with_its_subscription() {
    let scene = Scene::start().await;
    let made = scene.sync(&json!({})).await.expect(201);
    let path = format!("{SYNCS}/{}", made.string("/id"));
    for (action, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
    ] {
        let changed = scene
            .call(&format!("POST {path}/{action}"), Value::Null)
            .await;
        assert_eq!(changed.expect(200).string("/state"), state);
    }
    let patch = json!({ "removals_max_percent": 50, "overlap": "skip" });
    let patched = scene
        .call(&format!("PATCH {path}"), patch)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&patched["removals_max_percent"], &patched["overlap"]),
        (&json!(50), &json!("skip"))
    );
    let patch = json!({ "endpoint": scene.endpoint });
    let refused = scene
        .call(&format!("PATCH {path}"), patch)
        .await
        .expect(422);
    assert_eq!(refused.pointers(), ["/endpoint"]);

    // The cohort is kept for as long as something sends it.
    let cohort = format!("DELETE {COHORTS}/{}", scene.cohort);
    let kept = scene.call(&cohort, Value::Null).await.expect(409);
    assert!(kept.string("/detail").contains(&made.string("/id")));
    scene
        .call(&format!("DELETE {path}"), Value::Null)
        .await
        .expect(204);
    scene
        .call(&format!("GET {path}"), Value::Null)
        .await
        .expect(404);
    scene.call(&cohort, Value::Null).await.expect(204);
    let endpoint = format!("DELETE {ENDPOINTS}/{}", scene.endpoint);
    scene.call(&endpoint, Value::Null).await.expect(204);
    // Its subscription went with it, or the tenant would have to stay.
    let tenant = "DELETE /v1/tenants/acme";
    scene.rig.operator(tenant, Value::Null).await.expect(204);
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_takes_its_syncs_with_it() {
    let scene = Scene::start().await;
    let made = scene.sync(&json!({})).await.expect(201);
    let endpoint = format!("DELETE {ENDPOINTS}/{}", scene.endpoint);
    scene.call(&endpoint, Value::Null).await.expect(204);
    let path = format!("GET {SYNCS}/{}", made.string("/id"));
    scene.call(&path, Value::Null).await.expect(404);
    let cohort = format!("DELETE {COHORTS}/{}", scene.cohort);
    scene.call(&cohort, Value::Null).await.expect(204);
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_sync_is_one_sync() {
    // HT-7, HT-8
    let scene = Scene::start().await;
    let send = async |body: &Value| {
        let request = request(OPERATOR, &format!("POST {SYNCS}"));
        let request = request.header("idempotency-key", "k-1");
        let body = Body::from(body.to_string());
        scene.rig.send(request.body(body).unwrap()).await
    };
    let body = scene.body(&json!({}));
    let made = send(&body).await.expect(201);
    let again = send(&body).await.expect(200);
    assert_eq!(made.json(), again.json());
    let other = scene.body(&json!({ "removals_max_percent": 1 }));
    send(&other).await.expect(422);
    let listed = scene.call(&format!("GET {SYNCS}"), Value::Null).await;
    assert_eq!(
        listed.expect(200).json()["items"].as_array().unwrap().len(),
        1
    );
    scene.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn cohorts_and_syncs_are_their_tenants_alone() {
    let scene = Scene::start().await;
    let made = scene.sync(&json!({})).await.expect(201);
    let tenant = json!({ "id": "other" });
    scene
        .rig
        .operator("POST /v1/tenants", tenant)
        .await
        .expect(201);
    let other = scene
        .rig
        .operator("POST /v1/tenants/other/keys", Value::Null)
        .await;
    let other = other.expect(201).string("/key");
    let owner = json!({ "endpoint": scene.endpoint });
    let owner = scene.call("POST /v1/tenants/acme/keys", owner).await;
    let owner = owner.expect(201).string("/key");
    let sync = made.string("/id");
    for key in [&other, &owner] {
        for path in [
            format!("{SYNCS}/{sync}"),
            format!("{COHORTS}/{}", scene.cohort),
        ] {
            let call = format!("GET {path}");
            scene.rig.call(key, &call, Value::Null).await.expect(403);
        }
    }
    let call = format!("GET /v1/tenants/other/syncs/{sync}");
    scene.rig.call(&other, &call, Value::Null).await.expect(404);
    scene.rig.stop().await;
}

/// Says how many members there are, as the cohorts service does.
async fn tell(scene: &Scene, key: MemberCountKey, members: u64) {
    let log = scene.rig.sim.process("cohorts");
    let options = ProducerOptions::named("cohorts");
    let producer = log.producer(options).await.unwrap();
    let record = Record {
        topic: scene.rig.topics.progress.clone(),
        partition: None,
        key: Some(key.to_string().into()),
        value: Some(MemberCount::new(members, 0).encode().into()),
        headers: Headers::default(),
    };
    let written = producer.send(vec![record]).await.wait().await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_cannot_be_kept_is_refused() {
    let scene = Scene::start().await;
    let schedule = |cron: &str| json!({ "schedule": { "cron": cron, "time_zone": "UTC" } });
    let hourly = schedule("0 * * * *");
    // Nobody has said how many there are.
    let before = scene.sync(&hourly).await.expect(201).string("/id");
    // At 1,000 requests a second and 50 members each: 3,600 s, and one more.
    let cohort = MemberCountKey::Cohort(scene.cohort.parse().unwrap());
    tell(&scene, cohort, 180_000_000).await;
    scene.sync(&hourly).await.expect(201);
    tell(&scene, cohort, 180_050_001).await;
    let refused = scene.sync(&hourly).await.expect(422);
    assert_eq!(refused.pointers(), ["/schedule"]);
    assert!(refused.text.contains("3601 s"), "{refused:?}");
    scene.sync(&schedule("0 */2 * * *")).await.expect(201);
    let mut anyway = hourly.clone();
    anyway["schedule_must_fit"] = json!(false);
    scene.sync(&anyway).await.expect(201);

    let path = format!("PATCH {SYNCS}/{before}");
    // What stays is not looked at.
    scene
        .call(&path, json!({ "overlap": "skip" }))
        .await
        .expect(200);
    scene
        .call(&path, json!({ "schedule": null }))
        .await
        .expect(200);
    let refused = scene.call(&path, hourly.clone()).await.expect(422);
    assert_eq!(refused.pointers(), ["/schedule"]);
    // The partner has all but a few: the next run is a short one.
    let sync = MemberCountKey::Sync(before.parse().unwrap());
    tell(&scene, sync, 180_000_000).await;
    scene.call(&path, hourly).await.expect(200);
    scene.rig.stop().await;
}
