//! HTTP in: validates, authenticates and publishes events.
