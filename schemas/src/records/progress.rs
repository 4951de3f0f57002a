//! Owns what the owner of a placement leaves on `progress` for the next one: the state of each
//! lane, blocked keys, and the mark of a take-over.
//!
//! Times are unix milliseconds, rounded up where that is the stricter side. The surprise: what a
//! window has *reserved* counts as spent at the moment of a take-over, for nobody knows when it was
//! spent; so reserving is written before spending (rule 5).

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::ids::EndpointId;
use crate::resources::{DisabledReason, LimitUnit, Quota};

/// The key of a record that an owner writes on `progress`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProgressKey {
    /// A lane's state: `lane/{quota}`.
    Lane(Quota),
    /// A blocked key of a lane: `order/{quota}/{hash of the key}`.
    Order(Quota, u64),
    /// The last take-over of a placement: `owner/{placement}`.
    Owner(u32),
}

/// What one window has spent. What equals a new window's state is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowProgress {
    /// Its length.
    pub per_ms: NonZeroU64,
    /// What it counts.
    #[serde(default)]
    pub unit: LimitUnit,
    /// Beyond `spent`: may have been spent at any time until the next record.
    #[serde(default)]
    pub reserved: u64,
    /// What was spent for certain.
    #[serde(flatten)]
    pub spent: Spent,
}

/// What was spent of a window, by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Spent {
    /// Evenly: when all of it is whole again.
    Spread {
        /// Unix milliseconds.
        whole_at: i64,
    },
    /// Sliding: pairs of a time after `from` and how many, in order.
    Sliding {
        /// Unix milliseconds.
        from: i64,
        /// Milliseconds after `from`, and how many.
        spent: Vec<(u64, u64)>,
    },
    /// Fixed: the window and how many.
    Fixed {
        /// Its offset from multiples of its length.
        offset_ms: u64,
        /// When it began.
        begins_at: i64,
        /// How many.
        spent: u64,
    },
}

/// A breaker that does not equal a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BreakerProgress {
    /// When the next probe may go; `None` while it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_at: Option<i64>,
    /// The wait before that probe.
    #[serde(default)]
    pub interval_ms: u64,
    /// Since when nothing was delivered though it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<i64>,
    /// When an attempt last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
}

/// That an endpoint of the lane was disabled, until it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisabledProgress {
    /// Which.
    pub endpoint: EndpointId,
    /// The change of the endpoint that it is true of.
    pub updated_at: i64,
    /// Why.
    pub reason: DisabledReason,
    /// When.
    pub at: i64,
}

/// That a disabled endpoint of the lane works again, until it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnabledProgress {
    /// Which.
    pub endpoint: EndpointId,
    /// The change of the endpoint that it is true of.
    pub updated_at: i64,
    /// When.
    pub at: i64,
}

/// How long a disabled endpoint of the lane waits for its next probe, until it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationProgress {
    /// Which.
    pub endpoint: EndpointId,
    /// The change of the endpoint that it is true of.
    pub updated_at: i64,
    /// No probe before.
    pub not_before: i64,
    /// The wait before that probe.
    pub interval_ms: u64,
}

/// A lane's state as its owner left it; `null` when it equals a new lane's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneProgress {
    /// The version of this record's form: 1.
    pub version: u8,
    /// Whose lane.
    pub quota: Quota,
    /// When it was written.
    pub at: i64,
    /// No attempt before (rule 11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<i64>,
    /// When one more deferred delivery could be served (rule 7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_free_at: Option<i64>,
    /// What its long windows have spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowProgress>,
    /// Its breaker, where it does not equal a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerProgress>,
    /// Endpoints of it that are disabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<DisabledProgress>,
    /// Endpoints of it that were disabled and work again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enabled: Vec<EnabledProgress>,
    /// Endpoints of it that are disabled and were probed in vain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probation: Vec<ProbationProgress>,
}

/// A key whose head waits: all behind it wait too (rule 12); `null` when it is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderProgress {
    /// The version of this record's form: 1.
    pub version: u8,
    /// Whose lane.
    pub quota: Quota,
    /// The key's hash.
    pub key: u64,
    /// The sequence that may be attempted.
    pub head: u64,
    /// The sequence that is given next.
    pub tail: u64,
    /// When the head is due.
    pub due_at: i64,
    /// The offset and index in `deliveries` at which the head still is, when what follows it was
    /// deferred before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<(i64, u16)>,
    /// Sequences behind the head that have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<u64>,
}

/// That a process has begun to own a placement: what lies before it is all that others left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerProgress {
    /// The version of this record's form: 1.
    pub version: u8,
    /// Which placement.
    pub placement: u32,
    /// The process's instance name.
    pub instance: String,
    /// When.
    pub at: i64,
}

// === impl ProgressKey ===

impl fmt::Display for ProgressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(quota) => write!(f, "lane/{quota}"),
            Self::Order(quota, key) => write!(f, "order/{quota}/{key:016x}"),
            Self::Owner(placement) => write!(f, "owner/{placement}"),
        }
    }
}

impl FromStr for ProgressKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Invalid("progress key");
        match text.split_once('/') {
            Some(("lane", quota)) if !quota.is_empty() => Ok(Self::Lane(Quota::from_text(quota))),
            Some(("order", rest)) => {
                let (quota, key) = rest.rsplit_once('/').ok_or_else(invalid)?;
                let key = u64::from_str_radix(key, 16).map_err(|_| invalid())?;
                Ok(Self::Order(Quota::from_text(quota), key))
            }
            Some(("owner", number)) => number.parse().map(Self::Owner).map_err(|_| invalid()),
            Some(_) | None => Err(invalid()),
        }
    }
}

macro_rules! json_record {
    ($($record:ty => $key:expr;)*) => {$(
        impl $record {
            /// The key it is stored under.
            pub fn key(&self) -> ProgressKey {
                let key: fn(&Self) -> ProgressKey = $key;
                key(self)
            }

            /// The record's value.
            pub fn encode(&self) -> Vec<u8> {
                // A value of text and numbers alone: writing it cannot fail.
                serde_json::to_vec(self).unwrap_or_default()
            }

            /// Reads a value back. Members that a later version added are ignored.
            ///
            /// # Errors
            /// An unknown version, or JSON that does not fit.
            pub fn decode(value: &[u8]) -> Result<Self, Error> {
                super::decode_json(value)
            }
        }
    )*};
}

json_record! {
    LaneProgress => |lane| ProgressKey::Lane(lane.quota.clone());
    OrderProgress => |order| ProgressKey::Order(order.quota.clone(), order.key);
    OwnerProgress => |owner| ProgressKey::Owner(owner.placement);
}

impl LaneProgress {
    /// A lane's record that says nothing: what differs from a new lane is filled in.
    pub fn new(quota: Quota, at: i64) -> Self {
        Self {
            version: 1,
            quota,
            at,
            hold_until: None,
            next_free_at: None,
            windows: Vec::new(),
            breaker: None,
            disabled: Vec::new(),
            enabled: Vec::new(),
            probation: Vec::new(),
        }
    }

    /// Whether a new lane would be the same.
    pub fn is_new(&self) -> bool {
        *self == Self::new(self.quota.clone(), self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;

    fn quota() -> Quota {
        let tenant: TenantId = "acme".parse().unwrap();
        Quota::shared(&tenant, "hubspot")
    }

    fn full() -> LaneProgress {
        let per = |ms| NonZeroU64::new(ms).unwrap();
        let window = |per_ms, unit, reserved, spent| WindowProgress {
            per_ms: per(per_ms),
            unit,
            reserved,
            spent,
        };
        LaneProgress {
            hold_until: Some(1_795_331_720_000),
            next_free_at: Some(1_795_331_800_000),
            windows: vec![
                window(
                    3_600_000,
                    LimitUnit::Requests,
                    10,
                    Spent::Spread {
                        whole_at: 1_795_331_710_000,
                    },
                ),
                window(
                    60_000,
                    LimitUnit::Requests,
                    6,
                    Spent::Sliding {
                        from: 1_795_331_690_000,
                        spent: vec![(0, 3), (950, 20)],
                    },
                ),
                window(
                    86_400_000,
                    LimitUnit::Items,
                    1_000,
                    Spent::Fixed {
                        offset_ms: 3_600_000,
                        begins_at: 1_795_305_600_000,
                        spent: 99_000,
                    },
                ),
            ],
            breaker: Some(BreakerProgress {
                probe_at: Some(1_795_331_760_000),
                interval_ms: 120_000,
                failing_since: Some(1_795_331_000_000),
                ended_at: None,
            }),
            disabled: vec![DisabledProgress {
                endpoint: EndpointId::from_bits(0x0197_0000_0000_7000_8000_0000_0000_0001),
                updated_at: 1_795_330_000_000,
                reason: DisabledReason::Gone,
                at: 1_795_331_699_000,
            }],
            ..LaneProgress::new(quota(), 1_795_331_700_000)
        }
    }

    fn probed() -> LaneProgress {
        let endpoint = EndpointId::from_bits(0x0197_0000_0000_7000_8000_0000_0000_0001);
        LaneProgress {
            breaker: Some(BreakerProgress {
                failing_since: Some(1_795_331_000_000),
                ended_at: Some(1_795_331_600_000),
                ..BreakerProgress::default()
            }),
            probation: vec![ProbationProgress {
                endpoint,
                updated_at: 1_795_330_000_000,
                not_before: 1_795_331_840_000,
                interval_ms: 240_000,
            }],
            ..LaneProgress::new(quota(), 1_795_331_700_000)
        }
    }

    #[test]
    fn records_of_version_1_are_read_for_ever() {
        let lane = include_bytes!("fixtures/lane-v1-full.json");
        assert_eq!(LaneProgress::decode(lane), Ok(full()));
        let probed = include_bytes!("fixtures/lane-v1-probed.json");
        assert_eq!(LaneProgress::decode(probed), Ok(self::probed()));
        let plain = include_bytes!("fixtures/lane-v1-plain.json");
        let new = LaneProgress::new(quota(), 1_795_331_700_000);
        assert!(new.is_new() && !full().is_new());
        assert_eq!(LaneProgress::decode(plain), Ok(new));
        let order = OrderProgress {
            version: 1,
            quota: quota(),
            key: u64::MAX,
            head: 3,
            tail: 9,
            due_at: 1_795_331_730_000,
            left_at: None,
            ended: Vec::new(),
        };
        let bytes = include_bytes!("fixtures/order-v1.json");
        assert_eq!(OrderProgress::decode(bytes), Ok(order));
        let owner = OwnerProgress {
            version: 1,
            placement: 47,
            instance: "d1".to_owned(),
            at: 1_795_331_700_000,
        };
        let bytes = include_bytes!("fixtures/owner-v1.json");
        assert_eq!(OwnerProgress::decode(bytes), Ok(owner));
    }

    #[test]
    fn what_is_written_comes_back_and_a_later_version_is_named() {
        let lane = LaneProgress {
            enabled: vec![EnabledProgress {
                endpoint: EndpointId::from_bits(7),
                updated_at: 1_795_330_000_001,
                at: 1_795_331_699_500,
            }],
            ..full()
        };
        for lane in [lane, probed()] {
            assert_eq!(LaneProgress::decode(&lane.encode()), Ok(lane));
        }
        let later = br#"{"version":2,"quota":"a"}"#;
        assert_eq!(LaneProgress::decode(later), Err(Error::Version(2)));
    }

    #[test]
    fn keys_come_back() {
        for key in [
            full().key(),
            ProgressKey::Order(quota(), 0xfe),
            ProgressKey::Owner(47),
        ] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for other in [
            "applied/router/a",
            "redrive/1",
            "lane/",
            "order/a/x",
            "owner/x",
        ] {
            let parsed = other.parse::<ProgressKey>();
            assert_eq!(parsed, Err(Error::Invalid("progress key")), "{other}");
        }
    }
}
