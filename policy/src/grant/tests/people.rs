//! Who may approve: the `allowed_signers` file, roles and groups.

use super::*;
use crate::place::Place;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

fn faults(list: &str) -> Vec<SignerFault> {
    let errors = Approvers::parse(list).err().unwrap_or_default();
    errors.into_iter().map(|error| error.fault).collect()
}

#[test]
fn a_line_is_one_key_of_one_person() {
    for honest in [
        format!("alice {ED25519}\n"),
        format!("# people\n\n  alice@example.com\tnamespaces=\"claviger-grant\" {ED25519} \"laptop, or so\n"),
        format!("alice valid-after=\"20260101Z\",namespaces=\"a,b\" {ED25519}"),
        String::new(),
    ] {
        assert_eq!(faults(&honest), [], "{honest}");
    }
    for (wrong, fault) in [
        (format!("alice,bob {ED25519}"), SignerFault::Name("alice,bob".into())),
        (format!("*@example.com {ED25519}"), SignerFault::Name("*@example.com".into())),
        (format!("!alice {ED25519}"), SignerFault::Name("!alice".into())),
        (format!("Alice {ED25519}"), SignerFault::Name("Alice".into())),
        (format!("аlice {ED25519}"), SignerFault::Name("аlice".into())),
        (format!("\"alice\" {ED25519}"), SignerFault::Name("\\\"alice\\\"".into())),
        (format!("alice cert-authority {ED25519}"), SignerFault::Option("cert-authority".into())),
        (format!("alice CERT-AUTHORITY,namespaces=\"a\" {ED25519}"), SignerFault::Option("CERT-AUTHORITY".into())),
        (format!("alice verify-required=\"yes\" {ED25519}"), SignerFault::Option("verify-required=\\\"yes\\\"".into())),
        (format!("alice namespaces=a {ED25519}"), SignerFault::Option("namespaces=a".into())),
        (format!("alice namespaces=\"claviger-*\" {ED25519}"), SignerFault::Namespace("claviger-*".into())),
        (format!("alice namespaces=\"\" {ED25519}"), SignerFault::Namespace(String::new())),
        (format!("alice namespaces=\"a\",namespaces=\"b\" {ED25519}"), SignerFault::OptionTwice("namespaces")),
        (format!("alice valid-before=\"20261123\" {ED25519}"), SignerFault::Time("20261123".into())),
        (format!("alice valid-before=\"20261323Z\" {ED25519}"), SignerFault::Time("20261323Z".into())),
        (format!("alice valid-after=\"20270101Z\",valid-before=\"20260101Z\" {ED25519}"), SignerFault::NeverValid),
        (format!("alice namespaces=\"a {ED25519}"), SignerFault::Quote),
        ("alice".into(), SignerFault::Key),
        ("alice ssh-ed25519".into(), SignerFault::Key),
        ("alice ssh-ed25519 AAAA".into(), SignerFault::Key),
        (format!("alice {}", ED25519.replace("ssh-ed25519", "ecdsa-sha2-nistp256")), SignerFault::Key),
        (format!("alice {}", ED25519.replace("ssh-ed25519", "ssh-dss")), SignerFault::KeyType("ssh-dss".into())),
    ] {
        assert_eq!(faults(&wrong), [fault], "{wrong}");
    }
}

#[test]
fn an_error_says_its_line_and_column() {
    let list = format!("# people\nalice {ED25519}\n bob  valid-after=\"20260101Z\",flags=\"x\" {ED25519}\n");
    let errors = Approvers::parse(&list).expect_err("refused");
    assert_eq!(errors[0].place, Place { line: 3, column: 31 });
    assert!(!errors[0].fault.hint().is_empty());
}

#[test]
fn one_key_is_one_persons() {
    let twice = format!("alice {ED25519}\nbob {ED25519} the same\n");
    assert_eq!(faults(&twice), [SignerFault::KeyTwice("alice".into())]);
}

#[test]
fn a_list_is_bounded() {
    let long = "#".repeat(MAX_FILE + 1);
    assert_eq!(faults(&long), [SignerFault::FileTooLong(long.len())]);
    assert_eq!(faults(&long[1..]), []);
}

fn group_faults(policy: &str) -> Vec<GroupFault> {
    let list = format!("alice {ED25519}\n");
    approvals_of(policy, &list).err().unwrap_or_default()
}

const ONE: &str = "[roles]\ntreasurer = [\"alice\"]\n[approvals.treasury]\nrole = \"treasurer\"\nof = 1\n";

#[test]
fn a_group_needs_at_least_one_approval_and_no_more_than_there_are_people() {
    assert_eq!(group_faults(ONE), []);
    assert_eq!(group_faults(&ONE.replace("of = 1", "of = 0")), [GroupFault::NeedsNone]);
    let too_few = GroupFault::TooFew { of: 2, role: "treasurer".into(), people: 1 };
    assert_eq!(group_faults(&ONE.replace("of = 1", "of = 2")), [too_few]);
    let nobody = GroupFault::TooFew { of: 1, role: "treasurer".into(), people: 0 };
    assert_eq!(group_faults(&ONE.replace("\"alice\"", "")), [nobody]);
}

#[test]
fn one_person_listed_twice_is_refused() {
    let twice = ONE.replace("\"alice\"", "\"alice\", \"alice\"").replace("of = 1", "of = 2");
    let too_few = GroupFault::TooFew { of: 2, role: "treasurer".into(), people: 1 };
    assert_eq!(group_faults(&twice), [GroupFault::Twice("alice".into()), too_few]);
}

#[test]
fn names_of_people_roles_and_groups_are_plain_and_known() {
    assert_eq!(
        group_faults(&ONE.replace("role = \"treasurer\"", "role = \"Treasurer\"")),
        [GroupFault::NoRole("Treasurer".into())]
    );
    assert_eq!(
        group_faults(&ONE.replace("approvals.treasury", "approvals.\"tre asury\"")),
        [GroupFault::Name("tre asury".into())]
    );
    let stranger = GroupFault::NoKey { person: "аlice".into(), namespace: "claviger-grant" };
    let cyrillic = ONE.replace("\"alice\"", "\"аlice\"");
    assert_eq!(group_faults(&cyrillic), [GroupFault::Name("аlice".into()), stranger]);
}

#[test]
fn people_of_a_group_have_a_key_that_may_sign_for_it() {
    let glass = format!("{ONE}break_glass = true\n");
    let list = format!("alice namespaces=\"claviger-grant\" {ED25519}\n");
    assert_eq!(approvals_of(ONE, &list).err(), None);
    let no_key = GroupFault::NoKey { person: "alice".into(), namespace: "claviger-break-glass" };
    assert_eq!(approvals_of(&glass, &list).err(), Some(vec![no_key]));
}

#[test]
fn a_misspelt_key_of_a_group_is_refused() {
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct File {
        approvals: Groups,
    }
    let read = |text: &str| toml::from_str::<File>(text).map(|_| ());
    assert!(read("[approvals.treasury]\nrole = \"t\"\nof = 1\n").is_ok());
    for wrong in ["role = \"t\"\nof = 1\noff = 2", "role = \"t\"", "role = \"t\"\nof = -1", "role = \"t\"\nof = \"1\""]
    {
        assert!(read(&format!("[approvals.treasury]\n{wrong}\n")).is_err(), "{wrong}");
    }
    assert!(read("[approvals.t]\nrole = \"t\"\nof = 1\n[approvals.t]\nrole = \"u\"\nof = 1\n").is_err());
}

#[test]
fn an_error_of_a_group_says_its_line_and_column() {
    let policy = ONE.replace("of = 1", "of = 0");
    let approvers = Approvers::parse(&format!("alice {ED25519}\n")).expect("good");
    #[derive(serde::Deserialize)]
    struct File {
        roles: Roles,
        approvals: Groups,
    }
    let file: File = toml::from_str(&policy).expect("TOML");
    let errors = Approvals::define(&policy, &file.roles, &file.approvals, approvers).expect_err("refused");
    assert_eq!(errors[0].place, Place { line: 5, column: 6 });
}
