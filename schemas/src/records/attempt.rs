//! Owns the record of `attempts`: one HTTP request that was made for a delivery.

use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, EndpointId, SubscriptionId, TenantId};

/// What an attempt meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptVerdict {
    /// The endpoint took it.
    Delivered,
    /// It will be attempted again, if its schedule allows.
    Retry,
    /// The endpoint will never take it.
    Rejected,
    /// The endpoint wants nothing any more (410).
    EndpointGone,
}

/// One attempt. Written best effort: it never holds an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The version of this record's form: 1.
    pub version: u8,
    /// The delivery (`webhook-id`).
    pub delivery: DeliveryId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The dispatcher's instance name.
    pub instance: String,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// When the request was started, unix milliseconds.
    pub started_at: i64,
    /// How long it took, microseconds.
    pub duration_us: u64,
    /// What it meant.
    pub verdict: AttemptVerdict,
    /// Why, where it was not delivered: a word of a closed set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The HTTP status, where there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong in words, where there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes read of the response's body.
    pub response_bytes: u64,
}
