//! The service as its clients see it.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use schemas::resources::{LimitUnit, RateWindow, WindowKind};

use super::members;
use super::partner::Temper;
use super::rig::{OPERATOR, Yard, paused};

const SNAPSHOTS: &str = "POST /v1/tenants/acme/cohorts/{cohort}/snapshots";
const MEMBERS: &str = "PATCH /v1/tenants/acme/cohorts/{cohort}/members";

/// A partner that refuses one member in seven, and a service.
async fn yard() -> Yard {
    let mut yard = Yard::new(Temper {
        refused: 7,
        ..Temper::calm(0)
    })
    .await;
    yard.start().await;
    yard
}

fn rows() -> String {
    let member = |id| format!("{{\"id\":\"m{id:04}\",\"v\":1}}\n");
    (1..11).map(member).collect()
}

#[test]
fn what_cannot_be_taken_is_said() {
    paused(async {
        let yard = yard().await;
        let csv = "id,v\nm0001,1\nm0002,1\n\nm0007,1\n";
        for (call, key, body, status) in [
            (SNAPSHOTS.to_owned(), "another-key", csv, 401),
            (SNAPSHOTS.replace("acme", "other"), OPERATOR, csv, 404),
            (format!("{SNAPSHOTS}?format=xls"), OPERATOR, csv, 422),
            (
                format!("{SNAPSHOTS}?from=/no/such/file.csv"),
                OPERATOR,
                "",
                422,
            ),
            (MEMBERS.to_owned(), OPERATOR, "{}", 422),
        ] {
            let answer = yard.call(&call, key, body).await;
            assert_eq!(answer.0, status, "{call}: {}", answer.1);
        }
        let bad = yard.call(SNAPSHOTS, OPERATOR, "{\"id\":1}\nno\n").await;
        assert!(bad.0 == 422 && bad.1.contains("\"line\":2"), "{}", bad.1);
    });
}

#[test]
fn a_plan_says_whether_a_schedule_can_be_kept() {
    paused(async {
        let mut yard = yard().await;
        // Ten members a request, and one of those in ten minutes.
        yard.limit(RateWindow {
            count: NonZeroU32::MIN,
            per_ms: NonZeroU64::new(600_000).unwrap(),
            unit: LimitUnit::Requests,
            kind: WindowKind::Sliding,
        })
        .await;
        yard.upload(&members(0..100, 1)).await;
        yard.pass(Duration::from_secs(1)).await;
        let (_, plan) = yard.plan().await;
        assert_eq!(plan["seconds"], 5_400);
        assert_eq!(plan.get("fits_schedule"), None);
        for (cron, seconds, fits) in [("0+*+*+*+*", 3_600, false), ("0+*/2+*+*+*", 7_200, true)] {
            let (_, plan) = yard.plan_for(cron).await;
            let found = (&plan["interval_seconds"], &plan["fits_schedule"]);
            assert_eq!(found, (&seconds.into(), &fits.into()), "{cron}");
        }
        assert_eq!(yard.plan_for("never").await.0, 422);
    });
}

#[test]
fn a_cohort_goes_to_a_partner_over_http() {
    paused(async {
        let mut yard = yard().await;
        let (status, body) = yard.call(SNAPSHOTS, OPERATOR, &rows()).await;
        assert!(status == 201 && body.contains("\"members\":10"), "{body}");
        let list = SNAPSHOTS.replace("POST", "GET");
        let (_, listed) = yard.call(&list, OPERATOR, "").await;
        assert_eq!(listed.matches("snap_").count(), 1, "{listed}");
        let (_, plan) = yard.plan().await;
        assert_eq!((&plan["add"], &plan["requests"]), (&10.into(), &1.into()));
        let run = format!("POST {}/runs", yard.sync_path());
        assert_eq!(yard.call(&run, OPERATOR, "").await.0, 202);
        yard.until_idle().await;
        let (_, status) = yard.status().await;
        assert_eq!(status["state"], "idle");
        assert_eq!(status["last"]["counts"]["confirmed"], 9);
        let expected =
            "{\"id\":\"m0007\",\"state\":\"rejected\",\"operation\":\"add\",\"code\":\"no\"}\n";
        assert_eq!(yard.report().await, expected);
        let changes = r#"{"add":[{"id":"m0003","v":2}],"remove":["m0001"]}"#;
        assert_eq!(yard.call(MEMBERS, OPERATOR, changes).await.0, 200);
        yard.until_idle().await;
        let mut expected = members(2..11, 1);
        expected.extend(members(3..4, 2));
        assert_eq!(yard.partner.list, yard.taken(&expected));
    });
}

#[test]
fn control_is_told_how_many_members_there_are() {
    paused(async {
        let mut yard = yard().await;
        let count = |yard: &Yard, of: &str| {
            let told = yard.told();
            let key = told.keys().find(|key| key.starts_with(of)).cloned();
            key.and_then(|key| told[&key])
        };
        let uploaded = yard.call(SNAPSHOTS, OPERATOR, &rows()).await;
        assert_eq!(uploaded.0, 201, "{}", uploaded.1);
        yard.ask(super::RUN).await;
        yard.until_idle().await;
        // One of them is refused by the partner.
        assert_eq!(count(&yard, "members/cohort/"), Some(10));
        assert_eq!(count(&yard, "members/sync/"), Some(9));
        let change = r#"{"add":[{"id":"m0020","v":1}]}"#;
        let changed = yard.call(MEMBERS, OPERATOR, change).await;
        assert_eq!(changed.0, 200, "{}", changed.1);
        yard.until_idle().await;
        assert_eq!(
            count(&yard, "members/cohort/"),
            None,
            "not known with changes"
        );
        assert_eq!(count(&yard, "members/sync/"), Some(10));
    });
}
