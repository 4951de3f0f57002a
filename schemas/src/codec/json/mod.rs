//! The JSON event format and its batches (CE-7 to CE-9).
//!
//! Owns no I/O. `data` that is JSON is never parsed into a tree and never written anew: its bytes
//! go through as they are. The surprise: data declared JSON that is not JSON leaves as
//! `data_base64`.

mod decode;
mod encode;

pub use decode::{decode, decode_batch};
pub use encode::{encode, write_string};

/// The media type of one event (CE-7).
pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The media type of a batch (CE-7).
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";

#[cfg(test)]
mod tests;
