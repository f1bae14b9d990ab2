//! `claviger grant`: what people allow in advance, or on a ticket, by their own signatures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use claviger_policy::actions::Action;
use claviger_policy::facts::FactId;
use claviger_policy::grant::{GrantId, Intent, Requester};
use claviger_policy::time as utc;
use claviger_proto::v1::{GrantApproveRequest, GrantAskRequest, GrantInfo, GrantListRequest, GrantRevokeRequest};
use serde_json::json;

use super::admin::Daemon;
use super::policy::applied::{in_force, info, network, nothing, read};
use super::{CliError, Output, admin, time};

const CREATE_EXAMPLES: &str = "Examples:
  claviger grant create --node alice --action PayInvoice --max-amount-msat 300000000 --group treasury \\
      --requester carol@example.org --reason 'supplier, November' > grant.txt
  ssh-keygen -Y sign -n claviger-request -f KEY grant.txt
  claviger grant create --text grant.txt --signature grant.txt.sig

The first writes what is asked and changes nothing; the last asks. Who asks signs, and cannot approve.";

const APPROVE_EXAMPLES: &str = "Examples:
  claviger grant show ID > grant.txt                           read it
  ssh-keygen -Y sign -n claviger-grant -f KEY grant.txt        a key in hardware works too
  claviger grant approve ID --signature grant.txt.sig";

#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Write the text of a grant, or ask for it with the signed text.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<CreateArgs>),
    /// The text of one grant, exactly as it is signed.
    Show {
        /// Its id.
        id: String,
    },
    /// Approve a grant: your signature over its text.
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve {
        /// Its id.
        id: String,
        /// What `ssh-keygen -Y sign` wrote.
        #[arg(long, value_name = "FILE")]
        signature: PathBuf,
    },
    /// All grants: what waits for approval, what is in force, what was taken back.
    List {
        /// Only this node's.
        #[arg(long)]
        node: Option<String>,
    },
    /// Take a grant back. What it let pass before stays passed.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Ask for what this text says, which `grant create` wrote.
    #[arg(long, value_name = "FILE", requires = "signature", conflicts_with_all = ["node", "action", "group", "requester"])]
    text: Option<PathBuf>,
    /// The requester's signature over the text.
    #[arg(long, value_name = "FILE", requires = "text")]
    signature: Option<PathBuf>,
    /// The one node that it is for.
    #[arg(long, required_unless_present = "text")]
    node: Option<String>,
    /// What may be done: an action of docs/policy/facts.md. May be repeated.
    #[arg(long, value_name = "ACTION", value_parser = action, required_unless_present = "text")]
    action: Vec<Action>,
    /// A fact that must have this value, as payee=03cd…. May be repeated.
    #[arg(long, value_name = "FACT=VALUE", value_parser = pin)]
    pin: Vec<(FactId, String)>,
    /// At most so much by each request. Needed where the action moves money.
    #[arg(long, value_name = "MSAT")]
    max_amount_msat: Option<u64>,
    /// At most so much in fees by each request.
    #[arg(long, value_name = "MSAT")]
    max_fee_msat: Option<u64>,
    /// At most so much by all uses together, without fees.
    #[arg(long, value_name = "MSAT")]
    max_total_msat: Option<u64>,
    /// How many requests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// From when on, as 2026-12-01T09:00:00Z; from now if absent.
    #[arg(long, value_name = "TIME", value_parser = at)]
    from: Option<u64>,
    /// For how long: a number and s, m, h or d.
    #[arg(long = "for", value_name = "TIME", value_parser = time::seconds, default_value = "24h")]
    valid_s: u64,
    /// Which approval group of the policy in force approves it.
    #[arg(long, required_unless_present = "text")]
    group: Option<String>,
    /// Who asks, as `allowed_signers` names the person.
    #[arg(long, value_name = "PERSON", required_unless_present = "text")]
    requester: Option<String>,
    /// Why, for the approvers.
    #[arg(long, value_name = "TEXT", default_value = "-")]
    reason: String,
}

/// Runs one `claviger grant` command.
pub(super) fn grant(data_dir: &Path, command: GrantCommand, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    match command {
        GrantCommand::Create(args) => match (&args.text, &args.signature) {
            (Some(text), Some(signature)) => {
                let request = GrantAskRequest { text: read(text)?, signature: read(signature)? };
                let asked = daemon.call(async |client| client.grant_ask(request).await)?;
                output.result(&asked, || line(&asked));
            }
            _ => {
                let intent = intent(&daemon, *args)?;
                exactly(&intent.text(), &json!({ "grant": intent.id, "text": intent.text() }), output);
            }
        },
        GrantCommand::Show { id } => {
            let grant = one(&daemon, id)?;
            for fact in &grant.claimed {
                output.progress(&format!("note: '{fact}' is the node's word alone"));
            }
            output.progress(&format!("approve it with: ssh-keygen -Y sign -n {} -f KEY FILE", grant.namespace));
            exactly(&grant.text, &grant, output);
        }
        GrantCommand::Approve { id, signature } => {
            let request = GrantApproveRequest { grant: id, signature: read(&signature)? };
            let approved = daemon.call(async |client| client.grant_approve(request).await)?;
            output.result(&approved, || line(&approved));
        }
        GrantCommand::List { node } => {
            let request = GrantListRequest { node: node.unwrap_or_default(), grant: String::new() };
            let list = daemon.call(async |client| client.grant_list(request).await)?;
            output.result(&list, || match &list.grants[..] {
                [] => "no grants".to_owned(),
                grants => grants.iter().map(line).collect::<Vec<_>>().join("\n"),
            });
        }
        GrantCommand::Revoke { id } => {
            let request = GrantRevokeRequest { grant: id };
            let revoked = daemon.call(async |client| client.grant_revoke(request).await)?;
            output.result(&revoked, || line(&revoked));
        }
    }
    Ok(())
}

/// What the arguments ask, with what the policy in force means by the group.
fn intent(daemon: &Daemon, args: CreateArgs) -> Result<Intent, CliError> {
    let info = info(daemon)?;
    let bundle = in_force(daemon, network(&info)?)?.ok_or_else(nothing)?;
    let name = args.group.unwrap_or_default();
    let group = bundle.policy().approvals.group(&name).ok_or_else(|| {
        let groups: Vec<_> = bundle.policy().approvals.groups().map(|(name, _)| name).collect();
        let what = format!("the policy in force has no approval group '{name}'");
        CliError::new(what, format!("It has: {}.", if groups.is_empty() { "none".into() } else { groups.join(", ") }))
    })?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| CliError::new(error, "Try again."))?;
    let now_s = time::now_ms() / 1_000;
    let valid_from_s = args.from.map_or(now_s, |at_ms| at_ms / 1_000);
    let mut actions = args.action;
    actions.sort();
    actions.dedup();
    let intent = Intent {
        appliance: info.appliance,
        id: GrantId(id),
        kind: group.kind,
        node: args.node.unwrap_or_default(),
        actions,
        pins: args.pin.into_iter().collect::<BTreeMap<_, _>>(),
        max_amount_msat: args.max_amount_msat,
        max_fee_msat: args.max_fee_msat,
        max_total_msat: args.max_total_msat,
        uses: args.uses,
        valid_from_s,
        valid_until_s: valid_from_s.saturating_add(args.valid_s),
        of: group.of,
        role: group.role.clone(),
        group: name,
        requester: Requester::Person(args.requester.unwrap_or_default()),
        reason: args.reason,
    };
    intent.check().map_err(|error| CliError::new(&error, error.hint()))?;
    Ok(intent)
}

fn one(daemon: &Daemon, id: String) -> Result<GrantInfo, CliError> {
    let request = GrantListRequest { node: String::new(), grant: id };
    let list = daemon.call(async |client| client.grant_list(request).await)?;
    let none = || CliError::new("there is no such grant", "See `claviger grant list`.");
    list.grants.into_iter().next().ok_or_else(none)
}

/// Prints a text that is signed byte for byte: nothing before it, and its own last line end only.
fn exactly(text: &str, value: &impl serde::Serialize, output: &Output) {
    output.line(value, || text.strip_suffix('\n').unwrap_or(text).to_owned());
}

/// One grant in one line.
fn line(grant: &GrantInfo) -> String {
    let GrantInfo { grant: id, node, standing, have, need, uses_left, approved_by, text, .. } = grant;
    let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).unwrap_or_default();
    let by = if approved_by.is_empty() { String::new() } else { format!(" by {}", approved_by.join(", ")) };
    format!(
        "{id} {node} {standing}  {} up to {} msat, until {}, uses left {uses_left}, approved {have} of {need}{by}  ({})",
        said("actions"),
        said("max_amount_msat"),
        said("valid_until"),
        said("reason"),
    )
}

fn action(text: &str) -> Result<Action, String> {
    Action::by_id(text).ok_or_else(|| {
        let ids: Vec<_> = Action::ALL.iter().map(|action| action.id()).collect();
        format!("use one of {}", ids.join(", "))
    })
}

fn pin(text: &str) -> Result<(FactId, String), String> {
    let (fact, value) = text.split_once('=').ok_or("write FACT=VALUE")?;
    let fact = FactId::by_id(fact).ok_or_else(|| format!("'{fact}' is not a fact: see docs/policy/facts.md"))?;
    Ok((fact, value.to_owned()))
}

/// A time in UTC, in milliseconds since the Unix epoch.
pub(super) fn at(text: &str) -> Result<u64, String> {
    let unix_s = utc::parse(text).ok_or_else(|| "write it as 2026-12-01T09:00:00Z".to_owned())?;
    Ok(unix_s.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_in_one_line_says_what_who_and_until_when() {
        let grant = GrantInfo {
            grant: "9f86".to_owned(),
            node: "alice".to_owned(),
            standing: "waiting".to_owned(),
            text: "claviger grant 1\nactions: PayInvoice\nmax_amount_msat: 5\nvalid_until: 2026-12-01T09:00:00Z\n\
                   reason: budget hourly\n"
                .to_owned(),
            have: 1,
            need: 2,
            approved_by: vec!["bob".to_owned()],
            uses_left: 1,
            ..GrantInfo::default()
        };
        assert_eq!(
            line(&grant),
            "9f86 alice waiting  PayInvoice up to 5 msat, until 2026-12-01T09:00:00Z, uses left 1, approved 1 of 2 by bob  \
             (budget hourly)"
        );
    }
}
