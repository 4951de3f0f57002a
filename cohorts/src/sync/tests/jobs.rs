//! Partners that take members by jobs that end later.

use std::num::NonZeroU32;
use std::time::Duration;

use schemas::profile::{Counted, Window};

use super::partner::{Jobs, Temper};
use super::rig::{Yard, paused};
use super::{RUN, members};

#[test]
fn members_in_a_partners_job_are_confirmed_by_its_end() {
    // rule 15
    for (jobs, made) in [(Jobs::OfChunks, 10), (Jobs::OfRuns, 1)] {
        paused(async move {
            let mut yard = Yard::new(Temper {
                refused: 7,
                ..Temper::calm(0)
            })
            .await;
            yard.with_jobs(jobs).await;
            yard.start().await;
            yard.upload(&members(0..100, 1)).await;
            yard.ask(RUN).await;
            // Three polls, ten minutes apart.
            yard.pass(Duration::from_secs(1_000)).await;
            let confirmed = yard.note().await.run.unwrap().counts.confirmed;
            assert_eq!(confirmed, 0, "{jobs:?}: none before the job's end");
            yard.crash();
            yard.start().await;
            yard.until_idle().await;
            let last = yard.note().await.last.unwrap();
            let taken = yard.taken(&members(0..100, 1));
            let counts = last.counts;
            assert_eq!(last.outcome, "done", "{jobs:?}: {last:?}");
            let expected = (taken.len() as u64, 0);
            assert_eq!((counts.confirmed, counts.unknown), expected, "{jobs:?}");
            assert_eq!(yard.partner.list, taken);
            let found = yard.partner.jobs_made;
            assert_eq!(found, made, "{jobs:?}: repeats are dropped");
            yard.partner.sends.clear();
            yard.ask(RUN).await;
            yard.until_idle().await;
            assert_eq!(yard.partner.sends.len(), 0, "{jobs:?}");
        });
    }
}

#[test]
fn a_partner_is_asked_after_jobs_as_often_as_its_window_for_that_allows() {
    // HT-9, rule 5
    for (jobs, polls, crashes) in [
        (Jobs::OfChunks, Some(30), false),
        (Jobs::OfRuns, Some(3), false),
        (Jobs::OfChunks, None, true),
    ] {
        paused(async move {
            let mut yard = Yard::new(Temper {
                answers: 0.2,
                ..Temper::calm(0)
            })
            .await;
            yard.with_jobs(jobs).await;
            yard.change_sync(|sync| {
                let poll = sync.profile.operations.poll.as_mut().unwrap();
                poll.every = NonZeroU32::MIN;
                poll.windows = vec![Window {
                    requests: NonZeroU32::new(2),
                    items: None,
                    seconds: NonZeroU32::new(60).unwrap(),
                    counted: Counted::Sliding,
                }];
            })
            .await;
            yard.start().await;
            yard.upload(&members(0..100, 1)).await;
            yard.ask(RUN).await;
            if crashes {
                yard.pass(Duration::from_secs(90)).await;
                assert!(yard.partner.polled_at.len() >= 2);
                yard.crash();
                yard.start().await;
            }
            yard.until_idle().await;
            assert_eq!(yard.partner.list.len(), 100);
            let at = &yard.partner.polled_at;
            assert_eq!(at.len(), polls.unwrap_or(at.len()), "{jobs:?}");
            let window = Duration::from_secs(60);
            let is_kept = |three: &[tokio::time::Instant]| three[2] - three[0] >= window;
            assert!(at.windows(3).all(is_kept), "{jobs:?}: {at:?}");
        });
    }
}
