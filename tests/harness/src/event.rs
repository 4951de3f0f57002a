//! Owns the events that tests publish.
//!
//! The surprise: data is text that is spliced into the request as it is, so that a test can ask for
//! the same bytes at the end.

/// A CloudEvent.
#[derive(Clone, Debug)]
pub struct Event {
    /// `id`.
    pub id: String,
    /// `source`.
    pub source: String,
    /// `type`.
    pub ty: String,
    /// Further attributes.
    pub attributes: Vec<(String, String)>,
    /// `data`, JSON.
    pub data: String,
}

/// An event of type `ty` with id `id`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "tests pass numbers and texts that they just made"
)]
pub fn event(ty: &str, id: impl ToString) -> Event {
    Event {
        id: id.to_string(),
        source: "/tests".to_owned(),
        ty: ty.to_owned(),
        attributes: Vec::new(),
        data: r#"{"hello":"world"}"#.to_owned(),
    }
}

impl Event {
    /// With this JSON as its data.
    #[must_use]
    pub fn data(self, json: impl Into<String>) -> Self {
        Self {
            data: json.into(),
            ..self
        }
    }

    /// With one more attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.push((name.to_owned(), value.to_owned()));
        self
    }

    fn context(&self) -> Vec<(&str, &str)> {
        let mut all = vec![
            ("specversion", "1.0"),
            ("id", self.id.as_str()),
            ("source", self.source.as_str()),
            ("type", self.ty.as_str()),
        ];
        all.extend(
            self.attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        all
    }

    /// Structured mode: `application/cloudevents+json`.
    pub fn structured(&self) -> String {
        let mut json = String::from("{");
        for (name, value) in self.context() {
            json.push_str(&format!("{:?}:{},", name, serde_json::Value::from(value)));
        }
        json.push_str("\"datacontenttype\":\"application/json\",\"data\":");
        json.push_str(&self.data);
        json.push('}');
        json
    }

    /// Binary mode on HTTP: the attributes as headers.
    pub fn http_headers(&self) -> Vec<(String, String)> {
        let named = |(name, value): (&str, &str)| (format!("ce-{name}"), value.to_owned());
        let mut headers: Vec<_> = self.context().into_iter().map(named).collect();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        headers
    }

    /// Binary mode on Kafka: the attributes as record headers.
    pub fn kafka_headers(&self) -> Vec<(String, String)> {
        let named = |(name, value): (&str, &str)| (format!("ce_{name}"), value.to_owned());
        let mut headers: Vec<_> = self.context().into_iter().map(named).collect();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        headers
    }
}
