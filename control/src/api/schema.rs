//! Owns how the tables of bodies become schemas of the API's document.
//!
//! Never says more or less than the table that is checked.

use schemas::resources::input::{
    COHORT, CREDENTIAL, ENDPOINT, KEY, Kind, Member, Members, ROTATION, SOURCE, SUBSCRIPTION, SYNC,
    TENANT, Variants, WEBHOOK,
};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type,
};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Whether a body makes an object or changes one: what is fixed cannot be in a patch, and nothing
/// must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Create,
    Patch,
}

macro_rules! bodies {
    ($($(#[doc = $doc:literal])+ $name:ident($members:ident, $use:ident);)+) => {
        $($(#[doc = $doc])+
        #[derive(Debug)]
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                object($members, Use::$use, concat!($($doc),+).trim()).build().into()
            }
        }

        impl ToSchema for $name {})+
    };
}

bodies! {
    /// A tenant to make.
    TenantBody(TENANT, Create);
    /// A merge patch (RFC 7396) of a tenant.
    TenantPatch(TENANT, Patch);
    /// A key to make.
    KeyBody(KEY, Create);
    /// An endpoint to make.
    EndpointBody(ENDPOINT, Create);
    /// A merge patch (RFC 7396) of an endpoint.
    EndpointPatch(ENDPOINT, Patch);
    /// A subscription to make.
    SubscriptionBody(SUBSCRIPTION, Create);
    /// A merge patch (RFC 7396) of a subscription.
    SubscriptionPatch(SUBSCRIPTION, Patch);
    /// An endpoint and a subscription to it, to make in one call.
    WebhookBody(WEBHOOK, Create);
    /// A cohort to make.
    CohortBody(COHORT, Create);
    /// A merge patch (RFC 7396) of a cohort.
    CohortPatch(COHORT, Patch);
    /// A sync to make.
    SyncBody(SYNC, Create);
    /// A merge patch (RFC 7396) of a sync.
    SyncPatch(SYNC, Patch);
    /// A source to make.
    SourceBody(SOURCE, Create);
    /// A merge patch (RFC 7396) of a source.
    SourcePatch(SOURCE, Patch);
    /// A secret to replace.
    RotationBody(ROTATION, Create);
    /// What replaces a secret that requests authenticate with.
    CredentialBody(CREDENTIAL, Create);
}

fn object(members: Members, what: Use, doc: &str) -> ObjectBuilder {
    let members = members.iter().copied().flatten();
    let settable = members.filter(|member| what == Use::Create || member.fixed.is_none());
    let empty = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(doc))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    settable.fold(empty, |object, member| {
        let object = object.property(member.name, schema(member));
        let required = member.required && what == Use::Create;
        if required {
            object.required(member.name)
        } else {
            object
        }
    })
}

fn schema(member: &Member) -> RefOr<Schema> {
    let text = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(member.doc))
    };
    let array = |items: ObjectBuilder| -> RefOr<Schema> {
        ArrayBuilder::new()
            .items(items)
            .description(Some(member.doc))
            .build()
            .into()
    };
    let built = match member.kind {
        Kind::Flag => ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .description(Some(member.doc)),
        Kind::Hidden { max_chars } => text()
            .min_length(Some(1))
            .max_length(Some(max_chars))
            .write_only(true)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password))),
        Kind::HeaderName => text().pattern(Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")),
        Kind::HeaderValue { max_bytes } => text().max_length(Some(max_bytes)),
        Kind::Certificates => text(),
        Kind::PrivateKey => text().write_only(true),
        Kind::Headers(members) => return array(object(members, Use::Create, "A header.")),
        Kind::List { max, of } => {
            let items = ArrayBuilder::new()
                .items(RefOr::T(one_of(of, "")))
                .max_items(Some(max))
                .description(Some(member.doc));
            return items.build().into();
        }
        Kind::OneKindOf(variants) => return one_of(variants, member.doc).into(),
        Kind::Text { max_chars } => text().min_length(Some(1)).max_length(Some(max_chars)),
        Kind::Slug => text().pattern(Some("^[a-z0-9][a-z0-9-]{0,62}$")),
        Kind::EndpointId => text().pattern(Some("^ep_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
        Kind::CohortId => text().pattern(Some("^coh_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
        Kind::Profile => return profile(member.doc).into(),
        Kind::Schedule => schedule(member.doc),
        Kind::Topic => text().pattern(Some("^[A-Za-z0-9._-]{1,249}$")),
        Kind::Pointer => text().format(Some(SchemaFormat::Custom("json-pointer".to_owned()))),
        Kind::Expression => return expression(member.doc).into(),
        Kind::Start => text().examples([
            serde_json::json!("latest"),
            serde_json::json!("2026-11-22T08:00:00Z"),
        ]),
        Kind::Url => text().format(Some(SchemaFormat::Custom("uri".to_owned()))),
        Kind::Secret => text()
            .pattern(Some("^wh(sec|sk)_[A-Za-z0-9+/]+=*$"))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password))),
        Kind::OneOf(texts) => text().enum_values(Some(texts.iter().copied())),
        Kind::Integer { min, max } => integer()
            .minimum(Some(min))
            .maximum(Some(max))
            .description(Some(member.doc)),
        Kind::Object(members) => object(members, Use::Create, member.doc),
        Kind::Waits => return array(integer().minimum(Some(0_u64))),
        Kind::Types => return array(ObjectBuilder::new().schema_type(Type::String)),
        Kind::Grammar | Kind::Settings => ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(member.doc)),
        Kind::Transform => transform(member.doc),
        Kind::Filters => return array(ObjectBuilder::new().schema_type(Type::Object)),
    };
    built.build().into()
}

/// One schema for each kind, told apart by `kind`.
fn one_of(variants: Variants, doc: &str) -> Schema {
    let mut all = OneOfBuilder::new();
    for (kind, members) in variants.kinds {
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([*kind]));
        let variant = object(members, Use::Create, "").property("kind", name);
        all = all.item(if variants.default == Some(*kind) {
            variant
        } else {
            variant.required("kind")
        });
    }
    if !doc.is_empty() {
        all = all.description(Some(doc));
    }
    Schema::OneOf(all.build())
}

/// The id of a profile, or the content of one.
fn profile(doc: &str) -> Schema {
    let of = |of| ObjectBuilder::new().schema_type(of);
    let either = OneOfBuilder::new()
        .item(of(Type::String))
        .item(of(Type::Object))
        .description(Some(doc));
    Schema::OneOf(either.build())
}

/// Where an attribute comes from: one of these.
fn expression(doc: &str) -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    let key = ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .enum_values(Some([true]));
    let members = [
        ("constant", text()),
        ("header", text()),
        ("key", key.build()),
        ("pointer", text()),
        ("record", text()),
    ];
    let all = members
        .into_iter()
        .fold(OneOfBuilder::new(), |all, (name, of)| {
            all.item(
                ObjectBuilder::new()
                    .schema_type(Type::Object)
                    .property(name, of)
                    .required(name)
                    .additional_properties(Some(AdditionalProperties::FreeForm(false))),
            )
        });
    Schema::OneOf(all.description(Some(doc)).build())
}

/// Steps, of which each has one member, and a request.
fn transform(doc: &str) -> ObjectBuilder {
    let of = |of: Type| ObjectBuilder::new().schema_type(of);
    let closed =
        || of(Type::Object).additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let texts = || of(Type::Object).additional_properties(Some(of(Type::String)));
    let list = || {
        ArrayBuilder::new()
            .items(of(Type::String))
            .min_items(Some(1))
    };
    let step = closed()
        .property("select", list())
        .property("strip", list())
        .property("rename", texts())
        .property("set", of(Type::Object))
        .property("compute", of(Type::Object))
        .property("attributes", of(Type::Object))
        .property("drop", of(Type::String))
        .min_properties(Some(1))
        .max_properties(Some(1));
    let methods = ["POST", "PUT", "PATCH", "DELETE"];
    let request = closed()
        .property("method", of(Type::String).enum_values(Some(methods)))
        .property("path", of(Type::String))
        .property("query", texts())
        .property("headers", texts());
    let steps = ArrayBuilder::new()
        .items(step)
        .max_items(Some(schemas::transform::STEPS_MAX));
    closed()
        .description(Some(doc))
        .property("steps", steps)
        .property("request", request)
}

fn schedule(doc: &str) -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(doc))
        .property("cron", text().examples([serde_json::json!("0 * * * *")]))
        .property(
            "time_zone",
            text().examples([serde_json::json!("Europe/Zurich")]),
        )
        .required("cron")
        .required("time_zone")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer)
}
