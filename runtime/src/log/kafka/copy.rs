//! Owns the copy of a fetched message into our own memory: one buffer a record.
//!
//! It must never keep librdkafka's memory alive. The surprise: rust-rdkafka panics on a header
//! whose name is not UTF-8, which any producer can write; such a record keeps its key and value
//! and loses its headers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};

use crate::log::{Headers, StoredRecord};

/// What headers are packed into before their length is known is kept up to here.
const SCRATCH_BYTES: usize = 16 << 10;

/// The record that `message` carries. `scratch` is memory to work in, the same for many records:
/// each header is asked for once.
pub(super) fn record(message: &BorrowedMessage<'_>, scratch: &mut Vec<u8>) -> StoredRecord {
    let (key, value) = (message.key(), message.payload());
    scratch.clear();
    scratch.shrink_to(SCRATCH_BYTES);
    if let Some(headers) = message.headers() {
        pack(scratch, headers);
    }
    let len = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);

    let mut buffer = Vec::with_capacity(len + scratch.len());
    let key_end = append(&mut buffer, key);
    let value_end = append(&mut buffer, value);
    buffer.extend_from_slice(scratch);
    let buffer = Bytes::from(buffer);
    StoredRecord {
        offset: message.offset(),
        timestamp: match message.timestamp() {
            Timestamp::NotAvailable => 0,
            Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at) => at,
        },
        key: key.map(|_| buffer.slice(..key_end)),
        value: value.map(|_| buffer.slice(key_end..value_end)),
        headers: Headers::from_packed(buffer.slice(value_end..)),
    }
}

fn append(buffer: &mut Vec<u8>, part: Option<&[u8]>) -> usize {
    buffer.extend_from_slice(part.unwrap_or_default());
    buffer.len()
}

/// Appends the form that [`Headers`] reads; nothing where a name is not UTF-8.
fn pack(buffer: &mut Vec<u8>, headers: &BorrowedHeaders) {
    let start = buffer.len();
    let packed = catch_unwind(AssertUnwindSafe(|| {
        for pair in headers.iter() {
            let value = pair.value.unwrap_or_default();
            let (Ok(name_len), Ok(value_len)) =
                (u16::try_from(pair.key.len()), u32::try_from(value.len()))
            else {
                continue;
            };
            buffer.extend_from_slice(&name_len.to_be_bytes());
            buffer.extend_from_slice(&value_len.to_be_bytes());
            buffer.extend_from_slice(pair.key.as_bytes());
            buffer.extend_from_slice(value);
        }
    }));
    if packed.is_err() {
        buffer.truncate(start);
        tracing::warn!("record has a header whose name is not utf-8, headers left out");
    }
}
