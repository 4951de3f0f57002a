//! Contracts between the services: the event, its codecs, the records on the topics, the
//! resources, the filters, the profiles of partners and the decoding of sources.
//!
//! Everything here is a pure function or a value. It must never do I/O, read a clock or draw
//! randomness: what it needs is passed in (rule 18).

pub mod codec;
pub mod event;
pub mod filter;
pub mod ids;
pub mod profile;
pub mod records;
pub mod resources;
pub mod source;
pub mod transform;
