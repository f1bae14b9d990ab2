//! Bundles: bounded, hashed over everything that counts, read with all errors at once, in force in order.

use std::collections::HashMap;

use bitcoin::Network;
use fastrand::Rng;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use super::*;

/// A policy that permits one thing, as version `version`.
fn files(version: u64) -> Files {
    let mut files = Files::default();
    files.add("policy.toml", format!("version = {version}\n").into_bytes()).expect("a part");
    files.add("rules.cedar", RULES.to_vec()).expect("a part");
    files
}

const RULES: &[u8] = b"@id(\"gossip\")\npermit (principal, action == Action::\"Gossip\", resource);\n";

fn with(mut files: Files, name: &str, contents: &str) -> Files {
    files.add(name, contents.as_bytes().to_vec()).expect("a part");
    files
}

fn bundle(files: Files) -> Bundle {
    Bundle::parse(files, Network::Regtest).expect("a good bundle")
}

fn errors(files: Files) -> Vec<String> {
    let errors = Bundle::parse(files, Network::Regtest).expect_err("a bad bundle");
    assert!(errors.iter().all(|error| !error.hint.is_empty()), "{errors:?}");
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_parts_of_a_bundle_are_known_by_name_and_what_is_nearly_one_is_refused() {
    for (name, part) in [
        ("policy.toml", Some(Part::Policy)),
        ("night.cedar", Some(Part::Rules)),
        ("night.test.toml", Some(Part::Tests)),
        ("lists/exchange.toml", Some(Part::List)),
        ("allowed_signers", Some(Part::AllowedSigners)),
        ("signatures/alice.sig", Some(Part::Signature)),
        ("README.md", None),
        (".git/config", None),
    ] {
        assert_eq!(Part::of(name), Ok(part), "{name}");
    }
    for name in
        ["rules/night.cedar", "Policy.toml", "list/exchange.toml", "lists/a/b.toml", "Night.cedar", "lists/x.csv"]
    {
        assert_eq!(Part::of(name), Err(FilesError::Astray(name.to_owned())));
    }
}

#[test]
fn files_are_bounded_one_by_one_and_together() {
    let mut files = Files::default();
    let largest = vec![b' '; MAX_FILE_BYTES];
    let too_large = [&largest[..], b" "].concat();
    assert_eq!(files.add("a.cedar", too_large), Err(FilesError::FileTooLarge("a.cedar".into())));
    for index in 0..MAX_BUNDLE_BYTES / MAX_FILE_BYTES {
        assert_eq!(files.add(&format!("a{index}.cedar"), largest.clone()), Ok(()));
    }
    assert_eq!(files.add("b.cedar", vec![b' ']), Err(FilesError::BundleTooLarge("b.cedar".into())));
    assert_eq!(files.add("README.md", largest), Ok(()));

    let mut files = Files::default();
    for index in 0..MAX_FILES {
        assert_eq!(files.add(&format!("a{index}.cedar"), Vec::new()), Ok(()));
    }
    assert_eq!(files.add("b.cedar", Vec::new()), Err(FilesError::TooMany("b.cedar".into())));
    let long = format!("{}.cedar", "a".repeat(MAX_NAME_BYTES));
    assert!(matches!(files.add(&long, Vec::new()), Err(FilesError::NameTooLong(_))));
}

/// Bundles that look random, the same in every run.
struct Dice(Rng);

impl Dice {
    /// Few names and short contents, so that much of one could pass for another.
    fn files(&mut self) -> Files {
        let mut files = Files::default();
        for _ in 0..self.0.usize(..4) {
            let name = ["a.cedar", "ab.cedar", "b.cedar", "policy.toml"][self.0.usize(..4)];
            let contents = (0..self.0.usize(..4)).map(|_| b"ab"[self.0.usize(..2)]).collect();
            let _ = files.add(name, contents);
        }
        files
    }
}

#[test]
fn the_hash_tells_apart_whatever_differs_in_a_name_or_a_byte() {
    let (mut dice, mut seen) = (Dice(Rng::with_seed(1)), HashMap::new());
    for _ in 0..5_000 {
        let files = dice.files();
        let known = seen.entry(files.hash()).or_insert_with(|| files.clone());
        assert_eq!(*known, files);
    }
    assert!(seen.len() > 500, "{} different ones", seen.len());
}

#[test]
fn what_is_kept_is_read_again_and_with_any_bit_changed_it_is_not() {
    let mut dice = Dice(Rng::with_seed(2));
    for _ in 0..500 {
        let files = dice.files();
        let change = files.change();
        let mut value = change.value.expect("a value");
        assert_eq!(Files::read(&change.key, &value), Ok(files));
        let at = dice.0.usize(..value.len());
        value[at] ^= 1 << dice.0.usize(..8);
        assert!(Files::read(&change.key, &value).is_err(), "{value:?}");
    }
}

#[test]
fn signatures_are_no_part_of_what_they_sign() {
    let signed = with(files(1), "signatures/alice.sig", "x");
    assert_eq!(signed.hash(), files(1).hash());
    assert_ne!(with(files(1), "allowed_signers", "").hash(), files(1).hash());
}

#[test]
fn all_errors_are_told_at_once_with_file_line_and_column() {
    let mut bad = Files::default();
    let policy = "version = 0\n[[budget]]\nname = \"b\"\nactions = [\"Payinvoice\"]\nfact = \"amount\"\nscope = [\"node\"]\n\
                  window = \"1h\"\nlimit = 1\nunless_approved = \"nobody\"\n[signing]\nrole = \"nobody\"\nof = 2\n";
    bad.add("policy.toml", policy.into()).expect("a part");
    bad.add("lists/exchange.toml", b"[[payee]]\nlabel = \"x\"\nnode_id = \"02\"\n".to_vec()).expect("a part");
    bad.add("allowed_signers", b"alice ssh-dss AAAA\n".to_vec()).expect("a part");
    bad.add(
        "a.test.toml",
        b"[[test]]\nname = \"t\"\naction = \"PayInvoice\"\nexpect = \"permit\"\nfacts = { amount_mast = 1 }\n".to_vec(),
    )
    .expect("a part");
    let found = errors(bad);
    for wanted in [
        "a.test.toml:5:11: 'amount_mast' is not a fact",
        "allowed_signers:1:7: 'ssh-dss' is not a key type that is taken",
        "lists/exchange.toml:3:11: '02' is not a node id",
        "policy.toml:1:11: the version is 0",
        "policy.toml:4:12: 'Payinvoice' is not an action",
        "policy.toml:5:8: 'amount' is not a fact",
        "policy.toml:11:8: there is no role 'nobody'",
    ] {
        assert!(found.iter().any(|error| error == wanted), "{wanted} not in {found:#?}");
    }
}

/// A group that is wrong is still the group that rules, budgets and `[signing]` mean.
#[test]
fn one_mistake_is_told_once() {
    let policy = "version = 1\n[roles]\nofficer = [\"alice\"]\n[approvals.office]\nrole = \"officer\"\nof = 0\n\
                  [signing]\nrole = \"officer\"\nof = 1\n";
    let rules = "@id(\"a\")\n@unless_approved(\"office\")\nforbid (principal, action, resource);\n";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINYi6R2n+BsaPLq+hFwPvl3gXkU4+y3VF0tF8cEgpafe";
    let mut wrong = Files::default();
    for (name, text) in [("policy.toml", policy), ("a.cedar", rules), ("allowed_signers", &format!("alice {key}\n"))] {
        wrong.add(name, text.into()).expect("a part");
    }
    assert_eq!(errors(wrong), ["policy.toml:6:6: a group that needs no approval"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_known_one_passes() {
    let manifest = |text: &str| {
        let mut files = Files::default();
        files.add("policy.toml", text.into()).expect("a part");
        with(files, "rules.cedar", std::str::from_utf8(RULES).expect("text"))
    };
    let found = errors(manifest("version = 1\n\nbudgets = []\n"));
    assert!(found[0].starts_with("policy.toml:3:1: unknown field `budgets`"), "{found:?}");
    assert_eq!(bundle(manifest("version = 1\n\nbudget = []\n")).version(), 1);
}

#[test]
fn a_limit_that_is_not_in_the_table_or_out_of_its_range_is_refused_with_its_place() {
    let limited = |limits: &str| with(Files::default(), "policy.toml", &format!("version = 1\n[limits]\n{limits}\n"));
    let good = bundle(limited("max_htlcs = 30\nmin_delay_blocks = 144\nmax_delay_blocks = 144"));
    assert_eq!(good.policy().limits.get(&crate::limits::Limit::MaxHtlcs), Some(&30));
    for (limits, error) in [
        ("max_htlc = 30", "policy.toml:3:1: there is no limit 'max_htlc'"),
        ("max_htlcs = 0", "policy.toml:3:13: max_htlcs = 0 is not from 1 to 966"),
        (
            "min_delay_blocks = 145\nmax_delay_blocks = 144",
            "policy.toml:3:1: min_delay_blocks is above max_delay_blocks: nothing passes",
        ),
    ] {
        assert_eq!(errors(limited(limits)), [error]);
    }
}

#[test]
fn a_group_that_nobody_defined_lifts_nothing_and_is_refused() {
    let rules =
        "@id(\"a\")\n@unless_approved(\"treasury\")\nforbid (principal, action == Action::\"Keysend\", resource);\n";
    let found = errors(with(files(1), "more.cedar", rules));
    assert!(found.len() == 1 && found[0].contains("there is no approval group 'treasury'"), "{found:?}");
}

#[test]
fn a_bundle_follows_only_with_a_higher_version_and_a_rollback_is_explicit() {
    let [one, two, three] = [1, 2, 3].map(|version| bundle(files(version)));
    let mut in_force = InForce::default();
    in_force.apply(&two, None, None, 10).expect("the first");
    let refused = in_force.apply(&one, Some(&two), None, 20);
    assert_eq!(refused, Err(ApplyError::NotNewer { version: 1, highest: 2 }));
    assert_eq!(in_force.apply(&two, Some(&two), None, 20), Err(ApplyError::InForce(2)));
    in_force.apply(&three, Some(&two), None, 30).expect("newer");
    assert_eq!(in_force.active.map(|active| active.version), Some(3));

    in_force.roll_back(Some(&three), &Files::default(), 40).expect("back to 2");
    assert_eq!(in_force.active, Some(Applied { hash: two.hash(), version: 2, from_ms: 40 }));
    assert_eq!(in_force.roll_back(Some(&two), &Files::default(), 50), Err(ApplyError::NoPrevious));
    let refused = in_force.apply(&three, Some(&two), None, 50);
    assert_eq!(refused, Err(ApplyError::NotNewer { version: 3, highest: 3 }));
}

#[test]
fn a_bundle_that_waits_comes_into_force_at_its_time_and_not_before() {
    let [one, two] = [1, 2].map(|version| bundle(files(version)));
    let mut in_force = InForce::default();
    in_force.apply(&one, None, None, 10).expect("the first");
    assert_eq!(in_force.apply(&two, Some(&one), Some(10), 10), Err(ApplyError::Past { from_ms: 10 }));
    in_force.apply(&two, Some(&one), Some(100), 10).expect("later");
    assert_eq!(in_force.activate_due(99), vec![]);
    assert_eq!(in_force.active.map(|active| active.version), Some(1));
    assert_eq!(in_force.activate_due(100).len(), 1);
    assert_eq!(in_force.active.map(|active| active.version), Some(2));
    assert_eq!(in_force.activate_due(101), vec![]);
}

#[test]
fn which_bundle_is_in_force_is_read_as_it_was_recorded() {
    let mut in_force = InForce::default();
    let changes = in_force.apply(&bundle(files(7)), None, None, 10).expect("the first");
    let [kept, history] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(Files::read(&kept.key, kept.value.as_deref().expect("a value")), Ok(files(7)));
    let value = history.value.as_deref().expect("a value");
    assert_eq!(InForce::read(value), Ok(in_force));
    let unknown = [&[9], &value[1..]].concat();
    assert_eq!(InForce::read(&unknown), Err(BundleUnreadable::Layout(InForce::KEY.into())));
}

#[test]
fn an_order_about_a_bundle_that_is_no_longer_in_force_changes_nothing() {
    let [one, two] = [1, 2].map(|version| bundle(files(version)));
    let mut in_force = InForce::default();
    in_force.apply(&one, None, None, 10).expect("the first");
    let before = in_force.clone();
    assert!(matches!(in_force.apply(&two, None, None, 20), Err(ApplyError::NotInForce { .. })));
    assert!(matches!(in_force.roll_back(Some(&two), &Files::default(), 20), Err(ApplyError::NotInForce { .. })));
    assert_eq!(in_force, before);
}

/// A key that is the same in every run.
fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn sign(seed: u8, namespace: &str, text: &str) -> String {
    let signature = key(seed).sign(namespace, HashAlg::Sha512, text.as_bytes()).expect("signed");
    signature.to_pem(LineEnding::LF).expect("text")
}

/// A bundle that two of alice (keys 1 and 2), bob (3) and carol (4) follow by their signatures; mallory (5) has no role.
fn signing(version: u64) -> Bundle {
    let asks = "[roles]\nsecurity = [\"alice\", \"bob\", \"carol\"]\n[signing]\nrole = \"security\"\nof = 2\n";
    let mut files = Files::default();
    files.add("policy.toml", format!("version = {version}\n{asks}").into_bytes()).expect("a part");
    let people = [("alice", 1), ("alice", 2), ("bob", 3), ("carol", 4), ("mallory", 5)];
    let lines =
        people.map(|(person, seed)| format!("{person} {}\n", key(seed).public_key().to_openssh().expect("text")));
    let files = with(files, "allowed_signers", &lines.concat());
    bundle(with(files, "rules.cedar", std::str::from_utf8(RULES).expect("text")))
}

/// `files` with signatures over `text`.
fn signed(mut files: Files, seeds: &[u8], namespace: &str, text: &str) -> Files {
    for seed in seeds {
        files = with(files, &format!("signatures/k{seed}.sig"), &sign(*seed, namespace, text));
    }
    files
}

#[test]
fn a_bundle_follows_one_that_asks_for_signatures_by_so_many_people_and_no_fewer() {
    let first = signing(1);
    let text = text_to_sign(2, files(2).hash());
    let follow = |seeds: &[u8], namespace, text: &str| {
        let mut in_force = InForce::default();
        in_force.apply(&first, None, None, 10).expect("nothing was in force");
        let second = bundle(signed(files(2), seeds, namespace, text));
        let followed = in_force.apply(&second, Some(&first), None, 20).map(drop);
        assert_eq!(in_force.highest_version, if followed.is_ok() { 2 } else { 1 });
        followed
    };
    let too_few = |people: &[&str]| {
        let signed = people.iter().map(|person| (*person).to_owned()).collect();
        Err(ApplyError::Unsigned(SigningError::TooFew { role: "security".into(), of: 2, signed }))
    };
    assert_eq!(follow(&[1, 3], NAMESPACE, &text), Ok(()));
    assert_eq!(follow(&[], NAMESPACE, &text), too_few(&[]));
    assert_eq!(follow(&[1, 2], NAMESPACE, &text), too_few(&["alice"]), "two keys of one person are one person");
    let no_role =
        SigningError::NotOfRole { file: "signatures/k5.sig".into(), person: "mallory".into(), role: "security".into() };
    assert_eq!(follow(&[1, 3, 5], NAMESPACE, &text), Err(ApplyError::Unsigned(no_role)));
    for (seeds, namespace, text) in [
        (&[1, 3], "claviger-grant", &text),
        (&[1, 3], NAMESPACE, &text_to_sign(3, files(2).hash())),
        (&[1, 9], NAMESPACE, &text),
    ] {
        let refused = follow(seeds, namespace, text);
        assert!(matches!(refused, Err(ApplyError::Unsigned(SigningError::Signature { .. }))), "{refused:?}");
    }
}

#[test]
fn a_rollback_needs_signatures_of_its_own_where_the_bundle_in_force_asks_for_them() {
    let (old, strict) = (bundle(files(1)), signing(2));
    let mut in_force = InForce::default();
    in_force.apply(&old, None, None, 10).expect("the first");
    in_force.apply(&strict, Some(&old), None, 20).expect("nothing asks for signatures yet");
    let back = text_to_roll_back(strict.hash(), old.hash());
    let forward = text_to_sign(1, old.hash());
    let wrong = signed(Files::default(), &[1, 3], NAMESPACE, &forward);
    assert!(matches!(in_force.roll_back(Some(&strict), &wrong, 30), Err(ApplyError::Unsigned(_))));
    assert!(matches!(in_force.roll_back(Some(&strict), &Files::default(), 30), Err(ApplyError::Unsigned(_))));
    in_force.roll_back(Some(&strict), &signed(Files::default(), &[3, 4], NAMESPACE, &back), 30).expect("signed");
    assert_eq!(in_force.active.map(|active| active.version), Some(1));
}

/// A policy whose successor lists nothing anew within `wait_h` hours, and lists these addresses from these times on.
fn listing(version: u64, wait_h: Option<u64>, listed: &[(&str, &str)]) -> Bundle {
    let wait = wait_h.map_or_else(String::new, |wait_h| format!("[lists]\nwait_h = {wait_h}\n"));
    let mut files = Files::default();
    files.add("policy.toml", format!("version = {version}\n{wait}").into_bytes()).expect("a part");
    let entry = |(address, from): &(&str, &str)| {
        let from = if from.is_empty() { String::new() } else { format!("effective_from = {from}\n") };
        format!("[[destination]]\nlabel = \"{}\"\naddress = \"{address}\"\n{from}", &address[..12])
    };
    let list: String = listed.iter().map(entry).collect();
    bundle(with(with(files, "rules.cedar", std::str::from_utf8(RULES).expect("text")), "lists/exchange.toml", &list))
}

const ONE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const OTHER: &str = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry";
const HOUR_MS: u64 = 3_600_000;

#[test]
fn hostile_what_is_listed_anew_counts_no_earlier_than_the_bundle_in_force_lets_it() {
    let active = listing(1, Some(24), &[(ONE, "")]);
    let apply =
        |candidate: &Bundle, from_ms| InForce::of(&active).apply(candidate, Some(&active), from_ms, 0).map(drop);
    let at_once = listing(2, Some(24), &[(ONE, ""), (OTHER, "")]);
    let (list, label) = ("exchange".to_owned(), OTHER[..12].to_owned());
    let earliest_ms = 24 * HOUR_MS;
    let soon = |from_ms| Err(ApplyError::TooSoon { list: list.clone(), label: label.clone(), from_ms, earliest_ms });
    assert_eq!(apply(&at_once, None), soon(0));
    let early = listing(2, Some(24), &[(ONE, ""), (OTHER, "1970-01-01T23:59:59Z")]);
    assert_eq!(apply(&early, None), soon(24 * HOUR_MS - 1_000));
    let late = listing(2, Some(24), &[(ONE, ""), (OTHER, "1970-01-02T00:00:00Z")]);
    assert_eq!(apply(&late, None), Ok(()));
    assert_eq!(apply(&at_once, Some(24 * HOUR_MS)), Ok(()), "the whole bundle waits");
    assert_eq!(apply(&listing(2, Some(24), &[]), None), Ok(()), "what is taken away is gone at once");
    // Neither dropping the lock first nor going back gets round it.
    for shorter in [None, Some(23)] {
        let shorter = listing(2, shorter, &[(ONE, "")]);
        assert_eq!(apply(&shorter, None), Err(ApplyError::ShorterWait { earliest_ms }));
        assert_eq!(apply(&shorter, Some(24 * HOUR_MS)), Ok(()));
    }
    let mut in_force = InForce::of(&listing(1, None, &[(OTHER, "")]));
    let before = listing(1, None, &[(OTHER, "")]);
    let locked = listing(2, Some(24), &[(ONE, "")]);
    in_force.apply(&locked, Some(&before), None, 0).expect("nothing is locked yet");
    let back = in_force.roll_back(Some(&locked), &Files::default(), 1);
    assert_eq!(back.map(drop), Err(ApplyError::RollbackWaits));
}

#[test]
fn a_lock_is_of_one_hour_to_thirty_days() {
    for (hours, good) in [(0, false), (1, true), (720, true), (721, false)] {
        let files = with(Files::default(), "policy.toml", &format!("version = 1\n[lists]\nwait_h = {hours}\n"));
        let files = with(files, "rules.cedar", std::str::from_utf8(RULES).expect("text"));
        assert_eq!(Bundle::parse(files, Network::Regtest).is_ok(), good, "{hours}");
    }
}

#[test]
fn ten_thousand_rules_are_refused_by_name() {
    let rules = |count: usize| -> String {
        let rule = |index| format!("@id(\"r{index}\")\nforbid (principal, action == Action::\"Keysend\", resource);\n");
        (0..count).map(rule).collect()
    };
    let found = errors(with(files(1), "many.cedar", &rules(10_000)));
    assert_eq!(found, ["many.cedar:1:1: there are more than 2000 rules"]);
    assert_eq!(bundle(with(files(1), "few.cedar", &rules(20))).policy().rules.iter().count(), 21);
}

#[test]
fn a_preset_alone_is_a_policy_and_its_numbers_are_checked_at_their_place() {
    let manifest = |text: &str| {
        let mut files = Files::default();
        files.add("policy.toml", text.into()).expect("a part");
        files
    };
    let good = bundle(manifest("version = 1\npreset = \"routing-node\"\n"));
    assert_eq!(good.preset(), Some("routing-node"));
    assert!(good.policy().rules.iter().count() > 0 && !good.policy().budgets.is_empty());
    let typo = errors(manifest("version = 1\npreset = \"routing-node\"\n[numbers]\nmax_paiment_msat = 1\n"));
    assert_eq!(typo, ["policy.toml:4:1: the preset 'routing-node' has no number 'max_paiment_msat'"]);
    assert_eq!(
        errors(manifest("version = 1\npreset = \"router\"\n")),
        ["policy.toml:2:10: there is no preset 'router'"]
    );
    let stray = errors(manifest("version = 1\n[numbers]\nmax_payment_msat = 1\n"));
    assert_eq!(stray, ["policy.toml:3:1: 'max_payment_msat' is a number of no preset"]);
    let taken = &good.policy().budgets[0];
    let entry = format!(
        "[[budget]]\nname = \"{}\"\nactions = [\"PayInvoice\"]\nfact = \"count\"\nscope = [\"node\"]\nwindow = \"1h\"\nlimit = 1\n",
        taken.name
    );
    let twice = errors(manifest(&format!("version = 1\npreset = \"routing-node\"\n{entry}")));
    assert_eq!(twice, [format!("policy.toml:3:1: the preset has a budget '{}' already", taken.name)]);
}

#[test]
fn what_an_appliance_begins_with_gives_way_to_the_first_bundle_and_does_not_come_back_by_itself() {
    let [starter, other] = [1, 2].map(|version| bundle(files(version)));
    let mut in_force = InForce::default();
    assert_eq!(in_force.begin(None, 1).len(), 0);
    assert_eq!(in_force.begin(Some(&starter), 1).len(), 2, "the files, and that they are in force");
    assert_eq!(in_force.begin(Some(&starter), 2).len(), 0);
    assert_eq!(in_force.begin(Some(&other), 3).len(), 2, "another one was chosen");
    assert_eq!(in_force.begin(None, 4).len(), 1);
    assert_eq!(in_force.active, None);
    in_force.begin(Some(&other), 5);
    in_force.apply(&starter, Some(&other), None, 6).expect("version 1");
    assert!(in_force.begin(Some(&other), 7).is_empty() && !in_force.is_beginning());
    assert_eq!(in_force.active.map(|active| active.hash), Some(starter.hash()));
}
