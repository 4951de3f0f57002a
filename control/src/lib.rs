//! The admin API and the state behind it.
