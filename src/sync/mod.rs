//! Owns `anabranch sync`: what of a cohort goes to which endpoint, and how its runs fare.
//!
//! It must never decide what is sent: definitions are `control`'s, runs the cohorts service's. The
//! surprise: a profile's settings are texts on a command line; what they are is taken from the
//! profile's own example.

mod fit;
mod told;
mod watch;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use schemas::profile::{Profile, READY, ready};
use schemas::resources::input::Faults;
use serde_json::{Map, Value, json};

use crate::cli::Tenant;
use crate::cohort::{APPLIED, CohortsArgs, Noun, Service, list, member};
use crate::output;
use crate::settings::{Settings, Usage};

/// About syncs.
#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// Say that a cohort goes to an endpoint; nothing is sent before the first run
    Create(Box<CreateArgs>),
    /// List syncs, one JSON object a line
    List(AllArgs),
    /// Show a sync as it was made
    Show(OneArgs),
    /// Change when it runs, and what a run may remove
    Update(UpdateArgs),
    /// Say what a run would send, and how long it takes
    Plan(ShownArgs),
    /// Make the endpoint's list equal to the cohort, now
    Run(RunArgs),
    /// Say how a sync fares
    Status(StatusArgs),
    /// Send nothing new
    Pause(OneArgs),
    /// Go on from where it was
    Resume(OneArgs),
    /// End the run that is under way
    Cancel(OneArgs),
    /// Export every member that is not confirmed, with the partner's words
    Report(ReportArgs),
    /// Delete a sync; what the partner holds stays there
    Delete(OneArgs),
}

/// Flags of `anabranch sync create`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch sync create --tenant acme --cohort VIP --endpoint ep_… --profile generic-50
  anabranch sync create --tenant acme --cohort VIP --endpoint ep_… --profile braze-users-track \\
      --variable attribute=cohorts --variable cohort=vip --schedule '0 * * * *' --time-zone Europe/Zurich

`anabranch profile list` shows the profiles that come with the program. An endpoint without limits
gets those of the profile, unless `--keep-limits` is there.")]
pub(crate) struct CreateArgs {
    /// The cohort's id, or its name
    #[arg(long)]
    cohort: String,
    /// The endpoint's id
    #[arg(long, value_name = "ID")]
    endpoint: String,
    /// A profile that comes with the program, or a file of your own
    #[arg(long, value_name = "PROFILE|FILE")]
    profile: String,
    /// A setting of the profile; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// The partner's list by its id there, where it exists
    #[arg(long, value_name = "ID")]
    list: Option<String>,
    /// Leave the endpoint's limits as they are
    #[arg(long)]
    keep_limits: bool,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// What may be said when a sync is made, and later.
#[derive(Debug, Args)]
pub(crate) struct Fields {
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// When it runs by itself: a cron expression of five fields
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    /// The time zone of the schedule; UTC where it is not said
    #[arg(long, value_name = "ZONE", requires = "schedule")]
    time_zone: Option<String>,
    /// Take a schedule that a run of all that is to be sent now cannot keep: later ones send what
    /// has changed alone
    #[arg(long, requires = "schedule")]
    anyway: bool,
    /// What becomes of a run that is not over when the next is due
    #[arg(long)]
    overlap: Option<Overlap>,
    /// A run that removes a larger share waits for approval; 20 where it is not said
    #[arg(long, value_name = "PERCENT")]
    removals_max_percent: Option<u8>,
}

/// What becomes of a run that is not over when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Overlap {
    /// It goes on with the newest snapshot
    Replace,
    /// It is finished first
    Finish,
    /// The next is left out
    Skip,
}

impl Overlap {
    const fn word(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Finish => "finish",
            Self::Skip => "skip",
        }
    }
}

/// Flags of what is about all syncs.
#[derive(Debug, Args)]
pub(crate) struct AllArgs {
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Flags of what is about one sync.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Its id, or its name
    sync: String,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Flags of `anabranch sync update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    fields: Fields,
    /// Run only when told to
    #[arg(long, conflicts_with = "schedule")]
    no_schedule: bool,
}

/// Flags of what is shown to people, or as JSON.
#[derive(Debug, Args)]
pub(crate) struct ShownArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `anabranch sync run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Remove whatever has left the cohort, however much it is
    #[arg(long)]
    approve_removals: bool,
    /// Wait until the run is over; exit code 1 where it did not get to its end
    #[arg(long)]
    wait: bool,
}

/// Flags of `anabranch sync status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Show it as it changes, until the run is over
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `anabranch sync report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Write it here, one JSON object a line; standard output where it is not said
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A sync that was named.
struct Named {
    service: Service,
    id: String,
}

impl Named {
    async fn find(one: &OneArgs, settings: &Settings) -> anyhow::Result<Self> {
        let service = Service::new(&one.to, &one.tenant.tenant, settings)?;
        let id = service.id(Noun::Sync, &one.sync).await?;
        Ok(Self { service, id })
    }

    fn path<'a>(&'a self, action: Option<&'a str>) -> Vec<&'a str> {
        let mut path = vec![Noun::Sync.path(), self.id.as_str()];
        path.extend(action);
        path
    }

    /// Asks `control` and prints the answer.
    async fn define(
        &self,
        method: Method,
        action: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<ExitCode> {
        let path = self.path(action);
        let query: &[(&str, &str)] = if method == Method::GET { &[] } else { &APPLIED };
        let answer = self.service.control(method, &path, query, body).await?;
        let value = answer.json()?;
        if !value.is_null() {
            output::line(serde_json::to_string_pretty(&value)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks the cohorts service.
    async fn ask(
        &self,
        method: Method,
        action: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let path = self.path(action);
        self.service.ask(method, &path, body).await?.json()
    }
}

/// Runs the command.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(command: SyncCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    match command {
        SyncCommand::Create(args) => create(*args, settings).await,
        SyncCommand::List(AllArgs { tenant, to }) => {
            list(&Service::new(&to, &tenant.tenant, settings)?, Noun::Sync).await
        }
        SyncCommand::Show(one) => define(&one, settings, (Method::GET, None)).await,
        SyncCommand::Update(args) => update(args, settings).await,
        SyncCommand::Plan(args) => plan(&args, settings).await,
        SyncCommand::Run(args) => begin(&args, settings).await,
        SyncCommand::Status(args) => status(&args, settings).await,
        SyncCommand::Pause(one) => define(&one, settings, (Method::POST, Some("pause"))).await,
        SyncCommand::Resume(one) => define(&one, settings, (Method::POST, Some("resume"))).await,
        SyncCommand::Cancel(one) => {
            let named = Named::find(&one, settings).await?;
            named.ask(Method::POST, Some("cancel"), None).await?;
            output::note("the run ends with what is on its way; `sync status` shows it");
            Ok(ExitCode::SUCCESS)
        }
        SyncCommand::Report(args) => report(&args, settings).await,
        SyncCommand::Delete(one) => define(&one, settings, (Method::DELETE, None)).await,
    }
}

async fn define(
    one: &OneArgs,
    settings: &Settings,
    (method, action): (Method, Option<&str>),
) -> anyhow::Result<ExitCode> {
    let named = Named::find(one, settings).await?;
    named.define(method, action, None).await
}

async fn create(args: CreateArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (said, profile) = profile(&args.profile)?;
    let service = Service::new(&args.to, &args.tenant.tenant, settings)?;
    let mut body = fields(&args.fields);
    let cohort = service.id(Noun::Cohort, &args.cohort).await?;
    body.insert("cohort".to_owned(), cohort.into());
    body.insert("endpoint".to_owned(), args.endpoint.into());
    body.insert("profile".to_owned(), said);
    let variables = variables(&profile, &args.variables)?;
    if !variables.is_empty() {
        body.insert("variables".to_owned(), variables.into());
    }
    if let Some(list) = args.list {
        body.insert("list".to_owned(), list.into());
    }
    if args.keep_limits {
        body.insert("apply_limits".to_owned(), false.into());
    }
    // Whether a schedule can be kept is known of a sync that is there: it gets it afterwards.
    let schedule = match args.fields.anyway {
        true => None,
        false => body.remove("schedule"),
    };
    let (path, body) = ([Noun::Sync.path()], Value::Object(body));
    let made = service.control(Method::POST, &path, &APPLIED, Some(&body));
    let mut made = made.await?.json()?;
    if let Some(schedule) = schedule {
        let id = member(&made, "id").context("answer names no sync")?;
        let named = Named {
            id: id.to_owned(),
            service,
        };
        made = fit::schedule(&named, &schedule).await?;
    }
    output::line(serde_json::to_string_pretty(&made)?)?;
    if let Some(sunset) = profile.sunset {
        output::note(format_args!(
            "note: the version of the partner's API that {} speaks ends on {sunset}",
            profile.profile
        ));
    }
    output::note("nothing is sent yet: `sync plan` says what would be, `sync run` sends it");
    Ok(ExitCode::SUCCESS)
}

fn fields(fields: &Fields) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        body.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("name", fields.name.clone().map(Value::from));
    let zone = fields.time_zone.as_deref().unwrap_or("UTC");
    let schedule = fields.schedule.as_ref();
    put(
        "schedule",
        schedule.map(|cron| json!({ "cron": cron, "time_zone": zone })),
    );
    put(
        "overlap",
        fields.overlap.map(|overlap| overlap.word().into()),
    );
    put(
        "removals_max_percent",
        fields.removals_max_percent.map(Value::from),
    );
    put("schedule_must_fit", fields.anyway.then(|| false.into()));
    body
}

/// What the API is told of a profile, and the profile: one that comes with the program by its id,
/// another whole.
fn profile(named: &str) -> anyhow::Result<(Value, Profile)> {
    if let Some(file) = ready(named) {
        let profile = Profile::from_yaml(file).map_err(|wrong| faults(named, &wrong))?;
        return Ok((named.into(), profile));
    }
    let text = std::fs::read_to_string(Path::new(named)).with_context(|| {
        let known: Vec<&str> = READY.iter().map(|(id, _)| *id).collect();
        let known = known.join(", ");
        format!(
            "`{named}` is no file, and none of the profiles that come with the program: {known}"
        )
    })?;
    let profile = Profile::from_yaml(&text).map_err(|wrong| faults(named, &wrong))?;
    Ok((serde_json::to_value(&profile)?, profile))
}

fn faults(named: &str, Faults(faults): &Faults) -> Usage {
    let lines = faults
        .iter()
        .map(|fault| format!("\n  {}: {}", fault.pointer, fault.detail));
    Usage(format!(
        "`{named}` is no profile (`anabranch profile check` tries one out):{}",
        lines.collect::<String>()
    ))
}

/// The settings of a profile. What is a number or a flag there is one here.
fn variables(profile: &Profile, said: &[String]) -> Result<Map<String, Value>, Usage> {
    let read = |text: &String| {
        let wrong = || Usage(format!("`--variable {text}`: say it as NAME=VALUE"));
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let known = profile.variables.get(name);
        let is_text = known.is_none_or(|known| known.example.is_string());
        let value = match is_text {
            true => Value::from(value),
            false => serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)),
        };
        Ok((name.to_owned(), value))
    };
    said.iter().map(read).collect()
}

async fn update(args: UpdateArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut body = fields(&args.fields);
    if args.no_schedule {
        body.insert("schedule".to_owned(), Value::Null);
    }
    if body.is_empty() {
        return Err(Usage("nothing is to be changed: say what".to_owned()).into());
    }
    let named = Named::find(&args.one, settings).await?;
    if let Some(schedule) = body.get("schedule").filter(|_| !args.fields.anyway) {
        fit::check(&named, schedule).await?;
    }
    let body = Value::Object(body);
    named.define(Method::PATCH, None, Some(&body)).await
}

async fn plan(args: &ShownArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let named = Named::find(&args.one, settings).await?;
    let plan = named.ask(Method::GET, Some("plan"), None).await?;
    if args.json {
        output::line(serde_json::to_string_pretty(&plan)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = serde_json::from_value::<told::Plan>(plan)?;
    for line in plan.lines() {
        output::line(line)?;
    }
    match plan.misfit() {
        None => Ok(ExitCode::SUCCESS),
        Some(misfit) => {
            output::note(misfit);
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn begin(args: &RunArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let named = Named::find(&args.one, settings).await?;
    let body = json!({ "approve_removals": args.approve_removals });
    let asked = named.ask(Method::POST, Some("runs"), Some(&body)).await?;
    if args.wait {
        let request = member(&asked, "request").context("answer names no request")?;
        return watch::until_over(&named, request).await;
    }
    output::note("it begins: `sync status --watch` shows how it fares");
    Ok(ExitCode::SUCCESS)
}

async fn status(args: &StatusArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let named = Named::find(&args.one, settings).await?;
    if args.watch {
        return watch::live(&named).await;
    }
    let status = named.ask(Method::GET, None, None).await?;
    if args.json {
        output::line(serde_json::to_string_pretty(&status)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in serde_json::from_value::<told::Status>(status)?.lines() {
        output::line(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies the report as it comes: it may be as long as the cohort.
async fn report(args: &ReportArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let named = Named::find(&args.one, settings).await?;
    let mut report = named.service.stream(&named.path(Some("report"))).await?;
    let mut out: Box<dyn Write> = match &args.output {
        None => Box::new(io::stdout()),
        Some(path) => {
            let file = std::fs::File::create(path);
            Box::new(file.with_context(|| format!("`{}` cannot be written", path.display()))?)
        }
    };
    let mut members = 0_u64;
    while let Some(piece) = report
        .chunk()
        .await
        .map_err(reqwest::Error::without_url)
        .context("the report broke off")?
    {
        let lines = piece.iter().filter(|byte| **byte == b'\n').count();
        members += u64::try_from(lines).unwrap_or(0);
        out.write_all(&piece)?;
    }
    out.flush()?;
    output::note(format_args!(
        "{} members are not confirmed",
        output::thousands(members)
    ));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn created(line: &str) -> CreateArgs {
        let words = format!("anabranch sync create --tenant a --cohort c --endpoint ep_1 {line}");
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        let Command::Sync {
            command: SyncCommand::Create(args),
        } = cli.command
        else {
            panic!("`{line}` creates nothing");
        };
        *args
    }

    #[test]
    fn what_is_said_is_what_the_api_is_told() {
        let args = created(
            "--profile generic-50 --name n --schedule @daily --time-zone Europe/Zurich \
             --overlap finish --removals-max-percent 5",
        );
        let body = Value::Object(fields(&args.fields));
        let schedule = json!({ "cron": "@daily", "time_zone": "Europe/Zurich" });
        assert_eq!(
            body,
            json!({
                "name": "n", "schedule": schedule, "overlap": "finish", "removals_max_percent": 5,
            })
        );
        let args = created("--profile generic-50 --schedule @hourly");
        assert_eq!(fields(&args.fields)["schedule"]["time_zone"], "UTC");
        assert!(
            fields(&created("--profile generic-50").fields)
                .get("name")
                .is_none()
        );
    }

    #[test]
    fn settings_are_what_the_profiles_examples_are() {
        let (said, mut known) = profile("braze-users-track").unwrap();
        assert_eq!(said, "braze-users-track");
        let check = |known: &Profile, text: &str, expected: Value| {
            let read = variables(known, &[text.to_owned()]).unwrap();
            assert_eq!(Value::Object(read), expected, "{text}");
        };
        check(&known, "cohort=7", json!({ "cohort": "7" }));
        check(&known, "cohort=a=b", json!({ "cohort": "a=b" }));
        check(&known, "else=1", json!({ "else": "1" }));
        known.variables.get_mut("cohort").unwrap().example = json!(1);
        check(&known, "cohort=7", json!({ "cohort": 7 }));
        check(&known, "cohort=x", json!({ "cohort": "x" }));
        assert!(variables(&known, &["cohort".to_owned()]).is_err());
    }

    #[test]
    fn a_profile_of_ones_own_is_sent_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = ready("generic-50")
            .unwrap()
            .replace("generic-50", "our-own");
        std::fs::write(file.path(), text).unwrap();
        let (said, _) = profile(file.path().to_str().unwrap()).unwrap();
        assert_eq!(said["profile"], "our-own");
        assert_eq!(said["limits"]["items"], 50);
        std::fs::write(file.path(), "profile: x").unwrap();
        let wrong = profile(file.path().to_str().unwrap()).unwrap_err();
        assert!(wrong.to_string().contains("/operations"), "{wrong}");
        let unknown = profile("generic-51").unwrap_err().to_string();
        assert!(unknown.contains("generic-50"), "{unknown}");
    }
}
