//! Owns the list of options, each defined once: type, default, bounds and purpose. The comment
//! above a default says why that number.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::value::{ByteSize, Properties};
use crate::{choice, section};

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

choice! {
    /// How group members agree on partitions.
    pub enum GroupProtocol {
        /// The classic protocol, cooperative-sticky.
        Classic => "classic",
        /// KIP-848.
        Consumer => "consumer",
    }
}

choice! {
    /// How record batches are compressed.
    pub enum Compression {
        /// Not at all.
        None => "none",
        /// LZ4.
        Lz4 => "lz4",
        /// Zstandard.
        Zstd => "zstd",
    }
}

choice! {
    /// How logs are written.
    pub enum LogFormat {
        /// Lines for people.
        Text => "text",
        /// One JSON object a line.
        Json => "json",
    }
}

choice! {
    /// What is done with IPv6 addresses that carry an IPv4 one (NAT64).
    pub enum Nat64 {
        /// They are refused.
        Refuse => "refuse",
        /// The address within is judged.
        Embedded => "embedded",
    }
}

section! {
    /// What concerns the whole process.
    pub struct General("") {
        /// The name of this process among its like, stable over restarts; the host's name where
        /// it is not set. Two live processes of one name fence each other.
        pub instance: Option<String> = None;
        /// The folder for what is kept on local disk.
        pub data_dir: PathBuf = PathBuf::from("anabranch-data");
        /// Worker threads; 0 is one for `router` and `dispatcher`, which scale by replicas, and two
        /// for what takes connections.
        pub threads: u16 = 0, in 0..=256;
    }
}

section! {
    /// How the process ends.
    pub struct Shutdown("shutdown") {
        /// From a signal to the end of the process; what is not done then is left to the next
        /// owner.
        // Kubernetes kills after 30 s: this leaves time to say what was late.
        pub deadline: Duration = secs(25), in ms(100)..=secs(3_600);
    }
}

section! {
    /// Names and shapes of the topics.
    pub struct Topics("topics") {
        /// What the names of all topics begin with.
        pub prefix: String = "anabranch.".to_owned();
        /// Partitions of every topic but `control`, recorded at their creation.
        // Divides well among 1 to 16 processes; more cost each member a reader's buffers.
        pub partitions: u32 = 48, in 1..=10_000;
        /// Copies of every topic; 0 is 3 where there are as many brokers, else the broker's default.
        pub replication: u16 = 0, in 0..=15;
        /// How long internal topics keep records; at least the longest schedule and 7 days.
        // The longest delivery takes 76 h: this survives ten days of a stopped consumer.
        pub retention: Duration = days(14), in secs(244 * 3_600)..=days(3_650);
    }
}

section! {
    /// How Kafka is reached.
    pub struct Kafka("kafka") {
        /// Brokers as `host:port`. Without them `up` and `demo` keep the log on local disk, and
        /// every other service refuses to start.
        pub brokers: Vec<String> = Vec::new();
        /// How group members agree on partitions.
        // KIP-848 on librdkafka is young, and the broker's minimum session for it is 45 s.
        pub group_protocol: GroupProtocol = GroupProtocol::Classic;
        /// Whether members are static: `instance` names them, and a restart within the session
        /// timeout keeps their partitions.
        // A static member that dies for good is missed a whole session later.
        pub static_membership: bool = false;
        /// How record batches are compressed.
        // Half the size at a few per cent of a core; zstd is smaller and costs several times that.
        pub compression: Compression = Compression::Lz4;
        /// After this long without a heartbeat a member is dead. Under `consumer` the broker's own
        /// setting counts.
        // A new owner's first delivery within 15 s of a death needs no more than this.
        pub session_timeout: Duration = secs(10), in secs(1)..=secs(300);
        /// How often a member of the classic protocol reports; it decides how soon a join settles.
        // 3 s, the usual default, makes each join and leave that slow.
        pub heartbeat_interval: Duration = ms(500), in ms(50)..=secs(60);
        /// librdkafka's properties, passed on as they are: SASL, TLS, client.rack. Those that
        /// delivery rests on are refused.
        pub properties: Properties = Properties::default();
    }
}

section! {
    /// The log kept on local disk where no brokers are named.
    pub struct Embedded("embedded") {
        /// Its folder; `log` in `data_dir` where it is not set.
        pub dir: Option<PathBuf> = None;
        /// How long records are kept.
        // Twice the longest delivery of 76 h: a laptop closed over a weekend loses nothing.
        pub retention: Duration = days(7), in secs(1)..=days(3_650);
        /// How many bytes of records are kept; the oldest go first.
        // About ten million events of 900 bytes; a laptop's disk does not feel it.
        pub retention_bytes: ByteSize = ByteSize::gib(10), in ByteSize::mib(1)..=ByteSize::gib(16_384);
    }
}

section! {
    /// The admin port: `/livez`, `/readyz`, `/metrics`.
    pub struct Admin("admin") {
        /// Where it listens; it needs no key, so keep it from strangers.
        // Prometheus's list of default ports has 9464 for OpenTelemetry's exporters.
        pub bind: SocketAddr = loopback(9_464);
    }
}

section! {
    /// Logs.
    pub struct Telemetry("telemetry") {
        /// How logs are written to standard error.
        pub format: LogFormat = LogFormat::Text;
        /// Which logs are written: a level, and levels of parts, such as `info,dispatcher=debug`.
        pub filter: String = "info".to_owned();
    }
}

section! {
    /// The service that takes events over HTTP.
    pub struct Ingest("ingest") {
        /// Where it listens.
        pub bind: SocketAddr = loopback(8_080);
        /// The largest body of a request.
        // A batch of 1,000 events of 8 KiB.
        pub max_body: ByteSize = ByteSize::mib(8), in ByteSize::kib(1)..=ByteSize::gib(1);
        /// The largest event, its data and attributes together (CE-5).
        // The usual limit of brokers and clouds; 64 KiB is the least that must be taken.
        pub max_event: ByteSize = ByteSize::mib(1), in ByteSize::kib(64)..=ByteSize::mib(32);
        /// The most events of a batch.
        pub max_batch_events: usize = 1_000, in 1..=100_000;
        /// The most attributes of an event, extensions included.
        // CloudEvents defines 8; nobody was seen to send more than 20 of their own.
        pub max_attributes: usize = 64, in 8..=1_000;
        /// The largest head of a request.
        // Every attribute travels as a header in binary mode: 64 of them at 512 bytes.
        pub max_header_bytes: ByteSize = ByteSize::kib(32), in ByteSize::kib(8)..=ByteSize::mib(1);
        /// Bytes of bodies read and not yet written; beyond it, clients wait, then get 503.
        pub max_in_flight_bytes: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(64);
        /// How long a body may wait for room among the bytes in flight; then 503.
        // Longer than the log's own hiccups, shorter than a client's patience.
        pub room_timeout: Duration = secs(2), in ms(1)..=secs(60);
        /// From a request's head to the last byte of its body; a slower client gets 408.
        // The largest body at 3 Mbit/s.
        pub body_timeout: Duration = secs(30), in ms(10)..=secs(600);
        /// How long the log may take to acknowledge; then 503, and the outcome is unknown.
        // A leader election takes less.
        pub write_timeout: Duration = secs(10), in ms(10)..=secs(300);
        /// Events a second of one tenant, in each process; beyond it 429.
        // About a fifth of what one process takes: one tenant cannot take it all.
        pub tenant_events_per_second: u32 = 50_000, in 1..=100_000_000;
        /// Bytes a second of one tenant, in each process; beyond it 429.
        pub tenant_bytes_per_second: ByteSize = ByteSize::mib(64), in ByteSize::kib(1)..=ByteSize::gib(64);
        /// Events a second of one tenant, in each process, that are its fair share; beyond it they
        /// go to `events.bulk`, which is routed with a lower weight. 0 for no share. A tenant may
        /// have its own.
        // What is fair depends on how many tenants there are: who has one alone wants none.
        pub fair_share_events_per_second: u32 = 0, in 0..=100_000_000;
        /// Bytes a second of one tenant, in each process, that are its fair share; 0 for no share.
        pub fair_share_bytes_per_second: ByteSize = ByteSize::b(0), in ByteSize::b(0)..=ByteSize::gib(64);
        /// Connections at once; beyond it, clients wait to be accepted.
        pub max_connections: usize = 1_024, in 1..=1_000_000;
    }
}

section! {
    /// The service that finds the targets of each event.
    pub struct Router("router") {
        /// How often positions are committed (rule 3).
        // What a restart reads again; a longer interval than this breaks rule 3's bounds.
        pub commit_interval: Duration = ms(250), in ms(1)..=ms(250);
        /// Targets between the committed and the read position of one source partition; beyond it
        /// the partition waits. The marks of rule 3 are sized for the default.
        pub window_targets: usize = 64_000, in 1_000..=64_000;
        /// Bytes between the committed and the read position of one source partition.
        // Two records of the largest size, or a few thousand usual ones.
        pub window_bytes: ByteSize = ByteSize::mib(8), in ByteSize::mib(4)..=ByteSize::mib(256);
        /// Time between the committed and the read position of one source partition.
        pub window_age: Duration = secs(10), in ms(100)..=secs(60);
        /// Deliveries a second of past events, for each source partition, of subscriptions that
        /// start at a time; 0 holds all replays.
        // A day of 10 a second in a quarter of an hour; a fiftieth of what one process routes.
        pub replay_rate: u32 = 1_000, in 0..=1_000_000;
    }
}

section! {
    /// The service that delivers.
    pub struct Dispatcher("dispatcher") {
        /// Bytes of deliveries in memory, in the whole process (rule 8).
        pub memory: ByteSize = ByteSize::mib(256), in ByteSize::mib(8)..=ByteSize::gib(64);
        /// Bytes of deliveries that wait in one lane.
        // A few of the largest events, thousands of usual ones: no lane takes all the memory.
        pub lane_memory: ByteSize = ByteSize::mib(8), in ByteSize::kib(64)..=ByteSize::gib(1);
        /// Attempts at once, in the whole process.
        pub max_in_flight: usize = 1_024, in 1..=65_536;
        /// Attempts at once to one endpoint that does not say how many it takes.
        // What keeps a fast endpoint busy (64 connections saturate one core); low enough that a
        // hanging one ties up a sixteenth of `max_in_flight`.
        pub endpoint_concurrency: u32 = 64, in 1..=4_096;
        /// Threads that make and send requests; 0 for two less than there are cores, and for none
        /// beside the engine's where there are no more than two.
        // On two cores, with a broker and an endpoint beside it, one thread was faster than two.
        pub sender_threads: u16 = 0, in 0..=256;
        /// How long a delivery may wait in memory for its turn; then it goes to a delay topic.
        pub horizon: Duration = secs(10), in ms(100)..=secs(60);
        /// How often positions are committed (rule 6).
        // What a death repeats: what ended less than an interval and the time of a commit before
        // it. Attempts wait when something completed has waited 400 ms for a commit.
        pub commit_interval: Duration = ms(100), in ms(1)..=ms(250);
        /// How long attempts may go on after their partition was revoked, or at shutdown.
        pub drain_deadline: Duration = secs(5), in ms(100)..=secs(60);
        /// After this long a dead dispatcher's open transaction is aborted by the broker.
        // An open transaction holds back every reader of its partitions.
        pub transaction_timeout: Duration = secs(5), in secs(1)..=secs(60);
        /// From the start of an attempt to the last byte of its answer.
        // Standard Webhooks recommends 15 to 30 s; the smaller holds less.
        pub attempt_timeout: Duration = secs(15), in ms(100)..=secs(300);
        /// For the connection, TLS included.
        pub connect_timeout: Duration = secs(10), in ms(50)..=secs(60);
        /// For the answer to a name's look-up.
        pub dns_timeout: Duration = secs(5), in ms(50)..=secs(60);
        /// Whether endpoints on loopback addresses are called. For tests and `up` (SS-1).
        pub allow_loopback: bool = false;
        /// Whether endpoints without TLS are called.
        pub allow_http: bool = false;
        /// Ports that endpoints may have beside 443, and 80 where `allow_http` is set; 0 allows
        /// every port.
        pub allowed_ports: Vec<u16> = Vec::new();
        /// What is done with IPv6 addresses that carry an IPv4 one.
        pub nat64: Nat64 = Nat64::Refuse;
        /// Bytes of an answer that are kept with the attempt.
        pub response_kept: ByteSize = ByteSize::kib(16), in ByteSize::b(0)..=ByteSize::mib(1);
        /// Bytes of an answer that are read before the connection is closed.
        // Enough to keep the connection for most answers; an endless one costs no more.
        pub response_read: ByteSize = ByteSize::kib(64), in ByteSize::b(0)..=ByteSize::mib(16);
    }
}

section! {
    /// The service that keeps tenants, keys, endpoints and subscriptions.
    pub struct Control("control") {
        /// Where it listens.
        pub bind: SocketAddr = loopback(8_081);
        /// The largest body of a request.
        pub max_body: ByteSize = ByteSize::mib(1), in ByteSize::kib(16)..=ByteSize::mib(64);
        /// Connections at once; beyond it, clients wait to be accepted.
        pub max_connections: usize = 256, in 1..=1_000_000;
        /// The operator's key. `up` makes one; `control` needs one.
        pub operator_key: Option<SecretString> = None;
    }
}

section! {
    /// The service that keeps cohorts and runs syncs.
    pub struct Cohorts("cohorts") {
        /// Where it listens.
        pub bind: SocketAddr = loopback(8_082);
        /// Where snapshots and rosters are kept: a folder, or `s3://bucket/prefix` in builds with
        /// S3; `cohorts` in `data_dir` where it is not set. Replicas share one.
        pub store: Option<String> = None;
        /// The folder of scratch files, on a local disk; the system's where it is not set.
        pub scratch: Option<PathBuf> = None;
        /// Bytes of scratch files of one upload at once.
        // A billion members.
        pub scratch_max: ByteSize = ByteSize::gib(64), in ByteSize::mib(64)..=ByteSize::gib(16_384);
        /// What one upload may hold in memory to sort its members.
        // Ten million members of 100 bytes in about twenty runs.
        pub sort_memory: ByteSize = ByteSize::mib(128), in ByteSize::mib(1)..=ByteSize::gib(2);
        /// Uploads at once; more are answered 503.
        pub max_uploads: usize = 2, in 1..=64;
        /// How long an upload may take.
        // Two gigabytes at 5 Mbit/s.
        pub upload_timeout: Duration = secs(3_600), in secs(10)..=secs(86_400);
        /// The largest body of a request that is no upload, such as members added and removed.
        pub max_body: ByteSize = ByteSize::mib(16), in ByteSize::kib(16)..=ByteSize::mib(32);
        /// Snapshots of each cohort that are kept.
        pub snapshots_kept: usize = 3, in 1..=1_000;
        /// Chunks of one run that are written and not reported.
        // What keeps a partner of 170 ms busy at 3,000 requests a second.
        pub chunks_ahead: usize = 512, in 1..=16_384;
        /// Bytes of chunks that are written and not reported, of all runs; one run has at most 32
        /// MiB of them.
        pub chunks_memory: ByteSize = ByteSize::mib(256), in ByteSize::mib(1)..=ByteSize::gib(16);
        /// How long a run that is cancelled, replaced or cannot go on waits for what is on its way;
        /// whoever is not heard of by then is unknown.
        // Two attempts' worth: beyond it, an endpoint that answers has answered.
        pub stop_wait: Duration = secs(60), in secs(1)..=secs(86_400);
        /// Connections at once; beyond it, clients wait to be accepted.
        pub max_connections: usize = 256, in 1..=1_000_000;
    }
}

section! {
    /// Keys that secrets are kept with.
    pub struct Secrets("secrets") {
        /// Keys as `id:base64` of 32 bytes, the newest first: it seals, all of them open. `up`
        /// makes one.
        pub keys: Vec<SecretString> = Vec::new();
    }
}
