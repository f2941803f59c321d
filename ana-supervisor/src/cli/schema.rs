//! `ana schema`: what everything prints with `--json`, as JSON Schema (draft 2020-12), generated from the types.

use std::{io::Write, process::ExitCode};

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{answer, audit, doctor, policy};
use crate::{api::wire::SessionInfo, approval::passkeys::Passkey, evidence::Payload, operation::Operation};

/// Print the JSON Schema of what a command prints with --json
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Whose output; without it, all names
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(SCHEMAS.map(|(name, ..)| name)))]
    name: Option<String>,
}

/// The name, what it describes, and how it is made.
type Entry = (&'static str, &'static str, fn() -> schemars::Schema);

const SCHEMAS: [Entry; 11] = [
    ("operation", "what a passkey signs (as RFC 8785)", of::<Operation>),
    ("record", "a record's payload; a line of `ana audit export`", of::<Payload>),
    ("pending", "ana pending --json", of::<Vec<answer::Row>>),
    ("sessions", "ana sessions --json", of::<Vec<SessionInfo>>),
    ("passkeys", "ana passkey list --json", of::<Vec<Passkey>>),
    ("policy-check", "ana policy check --json", of::<PolicyCheck>),
    ("policy-explain", "ana policy explain --json", of::<PolicyExplain>),
    ("audit-list", "ana audit list --json", of::<Vec<audit::list::Row>>),
    ("audit-show", "ana audit show --json", of::<audit::show::Story>),
    ("audit-verify", "ana audit verify --json", of::<audit::verify::Said>),
    ("doctor", "ana doctor --json", of::<doctor::Diagnosis<'static>>),
];

/// Only its schema is of use: the command prints one or the other.
#[derive(JsonSchema, serde::Serialize)]
#[serde(untagged)]
enum PolicyCheck {
    #[expect(dead_code, reason = "described, not made")]
    Checked(policy::Checked<'static>),
    #[expect(dead_code, reason = "described, not made")]
    Failed(policy::Failed<'static>),
}

/// By the kind of the operation.
#[derive(JsonSchema, serde::Serialize)]
#[serde(untagged)]
enum PolicyExplain {
    #[expect(dead_code, reason = "described, not made")]
    Exec(policy::explain::Explained),
    #[expect(dead_code, reason = "described, not made")]
    Connect(policy::explain_connect::Explained),
}

fn of<T: JsonSchema>() -> schemars::Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// Prints one schema, or the list of them.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match SCHEMAS.iter().find(|(name, ..)| Some(*name) == args.name.as_deref()) {
        Some((_, what, schema)) => {
            let mut schema = schema();
            schema.insert("description".to_owned(), (*what).into());
            serde_json::to_writer_pretty(&mut out, &schema)?;
            writeln!(out)?;
        }
        None => {
            let width = SCHEMAS.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
            for (name, what, _) in SCHEMAS {
                writeln!(out, "{name:<width$}  {what}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
