//! Owns Debezium's envelope: what changed in a row, with and without the schema that Kafka Connect
//! puts around it.
//!
//! It must never take an envelope that it does not know for one that it does: the words say what is
//! missing. The surprise: the payload is passed on as it is, before and after included, since what
//! changed is what a filter wants to know.

use super::json::{Json, Scalar};

/// What an envelope says of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    op: Op,
    db: Option<String>,
    schema: Option<String>,
    table: Option<String>,
    at: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Create,
    Update,
    Delete,
    Read,
    Truncate,
}

impl Op {
    const ALL: [Self; 5] = [
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::Read,
        Self::Truncate,
    ];

    /// Debezium's letter for it.
    const fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Truncate => "t",
        }
    }

    /// The last part of the event's type.
    const fn word(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Read => "read",
            Self::Truncate => "truncated",
        }
    }
}

/// The envelope in `document`, out of its Connect schema; `None` where that says a tombstone.
pub(super) fn payload(document: Json<'_>) -> Option<Json<'_>> {
    let wrapped = (document.is_object() && document.member("op").is_none())
        .then(|| document.member("payload"))
        .flatten();
    match wrapped.map(|payload| (payload, payload.scalar())) {
        Some((_, Scalar::Null)) => None,
        Some((payload, Scalar::Text(_) | Scalar::NoText | Scalar::Nested)) => Some(payload),
        None => (document.scalar() != Scalar::Null).then_some(document),
    }
}

/// The key of a row out of its Connect schema, as it is written.
pub(super) fn key(text: &str) -> Option<&str> {
    let document = Json::document(text.as_bytes()).ok()?;
    let is_wrapped = document.is_object() && document.member("schema").is_some();
    let payload = document.member("payload").filter(|_| is_wrapped)?;
    text.get(payload.range())
}

impl Change {
    /// Reads an envelope.
    pub(super) fn read(payload: Json<'_>) -> Result<Self, String> {
        let text = |at: Json<'_>, name: &str| match at.member(name).map(Json::scalar) {
            Some(Scalar::Text(text)) if !text.is_empty() => Some(text.into_owned()),
            Some(Scalar::Text(_) | Scalar::Null | Scalar::NoText | Scalar::Nested) | None => None,
        };
        if !payload.is_object() {
            return Err("value is no debezium envelope: it is no object".to_owned());
        }
        let op = text(payload, "op")
            .ok_or_else(|| "value is no debezium envelope: it has no `op`".to_owned())?;
        let op = Op::ALL
            .into_iter()
            .find(|known| known.letter() == op)
            .ok_or_else(|| {
                let start: String = op.chars().take(16).collect();
                format!("debezium's `op` is `{start}`, none of c, u, d, r, t")
            })?;
        let origin = payload.member("source").filter(|origin| origin.is_object());
        let of_origin = |name: &str| origin.and_then(|origin| text(origin, name));
        let millis = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let changed = millis(of_origin("ts_ms")).filter(|at| *at > 0);
        Ok(Self {
            op,
            db: of_origin("db"),
            schema: of_origin("schema"),
            table: of_origin("table").or_else(|| of_origin("collection")),
            at: changed.or_else(|| millis(text(payload, "ts_ms"))),
        })
    }

    /// `<table>.created` and so on.
    pub(super) fn event_type(&self) -> String {
        let table = self.table.as_deref().unwrap_or("row");
        format!("{table}.{}", self.op.word())
    }

    /// When the row was changed, unix milliseconds.
    pub(super) fn at(&self) -> Option<i64> {
        self.at
    }

    /// Attributes to filter by, named as Debezium's own CloudEvents name them.
    pub(super) fn extensions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("iodebeziumop", Some(self.op.letter())),
            ("iodebeziumdb", self.db.as_deref()),
            ("iodebeziumschema", self.schema.as_deref()),
            ("iodebeziumtable", self.table.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
    }
}
