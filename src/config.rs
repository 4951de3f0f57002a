//! Owns the commands about the configuration itself: its reference, and new keys for it.

use std::process::ExitCode;

use clap::Subcommand;
use runtime::clock::Entropy;
use runtime::secret::{ExposeSecret, Sealer};

use crate::{keyring, output};

/// About the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every option with its default, bounds and purpose
    Reference,
    /// Print a new operator's key and a new sealing key as TOML, for services on Kafka
    NewKeys,
}

/// Runs one of them.
///
/// # Errors
/// Where nobody reads standard output.
pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Reference => output::text(&runtime::config::reference())?,
        ConfigCommand::NewKeys => {
            let entropy = Entropy::system();
            let operator = keyring::new_operator_key(&entropy);
            let sealing = Sealer::generate("first", &entropy)?;
            output::line(
                "# Keep this file to yourself: every service reads it (`--config FILE`).",
            )?;
            output::line(format_args!(
                "[control]\noperator_key = \"{}\"\n",
                operator.expose_secret()
            ))?;
            output::line(format_args!(
                "[secrets]\nkeys = [\"{}\"]",
                sealing.expose_secret()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
