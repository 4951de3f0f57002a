//! Nouns for the tests: pipelines, endpoints, brokers.
