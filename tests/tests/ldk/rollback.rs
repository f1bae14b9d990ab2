//! The signer is started from an old copy of its journal, under a real node that has gone on since (P7).

use std::fs;

use claviger_demo::node::payment_hash;

use crate::stage::{Stage, close, paid, pay, wait};

/// What was noticed, if the node is in quarantine.
fn quarantine(stage: &Stage) -> Option<String> {
    let shown = stage.world.signer.cli(&["node", "show", "alice"]).unwrap();
    let frozen = shown.get("frozen").filter(|frozen| frozen["by"] == "quarantine");
    frozen.and_then(|frozen| frozen["why"].as_str()).map(str::to_owned)
}

/// A journal's files.
type Journal = [Vec<u8>; 2];

/// Kills the signer and starts it again with `journal`, or with the one it had, which is returned.
fn start_with(stage: &mut Stage, journal: Option<&Journal>) -> Journal {
    let paths = ["journal.redb", "journal.wal"].map(|name| stage.world.signer.dir().join(name));
    stage.world.signer.kill().unwrap();
    let latest = paths.each_ref().map(|path| fs::read(path).unwrap());
    for (path, bytes) in paths.iter().zip(journal.into_iter().flatten()) {
        fs::write(path, bytes).unwrap();
    }
    stage.world.signer.start().unwrap();
    latest
}

#[test]
fn an_old_journal_signs_no_update_and_the_latest_goes_on_once_it_is_restored() {
    let mut stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 100_000_000);
    let old = start_with(&mut stage, None);
    assert_eq!(quarantine(&stage), None, "killed and started with its own journal");
    pay(&signed, &plain, 50_000_000);
    let invoice = signed.invoice(30_000_000, "a test").unwrap();

    let latest = start_with(&mut stage, Some(&old));
    wait("the quarantine", &[&plain], || quarantine(&stage).is_some_and(|why| why.contains("older than its counter")));
    // The node has gone on since: it waits with whatever this state refuses.
    plain.pay(&invoice).unwrap();
    wait("a refusal", &[&signed, &plain], || stage.refused().iter().any(|line| line.contains("quarantined")));
    assert!(!signed.history().received.contains_key(&payment_hash(&invoice)), "{:?}", stage.refused());

    // The latest one is behind the counter now as well: only somebody who looks can say that it is the latest.
    start_with(&mut stage, Some(&latest));
    wait("the quarantine", &[&plain], || quarantine(&stage).is_some());
    stage.world.signer.cli(&["restore", "alice", "--why", "the latest journal is back"]).unwrap();
    assert_eq!(quarantine(&stage), None);
    paid(&plain, &signed, payment_hash(&invoice));
    pay(&signed, &plain, 20_000_000);
    drop((signed, plain));
    stage.end_refused("quarantined");
}

/// What each start from an old copy lets happen: from the first line on that says what was noticed, no new state is signed.
fn assert_nothing_new_is_signed(stage: &Stage, moment: &str) {
    let lines = stage.world.signer.cli_lines(&["journal", "export"]).unwrap();
    let action = |line: &serde_json::Value| line["action"].as_str().unwrap_or_default().to_owned();
    let noticed = lines.iter().rposition(|line| action(line) == "QuarantineNode");
    let noticed = noticed.unwrap_or_else(|| panic!("{moment}: nothing was noticed"));
    let updates = ["SignRemoteCommitmentTx2", "SignRemoteCommitmentTx", "ValidateCommitmentTx2", "SetupChannel"];
    let signed = |line: &&serde_json::Value| line["verdict"] == "permit" && updates.contains(&&*action(line));
    let signed: Vec<_> = lines[noticed..].iter().filter(signed).map(action).collect();
    assert!(signed.is_empty(), "{moment}: {signed:?}");
}

#[test]
fn a_copy_from_any_time_of_a_channels_life_ends_in_quarantine_before_anything_is_signed() {
    let mut stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    let mut copies = vec![("before the channel", start_with(&mut stage, None))];
    stage.channel(&signed, &plain);
    copies.push(("a new channel", start_with(&mut stage, None)));
    pay(&signed, &plain, 100_000_000);
    copies.push(("in the middle", start_with(&mut stage, None)));
    pay(&plain, &signed, 20_000_000);
    assert_eq!(quarantine(&stage), None, "killed and started with its own journal");

    let invoice = signed.invoice(30_000_000, "a test").unwrap();
    let mut latest = None;
    for (moment, copy) in &copies {
        latest = latest.or(Some(start_with(&mut stage, Some(copy))));
        wait("the quarantine", &[&plain], || quarantine(&stage).is_some_and(|why| why.contains("older than")));
        // The node has gone on since, and is asked to go on.
        let _ = plain.pay(&invoice); // the first time; from then on it waits
        wait("a refusal", &[&signed, &plain], || stage.refused().iter().any(|line| line.contains("quarantined")));
        assert_nothing_new_is_signed(&stage, moment);
    }
    start_with(&mut stage, latest.as_ref());
    wait("the quarantine", &[&plain], || quarantine(&stage).is_some());
    stage.world.signer.cli(&["restore", "alice", "--why", "the latest journal is back"]).unwrap();
    assert_eq!(quarantine(&stage), None);
    paid(&plain, &signed, payment_hash(&invoice));

    // Closed: a copy in which the channel lives on signs no state of it.
    let open = start_with(&mut stage, None);
    close(&signed, &plain);
    stage.broadcast("the close", &[&signed, &plain]);
    stage.mine(6, &[&signed, &plain]);
    let closed = start_with(&mut stage, Some(&open));
    wait("the quarantine", &[&plain], || quarantine(&stage).is_some_and(|why| why.contains("older than")));
    assert_nothing_new_is_signed(&stage, "after the close");
    start_with(&mut stage, Some(&closed));
    wait("the quarantine", &[&plain], || quarantine(&stage).is_some());
    stage.world.signer.cli(&["restore", "alice"]).unwrap();
    stage.end_settled_refused(&[&signed, &plain], "quarantined");
    drop((signed, plain));
}
