//! The windows' meaning, stated once for the tests: an oracle that keeps every moment.

use schemas::resources::{LimitUnit, RateWindow, WindowKind};

use super::NS_PER_MS;

/// Panics where `taken` (unix nanoseconds and items, in order) exceeds the window.
pub(crate) fn audit(window: RateWindow, taken: &[(u64, u32)]) {
    let per = window.per_ms.get() * NS_PER_MS;
    let count = u64::from(window.count.get());
    let units = |items: u32| match window.unit {
        LimitUnit::Requests => 1,
        LimitUnit::Items => u64::from(items),
    };
    match window.kind {
        WindowKind::Sliding => {
            for (at, (from, _)) in taken.iter().enumerate() {
                let inside = taken[at..].iter().take_while(|(to, _)| *to < from + per);
                let spent: u64 = inside.map(|(_, items)| units(*items)).sum();
                assert!(spent <= count, "{window:?}: {spent} from {from}");
            }
        }
        WindowKind::Fixed { offset_ms } => {
            let index = |at: u64| (at - offset_ms * NS_PER_MS) / per;
            for same in taken.chunk_by(|a, b| index(a.0) == index(b.0)) {
                let spent: u64 = same.iter().map(|(_, items)| units(*items)).sum();
                assert!(spent <= count, "{window:?}: {spent}");
            }
        }
        WindowKind::Spread { burst } => {
            let burst = u64::from(burst.unwrap().get());
            for (at, (from, _)) in taken.iter().enumerate() {
                let mut spent = 0;
                for (to, items) in &taken[at..] {
                    spent += units(*items);
                    let refilled = (to - from) / (per / count);
                    assert!(spent <= burst + refilled, "{window:?}: {spent} from {from}");
                }
            }
        }
    }
}
