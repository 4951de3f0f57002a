//! Owns the tree of commands and what their help says.
//!
//! It must never do a command's work. The surprise: options of the configuration are not flags of
//! their own, but for the few that everybody needs; `--set` reaches all of them.

mod objects;

use clap::{Args, Parser, Subcommand};
use reqwest::Url;

pub(crate) use self::objects::{
    Common, EndpointArgs, EndpointCommand, EndpointFields, KeyArgs, KeyCommand, NewEndpoint,
    OfTenant, One, Sending, SubscriptionArgs, SubscriptionCommand, Tenant, TenantArgs,
    TenantCommand, TenantFields, WebhookArgs, WebhookCommand, WhichEvents,
};
use crate::cohort::CohortCommand;
use crate::config::ConfigCommand;
use crate::dead::DeadCommand;
use crate::demo::DemoArgs;
use crate::explain::ExplainArgs;
use crate::filter::FilterCommand;
use crate::listen::ListenArgs;
use crate::profile::ProfileCommand;
use crate::publish::PublishArgs;
use crate::settings::{Global, Need, Role};
use crate::simulate::SimulateArgs;
use crate::source::SourceCommand;
use crate::sync::SyncCommand;
use crate::tail::DeliveriesCommand;
use crate::topics::TopicsCommand;

const LONG_ABOUT: &str = "\
Anabranch takes events (CloudEvents), finds the subscriptions that want them, and delivers them to \
HTTP endpoints: signed, within each endpoint's limits, retried until they arrive or are dead \
letters with a reason. It runs on Apache Kafka, or in one process on the local disk.";

const AFTER_LONG_HELP: &str = "\
Examples:
  anabranch demo                          see it work: nothing to install, ends by itself
  anabranch up                            every service in one process, on the local disk
  anabranch up --brokers kafka:9092       the same on Kafka

  anabranch listen --port 9000            an endpoint on this machine that prints what arrives
  anabranch tenant create acme
  anabranch webhook create --tenant acme --url http://127.0.0.1:9000/ --type com.acme.lead.created
  anabranch publish --tenant acme --type com.acme.lead.created --data '{\"name\":\"Ada\"}'
  anabranch deliveries tail               each attempt as it is made
  anabranch dead list --tenant acme       what was given up, and why; dead redrive sends it again
  anabranch explain --tenant acme --event event.json       why each subscription matches it or not
  anabranch source create --topic shop.orders --tenant acme --type pointer:/kind   read it as events
  anabranch cohort upload VIP members.csv --tenant acme    all members there are, as a snapshot
  anabranch sync run SYNC --tenant acme --wait              a partner's list becomes the cohort
  anabranch simulate generic-50           a partner to sync cohorts with, made from its profile

On Kafka, each service in a process of its own:
  anabranch config new-keys > anabranch.toml
  anabranch topics create --brokers kafka:9092
  anabranch control --brokers kafka:9092 --config anabranch.toml      (then ingest, router, dispatcher)

Configuration: a TOML file (--config or ANABRANCH_CONFIG), then the environment
(ANABRANCH_SECTION__KEY), then flags (--set section.key=value). `anabranch config reference` prints
every option; --print-config what is in force. Exit codes: 64 for a mistake on the command line or
in the configuration, 1 where something could not be done.";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "anabranch",
    version,
    about = "Reliable fan-out of events to other people's systems, on Kafka",
    long_about = LONG_ABOUT,
    after_long_help = AFTER_LONG_HELP,
    after_help = "Examples and how to configure: anabranch --help; a command's own: anabranch COMMAND --help",
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every service in one process
    ///
    /// Without brokers the log is kept on the local disk, in the data folder. On its first start it
    /// makes a sealing key and an operator's key there (files of mode 0600), and the topics.
    /// Endpoints on this machine are allowed unless `dispatcher.allow_loopback=false` is set.
    Up,
    /// See it work: a minute of real events, delivered and verified
    Demo(DemoArgs),
    /// Run the service that takes events over HTTP
    Ingest,
    /// Run the service that finds the subscriptions of each event
    Router,
    /// Run the service that delivers
    Dispatcher,
    /// Run the service with the API for tenants, keys, endpoints and subscriptions
    Control,
    /// Run the service that keeps cohorts and runs syncs
    Cohorts,
    /// Create or check Kafka's topics
    Topics {
        #[command(subcommand)]
        command: TopicsCommand,
    },
    /// Tenants: the unit of isolation
    Tenant(TenantArgs),
    /// API keys of a tenant, or of one endpoint's owner
    Key(KeyArgs),
    /// Endpoints: URLs that events are delivered to
    Endpoint(EndpointArgs),
    /// Subscriptions: which events go to which endpoint
    Subscription(SubscriptionArgs),
    /// An endpoint and a subscription in one call
    Webhook(WebhookArgs),
    /// Publish events from a file, standard input or flags
    Publish(PublishArgs),
    /// Be an endpoint: print what arrives and verify its signature
    Listen(ListenArgs),
    /// What was attempted, and what came of it
    Deliveries {
        #[command(subcommand)]
        command: DeliveriesCommand,
    },
    /// Deliveries that ended undelivered: look at them, send them again
    Dead {
        #[command(subcommand)]
        command: DeadCommand,
    },
    /// Why subscriptions match an event or do not, clause by clause
    Explain(ExplainArgs),
    /// Filters: what they would have matched
    Filter {
        #[command(subcommand)]
        command: FilterCommand,
    },
    /// Sources: topics of your own that are read as events
    Source {
        #[command(subcommand)]
        command: SourceCommand,
    },
    /// Cohorts: named sets of members, uploaded as snapshots
    Cohort {
        #[command(subcommand)]
        command: CohortCommand,
    },
    /// Syncs: cohorts that partners' lists are made equal to
    Sync {
        #[command(subcommand)]
        command: SyncCommand,
    },
    /// Partner profiles: what a partner's API takes, and how it answers
    Profile {
        #[command(subcommand)]
        command: ProfileCommand,
    },
    /// Be a partner, made from its profile
    Simulate(SimulateArgs),
    /// Every option of the configuration, and new keys for it
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

impl Command {
    /// Whose defaults it has.
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Up => Role::Up,
            Self::Demo(_) => Role::Demo,
            Self::Ingest
            | Self::Router
            | Self::Dispatcher
            | Self::Control
            | Self::Cohorts
            | Self::Topics { .. }
            | Self::Tenant(_)
            | Self::Key(_)
            | Self::Endpoint(_)
            | Self::Subscription(_)
            | Self::Webhook(_)
            | Self::Publish(_)
            | Self::Listen(_)
            | Self::Deliveries { .. }
            | Self::Dead { .. }
            | Self::Explain(_)
            | Self::Filter { .. }
            | Self::Source { .. }
            | Self::Cohort { .. }
            | Self::Sync { .. }
            | Self::Profile { .. }
            | Self::Simulate(_)
            | Self::Config { .. } => Role::Other,
        }
    }

    /// What a configuration must say for it, and its name.
    pub(crate) fn needs(&self) -> (&'static str, &'static [Need]) {
        match self {
            Self::Ingest => ("ingest", &[Need::Brokers]),
            Self::Router => ("router", &[Need::Brokers]),
            Self::Cohorts => ("cohorts", &[Need::Brokers]),
            Self::Dispatcher => ("dispatcher", &[Need::Brokers, Need::SealingKeys]),
            Self::Control => (
                "control",
                &[Need::Brokers, Need::SealingKeys, Need::OperatorKey],
            ),
            Self::Topics { .. } => ("topics", &[Need::Brokers]),
            Self::Up
            | Self::Demo(_)
            | Self::Tenant(_)
            | Self::Key(_)
            | Self::Endpoint(_)
            | Self::Subscription(_)
            | Self::Webhook(_)
            | Self::Publish(_)
            | Self::Listen(_)
            | Self::Deliveries { .. }
            | Self::Dead { .. }
            | Self::Explain(_)
            | Self::Filter { .. }
            | Self::Source { .. }
            | Self::Cohort { .. }
            | Self::Sync { .. }
            | Self::Profile { .. }
            | Self::Simulate(_)
            | Self::Config { .. } => ("", &[]),
        }
    }

    /// Worker threads where nobody says how many.
    pub(crate) fn threads(&self) -> usize {
        match self {
            // What takes connections and works at the same time.
            Self::Up | Self::Demo(_) | Self::Ingest | Self::Cohorts => 2,
            // One thread has no other to wake: it is faster, and replicas make more of it.
            Self::Router | Self::Dispatcher => 1,
            Self::Control
            | Self::Topics { .. }
            | Self::Tenant(_)
            | Self::Key(_)
            | Self::Endpoint(_)
            | Self::Subscription(_)
            | Self::Webhook(_)
            | Self::Publish(_)
            | Self::Listen(_)
            | Self::Deliveries { .. }
            | Self::Dead { .. }
            | Self::Explain(_)
            | Self::Filter { .. }
            | Self::Source { .. }
            | Self::Cohort { .. }
            | Self::Sync { .. }
            | Self::Profile { .. }
            | Self::Simulate(_)
            | Self::Config { .. } => 1,
        }
    }
}

/// How a client reaches the API.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ApiArgs {
    /// Where `control` is
    #[arg(
        long,
        env = "ANABRANCH_CONTROL_URL",
        default_value = "http://127.0.0.1:8081"
    )]
    pub(crate) control_url: Url,
    /// Where `ingest` is
    #[arg(
        long,
        env = "ANABRANCH_INGEST_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) ingest_url: Url,
    /// The key; without it, the operator's in the data folder
    #[arg(long, env = "ANABRANCH_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_examples_of_the_help_are_commands() {
        let lines = AFTER_LONG_HELP
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("anabranch "));
        let mut count = 0;
        for line in lines {
            let line = line
                .split("  ")
                .next()
                .unwrap()
                .split(" > ")
                .next()
                .unwrap();
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
            count += 1;
        }
        assert!(count > 8, "{count}");
    }

    #[test]
    fn every_command_explains_itself() {
        fn walk(command: &clap::Command) {
            assert!(
                command.get_about().is_some(),
                "{} says nothing",
                command.get_name()
            );
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "{} {id}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
