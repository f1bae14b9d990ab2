//! The worked example of `docs/policy/`, in force over a real node: what is above the hour's limit waits for two treasurers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Amount;
use claviger_demo::node::{LdkNode, payment_hash};
use serde_json::Value;

use crate::stage::{Stage, paid, pay, wait};

const CHANNEL: Amount = Amount::from_sat(5_000_000);
/// Half of what the example lets leave within an hour.
const HALF_MSAT: u64 = 1_000_000_000;
/// More than is left after that.
const MORE_MSAT: u64 = 1_500_000_000;

/// The example as it is shipped, but for two things: the treasurers' keys are made here, and it is day now.
struct Treasury(PathBuf);

impl Treasury {
    fn new(dir: &Path) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy/examples/treasury-team");
        let bundle = dir.join("treasury-team");
        fs::create_dir_all(bundle.join("lists")).unwrap();
        for file in ["policy.toml", "rules.cedar", "lists/exchange.toml"] {
            fs::copy(example.join(file), bundle.join(file)).unwrap();
        }
        let rules = fs::read_to_string(bundle.join("rules.cedar")).unwrap();
        let night = "context.hour_utc >= 22 || context.hour_utc < 6";
        assert!(rules.contains(night), "{rules}");
        let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600 % 24;
        let elsewhere = format!("context.hour_utc == {}", (hour + 12) % 24);
        fs::write(bundle.join("rules.cedar"), rules.replace(night, &elsewhere)).unwrap();
        let signers = ["alice", "bob", "carol"].map(|person| {
            let key = dir.join(person);
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", person, "-f"]).arg(&key));
            format!("{person}@example.org {}", fs::read_to_string(key.with_extension("pub")).unwrap())
        });
        fs::write(bundle.join("allowed_signers"), signers.concat()).unwrap();
        Self(bundle)
    }

    /// One treasurer's signature over a grant, by the stock `ssh-keygen`.
    fn sign(&self, person: &str, grant: &str) -> PathBuf {
        let dir = self.0.parent().unwrap();
        let text = dir.join(format!("{person}.grant"));
        let signature = dir.join(format!("{person}.grant.sig"));
        let _ = fs::remove_file(&signature);
        fs::write(&text, grant).unwrap();
        let mut command = Command::new("ssh-keygen");
        run(command.args(["-Y", "sign", "-q", "-n", "claviger-grant", "-f"]).arg(dir.join(person)).arg(&text));
        signature
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("openssh-client is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The requests that the policy refused, as `claviger explain` tells them.
fn refused(stage: &Stage) -> Vec<Value> {
    let signer = &stage.world.signer;
    let lines = signer.cli_lines(&["journal", "export"]).unwrap();
    let denied = lines.iter().filter(|line| line["verdict"]["deny"]["reason"] == "policy-approval-needed");
    denied.map(|line| signer.cli(&["explain", line["request"].as_str().unwrap()]).unwrap()).collect()
}

fn hourly_msat(stage: &Stage) -> (u64, u64) {
    let status = stage.world.signer.cli(&["policy", "status"]).unwrap();
    let budgets = status["budgets"].as_array().unwrap();
    let hourly = budgets.iter().find(|budget| budget["budget"] == "hourly").unwrap_or_else(|| panic!("{status}"));
    (hourly["spent"].as_u64().unwrap(), hourly["reserved"].as_u64().unwrap())
}

/// Asks the signer, with a new invoice of the payee's if none is given, and expects to be refused.
fn is_refused(payer: &LdkNode, payee: &LdkNode) {
    let invoice = payee.invoice(MORE_MSAT, "above the limit").unwrap();
    let error = payer.pay(&invoice).unwrap_err().to_string();
    assert!(error.contains("policy-approval-needed"), "{error}");
}

#[test]
fn a_payment_above_the_limit_waits_for_two_treasurers_and_passes_once() {
    let stage = Stage::paying(4_000_000_000);
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    let signer = &stage.world.signer;
    let treasury = Treasury::new(stage.world.dir());
    signer.cli(&["policy", "apply", treasury.0.to_str().unwrap()]).unwrap();
    stage.channel_of(&signed, &plain, CHANNEL);
    pay(&signed, &plain, HALF_MSAT);

    // Above what is left: refused, with a ticket and what would have passed.
    let invoice = plain.invoice(MORE_MSAT, "a supplier").unwrap();
    let error = signed.pay(&invoice).unwrap_err().to_string();
    assert!(error.contains("policy-approval-needed"), "{error}");
    let explained = refused(&stage);
    let said = explained[0].to_string();
    assert!(said.contains("hourly") && said.contains("treasury"), "{said}");
    wait("the first payment to be spent", &[&signed, &plain], || hourly_msat(&stage) == (HALF_MSAT, 0));

    let grants = signer.cli(&["grant", "list"]).unwrap();
    let [ticket] = &grants["grants"].as_array().unwrap()[..] else { panic!("{grants}") };
    let id = ticket["grant"].as_str().or(ticket["id"].as_str()).unwrap_or_else(|| panic!("{ticket}"));
    let text = signer.cli(&["grant", "show", id]).unwrap()["text"].as_str().unwrap().to_owned();
    for (person, standing) in [("alice", "waiting"), ("carol", "in-force")] {
        assert!(signed.pay(&invoice).is_err(), "not before two have signed");
        let signature = treasury.sign(person, &text);
        let approved = signer.cli(&["grant", "approve", id, "--signature", signature.to_str().unwrap()]).unwrap();
        assert!(approved.to_string().contains(standing), "{approved}");
    }

    // The node tries again, and the money arrives.
    signed.pay(&invoice).unwrap();
    paid(&signed, &plain, payment_hash(&invoice));

    // What was approved was this payment: the third attempt at so much is refused again.
    is_refused(&signed, &plain);
    wait("the second payment to be spent", &[&signed, &plain], || hourly_msat(&stage) == (HALF_MSAT + MORE_MSAT, 0));
    assert_eq!(refused(&stage).len(), 4, "once before anybody signed, twice meanwhile, and after it");
    stage.end_refused("policy-approval-needed");
}
