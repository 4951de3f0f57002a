//! Owns what an error on the way to an endpoint is called: its class, and a text for people.
//!
//! Decides by type and never by text (SS-7), and lets neither a URL nor an address into the text.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use super::address::{LookupError, Refusal};
use super::{TransportError, TransportErrorKind};

/// An error's text is cut here.
const ERROR_TEXT_CHARS_MAX: usize = 300;

/// An error whose causes can be looked through.
pub(super) trait Chain {
    /// What the error's causes say by their types, if they say anything.
    fn known(&self) -> Option<TransportError>;
}

impl<E: StdError + 'static> Chain for E {
    fn known(&self) -> Option<TransportError> {
        let mut cause: &(dyn StdError + 'static) = self;
        loop {
            if let Some(known) = known_cause(cause) {
                return Some(known);
            }
            cause = next_cause(cause)?;
        }
    }
}

pub(super) fn refused(refusal: Refusal) -> TransportError {
    TransportError::new(TransportErrorKind::Address, refusal.to_string())
}

pub(super) fn lookup_failed(error: LookupError) -> TransportError {
    match error {
        LookupError::Refused(refusal) => refused(refusal),
        LookupError::Resolve(error) => TransportError::new(TransportErrorKind::Dns, short(&error)),
    }
}

pub(super) fn connect_failed(error: &io::Error) -> TransportError {
    TransportError::new(TransportErrorKind::Connect, short(error))
}

/// An exchange that ended before the answer was complete.
pub(super) fn exchange_failed(error: &hyper::Error) -> TransportError {
    error.known().unwrap_or_else(|| {
        let text = short(last_cause(error));
        TransportError::new(TransportErrorKind::Reset, text)
    })
}

pub(super) fn short(error: &(impl Display + ?Sized)) -> String {
    error
        .to_string()
        .chars()
        .take(ERROR_TEXT_CHARS_MAX)
        .collect()
}

/// What can be told from one link of the chain alone.
fn known_cause(cause: &(dyn StdError + 'static)) -> Option<TransportError> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(TransportError::new(TransportErrorKind::Tls, short(tls)));
    }
    let http = cause.downcast_ref::<hyper::Error>()?;
    http.is_parse()
        .then(|| TransportError::new(TransportErrorKind::Protocol, short(http)))
}

/// The next link. An I/O error hides what it wraps from `source()`.
fn next_cause<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

fn last_cause<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut last = error;
    while let Some(next) = next_cause(last) {
        last = next;
    }
    last
}
