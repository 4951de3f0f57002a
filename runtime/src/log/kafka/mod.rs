//! Owns the log on Apache Kafka: the only place that names librdkafka's types.
//!
//! It must never block a tokio worker: what librdkafka makes wait for runs on threads of this
//! module, and each ends with its handle. The surprise: no client waits for a broker when it is
//! made; a broker that is away shows in the first call that needs it.

mod admin;
mod ask;
mod commits;
mod context;
mod copy;
mod errors;
mod gate;
mod list;
mod member;
mod options;
mod producer;
mod pulse;
mod reader;
mod report;
mod source;
mod transactions;
mod wake;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Bounds, Committed, Error, Fetched, Log, Member, MemberOptions, Membership, Partition, Position,
    Producer, ProducerOptions, Reader, ReaderOptions, TopicName, TopicSettings, TopicShape,
    TransactionOptions, Transactions, patience,
};
use crate::clock::Entropy;
use admin::Admin;
use ask::Questions;
pub use options::{Compression, GroupProtocol, KafkaOptions};

/// The log on Apache Kafka.
#[derive(Debug)]
pub struct KafkaLog {
    options: KafkaOptions,
    admin: Arc<Admin>,
    questions: Questions,
}

impl KafkaLog {
    /// The log that `options` reach. Does not wait for a broker.
    ///
    /// # Errors
    /// [`super::Class::Never`] where librdkafka refuses a property.
    pub fn connect(options: KafkaOptions) -> Result<Self, Error> {
        let admin = Arc::new(Admin::new(&options)?);
        let questions = Questions::new(options.clone());
        Ok(Self {
            options,
            admin,
            questions,
        })
    }

    async fn session_timeout(&self, group: &str) -> Result<std::time::Duration, Error> {
        let configured = self.options.session_timeout;
        match self.options.group_protocol {
            GroupProtocol::Classic => Ok(configured),
            GroupProtocol::Consumer => {
                let ask = || self.admin.group_session_timeout(group);
                Ok(patience::at_start(ask).await?.unwrap_or(configured))
            }
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn create_topics(&self, topics: &[TopicSettings]) -> Result<Vec<TopicName>, Error> {
        self.admin.create(topics).await
    }

    async fn describe_topic(&self, topic: &TopicName) -> Result<Option<TopicShape>, Error> {
        self.admin.describe(topic).await
    }

    async fn bounds(&self, partition: &Partition) -> Result<Bounds, Error> {
        self.questions.bounds(partition).await
    }

    async fn offset_at(&self, partition: &Partition, at: i64) -> Result<Option<i64>, Error> {
        self.questions.offset_at(partition, at).await
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
        ask::committed(&self.options, group, partitions).await
    }

    async fn commit_for_empty_group(
        &self,
        group: &str,
        positions: &[Position],
    ) -> Result<(), Error> {
        ask::commit_for_empty_group(&self.options, group, positions).await
    }

    async fn producer(&self, options: ProducerOptions) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(producer::KafkaProducer::open(
            &self.options,
            &options,
        )?))
    }

    async fn transactions(
        &self,
        options: TransactionOptions,
    ) -> Result<Box<dyn Transactions>, Error> {
        Ok(Box::new(
            transactions::KafkaTransactions::open(&self.options, options).await?,
        ))
    }

    async fn member(
        &self,
        options: MemberOptions,
    ) -> Result<(Arc<dyn Member>, mpsc::UnboundedReceiver<Membership>), Error> {
        let session_timeout = self.session_timeout(&options.group).await?;
        let (member, messages) =
            member::KafkaMember::join(&self.options, &options, session_timeout)?;
        Ok((Arc::new(member), messages))
    }

    async fn reader(
        &self,
        options: ReaderOptions,
    ) -> Result<(Arc<dyn Reader>, mpsc::Receiver<Fetched>), Error> {
        reader::check(&options)?;
        // Never joined and never committed for, but librdkafka wants one (trap 12).
        let group = format!(
            "{}reader-{:016x}",
            self.options.client_prefix,
            Entropy::system().u64()
        );
        let (reader, fetched) =
            reader::KafkaReader::open(&self.options, self.questions.clone(), options, group)?;
        Ok((Arc::new(reader), fetched))
    }
}
