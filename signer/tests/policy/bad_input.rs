//! Each thing that may be wrong with a bundle is refused, with its line and column and the next step; and beside it
//! stands the bundle that differs in nothing else and passes.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{copy, edit, policy, text};

/// What is refused: file, what is replaced, by what; then what is said, and what to do.
const REFUSED: &[[&str; 5]] = &[
    // Facts and units.
    ["rules.cedar", "context.hour_utc >= 22", "context.hour_utk >= 22", "rules.cedar:", "hour_utc"],
    ["policy.toml", "fact = \"amount_msat\"", "fact = \"amount_mast\"", "policy.toml:10:8: 'amount_mast'", "facts.md"],
    ["policy.toml", "fact = \"amount_msat\"", "fact = \"cltv_delta_blocks\"", "policy.toml:10:8: ", "msat"],
    ["treasury.test.toml", "fee_msat = 1_000", "fee_sat = 1", "'fee_sat' is not a fact", "Did you mean fee_msat?"],
    ["treasury.test.toml", "fee_msat = 1_000", "fee_msat = \"1 sat\"", "fee_msat is a number", "unit"],
    ["policy.toml", "\"PayInvoice\"", "\"PayInvoices\"", "'PayInvoices' is not an action", "PayInvoice"],
    ["policy.toml", "window = \"1h\"", "window = \"1 hour\"", "policy.toml:12:10: ", "24h"],
    ["policy.toml", "window = \"1h\"", "window = \"5s\"", "policy.toml:12:10: ", "15m"],
    ["policy.toml", "scope = [\"node\"]", "scope = [\"nodes\"]", "policy.toml:11:", "node"],
    // Keys.
    ["policy.toml", "version = 1", "version = 1\nmode = \"permissive\"", "unknown field `mode`", ""],
    ["policy.toml", "limit = 2_000_000_000", "limit = 2_000_000_000\nburst = 2", "unknown field `burst`", ""],
    ["policy.toml", "version = 1", "version = 0", "the version is 0", "1"],
    ["policy.toml", "limit = 2_000_000_000", "limit = -1", "policy.toml:13:9: ", ""],
    ["policy.toml", "limit = 2_000_000_000", "limit = 99999999999999999999", "policy.toml:", ""],
    // People.
    [
        "policy.toml",
        "role = \"treasurer\"\nof = 2",
        "role = \"treasurer\"\nof = 0",
        "policy.toml:31:6: ",
        "of = 1 or more",
    ],
    ["policy.toml", "role = \"treasurer\"\nof = 2", "role = \"treasurer\"\nof = 4", "policy.toml:31:6: ", ""],
    ["policy.toml", "\"carol@example.org\"", "\"alice@example.org\"", "policy.toml:26:", ""],
    [
        "policy.toml",
        "unless_approved = \"treasury\"",
        "unless_approved = \"tresury\"",
        "'tresury'",
        "approvals.tresury",
    ],
    [
        "allowed_signers",
        "carol@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICV/+gx2iC2cjEPkDM4t12uiyQY0M+e4Bcu/sJaFk36r",
        "carol@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINYi6R2n+BsaPLq+hFwPvl3gXkU4+y3VF0tF8cEgpafe",
        "allowed_signers:4:",
        "",
    ],
    [
        "allowed_signers",
        "alice@example.org ssh-ed25519",
        "alice@example.org cert-authority ssh-ed25519",
        "allowed_signers:2:19: ",
        "",
    ],
    // Rules.
    ["rules.cedar", "@id(\"spend\")\n", "", "rules.cedar:3:1: ", "@id"],
    ["rules.cedar", "@id(\"settle\")", "@id(\"spend\")", "spend", ""],
    ["rules.cedar", "context.hour_utc >= 22", "context.hour_utc >= \"22\"", "rules.cedar:", ""],
    ["rules.cedar", "@unless_approved(\"treasury\")", "@unless_aproved(\"treasury\")", "unless_aproved", ""],
    ["rules.cedar", "Action::\"Withdraw\"", "Action::\"Withdrawal\"", "Withdrawal", ""],
    // Lists.
    ["lists/exchange.toml", "bcrt1qu8e74", "bcrt1qu8e75", "lists/exchange.toml:5:", "Compare the address"],
    ["lists/exchange.toml", "label = \"exchange, cold\"", "lable = \"exchange, cold\"", "lable", ""],
];

#[test]
fn each_mistake_is_refused_with_its_place_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    for (index, [file, from, to, said, hinted]) in REFUSED.iter().enumerate() {
        let bundle = copy(dir.path(), &index.to_string());
        edit(&bundle.join(file), from, to);
        let (code, stdout, stderr) = policy(&["check", "--network", "regtest", text(&bundle)]);
        assert_eq!(code, Some(1), "{to}: {stdout}");
        assert!(stderr.contains("\n  hint: Each says what to do."), "{to}: {stderr}");
        let errors: Vec<_> = stdout.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.iter().any(|line| line.contains(said)), "{to}: no '{said}' in\n{stdout}");
        assert!(stdout.contains(hinted) && stdout.contains("\n  hint: "), "{to}: no '{hinted}' in\n{stdout}");
        // A place: file:line:column.
        let placed = |line: &&str| {
            let mut parts = line.trim_start_matches("error: ").splitn(4, ':').skip(1);
            let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
            number(parts.next()) && number(parts.next())
        };
        assert!(errors.iter().all(placed), "{to}: {stdout}");
        let (_, stdout, _) = policy(&["--json", "check", "--network", "regtest", text(&bundle)]);
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert!(report["errors"][0]["place"]["line"].is_u64() && report["errors"][0]["hint"].is_string(), "{report}");
        // Nothing else goes on with it.
        let (code, _, stderr) = policy(&["test", "--network", "regtest", text(&bundle)]);
        assert!(code == Some(1) && stderr.contains("hint"), "{to}: {stderr}");
    }
}

#[test]
fn lists_of_another_network_are_refused_and_the_option_that_says_which_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = copy(dir.path(), "policy");
    let (code, stdout, _) = policy(&["check", text(&bundle)]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("not of the network bitcoin\n  hint: ") && stdout.contains("--network"), "{stdout}");
}

#[test]
fn a_file_out_of_place_is_refused_and_a_readme_or_a_hidden_one_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = copy(dir.path(), "policy");
    let check = || policy(&["check", "--network", "regtest", text(&bundle)]);
    fs::create_dir(bundle.join(".git")).unwrap();
    fs::write(bundle.join(".git/x.cedar"), "?").unwrap();
    fs::write(bundle.join("README.md"), "?").unwrap();
    assert_eq!(check().0, Some(0));
    fs::create_dir(bundle.join("rules")).unwrap();
    fs::write(bundle.join("rules/night.cedar"), "").unwrap();
    let (code, stdout, _) = check();
    assert_eq!(code, Some(1));
    assert!(stdout.contains("error: rules/night.cedar: 'rules/night.cedar' is not where a bundle has"), "{stdout}");
}

/// The file is sparse and larger than any machine's memory: a reader of all of it would not come back.
#[test]
fn a_list_of_a_gigabyte_is_refused_unread_and_so_is_what_never_ends() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [1 << 30, 1 << 42] {
        let bundle = copy(dir.path(), &bytes.to_string());
        let list = OpenOptions::new().write(true).open(bundle.join("lists/exchange.toml")).unwrap();
        list.set_len(bytes).unwrap();
        let (code, stdout, _) = policy(&["check", "--network", "regtest", text(&bundle)]);
        assert_eq!(code, Some(1));
        assert!(stdout.contains("'lists/exchange.toml' has more than 1048576 bytes\n  hint: Split"), "{stdout}");
    }
    let bundle = copy(dir.path(), "endless");
    symlink("/dev/zero", bundle.join("lists/zero.toml")).unwrap();
    assert!(Command::new("mkfifo").arg(bundle.join("lists/pipe.toml")).status().unwrap().success());
    let (code, stdout, _) = policy(&["check", "--network", "regtest", text(&bundle)]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout.matches("not a regular file").count(), 2, "{stdout}");
}

#[test]
fn ten_thousand_rules_are_refused_by_name_and_many_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = copy(dir.path(), "rules");
    let rule = |index| format!("@id(\"r{index}\")\nforbid (principal, action == Action::\"Gossip\", resource);\n");
    fs::write(bundle.join("many.cedar"), (0..10_000).map(rule).collect::<String>()).unwrap();
    let (code, stdout, _) = policy(&["check", "--network", "regtest", text(&bundle)]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("error: many.cedar:1:1: "), "{stdout}");
    fs::write(bundle.join("many.cedar"), (0..100).map(rule).collect::<String>()).unwrap();
    assert_eq!(policy(&["check", "--network", "regtest", text(&bundle)]).0, Some(0));

    let bundle = copy(dir.path(), "files");
    for index in 0..300 {
        fs::write(bundle.join(format!("x{index}.cedar")), "").unwrap();
    }
    let (code, stdout, _) = policy(&["check", "--network", "regtest", text(&bundle)]);
    assert!(code == Some(1) && stdout.contains("more than 256 files"), "{stdout}");
    for index in 0..5_000 {
        fs::write(bundle.join(format!("x{index}")), "").unwrap();
    }
    let (code, stdout, _) = policy(&["check", "--network", "regtest", text(&bundle)]);
    assert!(code == Some(1) && stdout.contains("more than 4096 files"), "{stdout}");
}

/// An amount that would not fit is a number that is refused where it is written, and sums of facts always fit: a
/// `forbid` cannot be passed over because its arithmetic failed.
#[test]
fn a_forbid_with_an_overflow_is_refused_or_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = copy(dir.path(), "policy");
    let rules = fs::read_to_string(bundle.join("rules.cedar")).unwrap();
    let huge = "@id(\"huge\")\nforbid (principal, action == Action::\"Withdraw\", resource)\n\
                when { context.amount_msat * 9000000000000000000 > 1 };\n";
    fs::write(bundle.join("rules.cedar"), format!("{rules}{huge}")).unwrap();
    let (code, stdout, _) = policy(&["test", "--network", "regtest", text(&bundle)]);
    assert_eq!(code, Some(1), "what may overflow permits nothing");
    assert!(stdout.contains("fault"), "{stdout}");
}
