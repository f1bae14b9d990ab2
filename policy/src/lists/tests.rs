//! What a list may say, what is found in it, and what is said about one that may not be.

use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Address, Network, ScriptBuf};

use super::*;
use crate::place::Place;

/// Of the words "abandon … about" (BIP 39); the addresses below are those of BIPs 44, 49, 84 and 86 for it.
const SEED: &str = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc19a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";
const FIRST: &str = "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu";
const SECOND: &str = "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g";
const CHANGE: &str = "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el";
const NODE_ID: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const DECEMBER_MS: u64 = 1_796_115_600_000;

fn account(path: &str, network: Network) -> (Xpriv, Xpub) {
    let (secp, seed) = (Secp256k1::new(), hex::decode(SEED).expect("hex"));
    let path: DerivationPath = path.parse().expect("a path");
    let private =
        Xpriv::new_master(network, &seed).and_then(|master| master.derive_priv(&secp, &path)).expect("derives");
    (private, Xpub::from_priv(&secp, &private))
}

fn script(address: &str) -> ScriptBuf {
    address.parse::<Address<_>>().expect("an address").assume_checked().script_pubkey()
}

fn parse(text: &str) -> Result<List, Vec<ListError>> {
    List::parse("exchange", text, Network::Bitcoin)
}

fn lists(text: &str) -> Lists {
    Lists::new(vec![parse(text).expect("a list")]).expect("one list")
}

fn labels<'a>(found: impl Iterator<Item = Listed<'a>>) -> Vec<&'a str> {
    found.map(|listed| listed.label).collect()
}

fn destination(keys: &str) -> String {
    format!("[[destination]]\nlabel = \"x\"\n{keys}\n")
}

#[test]
fn what_is_listed_is_found_under_its_list_and_label_and_what_is_not_is_unknown() {
    let nodes = format!(
        "[[payee]]\nlabel = \"shop\"\nnode_id = \"{NODE_ID}\"\n[[peer]]\nlabel = \"hub\"\nnode_id = \"{NODE_ID}\"\n"
    );
    let lists = lists(&(destination(&format!("address = \"{FIRST}\"")) + &nodes));
    let found: Vec<_> = lists.destination(&script(FIRST), 0).collect();
    assert_eq!(found, [Listed { list: "exchange", label: "x" }]);
    assert_eq!(lists.destination(&script(SECOND), 0).count(), 0);
    assert_eq!((labels(lists.payee(NODE_ID, 0)), labels(lists.peer(NODE_ID, 0))), (vec!["shop"], vec!["hub"]));
    assert_eq!(lists.payee(&NODE_ID.replace('9', "8"), 0).count(), 0);
    assert_eq!(
        lists.entries().map(|entry| entry.kind).collect::<Vec<_>>(),
        [Kind::Destination, Kind::Payee, Kind::Peer]
    );
}

#[test]
fn an_address_is_found_however_it_is_written() {
    let lists = lists(&destination(&format!("address = \"{}\"", FIRST.to_uppercase())));
    assert_eq!(labels(lists.destination(&script(FIRST), 0)), ["x"]);
}

#[test]
fn an_extended_key_stands_for_its_first_addresses_of_both_branches_and_no_more() {
    for (path, kind, first) in [
        ("m/84h/0h/0h", "script = \"wpkh\"", FIRST),
        ("m/84h/0h/0h", "", FIRST),
        ("m/86h/0h/0h", "script = \"tr\"", "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"),
        ("m/49h/0h/0h", "script = \"sh-wpkh\"", "37VucYSaXLCAsxYyAPfbSi9eh4iEcbShgf"),
        ("m/44h/0h/0h", "script = \"pkh\"", "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA"),
    ] {
        let xpub = account(path, Network::Bitcoin).1;
        let lists = lists(&destination(&format!("xpub = \"{xpub}\"\naddresses = 1\n{kind}")));
        assert_eq!(labels(lists.destination(&script(first), 0)), ["x"], "{path}");
    }
    let xpub = account("m/84h/0h/0h", Network::Bitcoin).1;
    let one = lists(&destination(&format!("xpub = \"{xpub}\"\naddresses = 1")));
    assert_eq!(labels(one.destination(&script(CHANGE), 0)), ["x"]);
    assert_eq!(one.destination(&script(SECOND), 0).count(), 0, "the second is beyond");
    let two = lists(&destination(&format!("xpub = \"{xpub}\"\naddresses = 2")));
    assert_eq!(labels(two.destination(&script(SECOND), 0)), ["x"]);
}

#[test]
fn a_descriptor_stands_for_what_it_derives() {
    let xpub = account("m/84h/0h/0h", Network::Bitcoin).1;
    let ranged = lists(&destination(&format!("descriptor = \"wpkh([73c5da0a/84h/0h/0h]{xpub}/0/*)\"\naddresses = 2")));
    assert_eq!(labels(ranged.destination(&script(SECOND), 0)), ["x"]);
    assert_eq!(ranged.destination(&script(CHANGE), 0).count(), 0, "another branch");
    let fixed = lists(&destination(&format!("descriptor = \"wpkh({xpub}/1/0)\"")));
    assert_eq!(labels(fixed.destination(&script(CHANGE), 0)), ["x"]);
    let multi =
        lists(&destination(&format!("descriptor = \"wsh(sortedmulti(1,{xpub}/0/*,{NODE_ID}))\"\naddresses = 3")));
    assert_eq!(multi.scripts.len(), 3);
}

#[test]
fn a_time_locked_entry_counts_from_its_time_on() {
    let lists = lists(&destination(&format!("address = \"{FIRST}\"\neffective_from = 2026-12-01T09:00:00Z")));
    assert_eq!(lists.destination(&script(FIRST), DECEMBER_MS - 1).count(), 0);
    assert_eq!(labels(lists.destination(&script(FIRST), DECEMBER_MS)), ["x"]);
}

#[test]
fn a_change_adds_what_is_new_or_begins_earlier_and_nothing_that_stays_or_begins_later() {
    let at = |address: &str, from: &str| destination(&format!("address = \"{address}\"\neffective_from = {from}"));
    let (early, late) = ("2026-12-01T09:00:00Z", "2026-12-01T09:00:01Z");
    let before = lists(&at(FIRST, early));
    let added = |text: &str| lists(text).additions(&before).map(|entry| entry.subject.clone()).collect::<Vec<_>>();
    assert_eq!(added(&at(FIRST, early)), [] as [&str; 0]);
    assert_eq!(added(&at(FIRST, late)), [] as [&str; 0]);
    assert_eq!(added(&at(FIRST, "2026-12-01T08:59:59Z")), [FIRST]);
    assert_eq!(added(&(at(FIRST, early) + &destination(&format!("address = \"{SECOND}\"")))), [SECOND]);
    let xpub = account("m/84h/0h/0h", Network::Bitcoin).1;
    let key = |addresses| lists(&destination(&format!("xpub = \"{xpub}\"\naddresses = {addresses}")));
    assert_eq!(key(3).additions(&key(2)).count(), 1, "more addresses of a key are an addition");
    assert_eq!(key(2).additions(&key(2)).count(), 0);
}

#[test]
fn each_mistake_is_named_with_its_line_and_column() {
    let (private, xpub) = account("m/84h/0h/0h", Network::Bitcoin);
    let tpub = account("m/84h/1h/0h", Network::Testnet).1;
    let long = "y".repeat(65);
    let wrong_network = || ListFault::Network(Network::Bitcoin);
    for (keys, line, column, fault) in [
        ("".to_owned(), 1, 1, ListFault::NotOne),
        (format!("address = \"{FIRST}\"\nxpub = \"{xpub}\""), 1, 1, ListFault::NotOne),
        (format!("address = \"{FIRST}x\""), 3, 11, ListFault::Address(format!("{FIRST}x"))),
        ("address = \"tb1q6rz28mcfaxtmd6v789l9rrlrusdprr9pqcpvkl\"".to_owned(), 3, 11, wrong_network()),
        (format!("xpub = \"{tpub}\""), 3, 8, wrong_network()),
        (format!("descriptor = \"wpkh({tpub}/0/*)\""), 3, 14, wrong_network()),
        ("xpub = \"xpub\"".to_owned(), 3, 8, ListFault::Xpub),
        (format!("xpub = \"{private}\""), 3, 8, ListFault::PrivateKey),
        (format!("descriptor = \"wpkh({private}/0/*)\""), 3, 14, ListFault::PrivateKey),
        (format!("descriptor = \"wpkh({xpub}/0h/*)\""), 3, 14, ListFault::Hardened),
        (format!("descriptor = \"wpkh({xpub}/0/*h)\""), 3, 14, ListFault::Hardened),
        (format!("descriptor = \"wpkh({xpub}/0/*)#aaaaaaaa\""), 3, 14, ListFault::Descriptor),
        ("descriptor = \"\"".to_owned(), 3, 14, ListFault::Descriptor),
        (format!("descriptor = \"{}\"", "(".repeat(8_000)), 3, 14, ListFault::Descriptor),
        (format!("descriptor = \"{}\"", "wsh(".repeat(2_000)), 3, 14, ListFault::Descriptor),
        (format!("xpub = \"{xpub}\"\nscript = \"wsh\""), 4, 10, ListFault::Script("wsh".into())),
        (format!("address = \"{FIRST}\"\nscript = \"wpkh\""), 4, 10, ListFault::Needless("script")),
        (format!("address = \"{FIRST}\"\naddresses = 2"), 4, 13, ListFault::Needless("addresses")),
        (format!("descriptor = \"wpkh({xpub}/0/1)\"\naddresses = 2"), 4, 13, ListFault::Needless("addresses")),
        (format!("xpub = \"{xpub}\"\naddresses = 0"), 4, 13, ListFault::Addresses(0)),
        (format!("xpub = \"{xpub}\"\naddresses = 10_001"), 4, 13, ListFault::Addresses(10_001)),
        (format!("address = \"{FIRST}\"\neffective_from = 2026-12-01"), 4, 18, ListFault::Time),
        (format!("address = \"{FIRST}\"\neffective_from = 2026-12-01T09:00:00"), 4, 18, ListFault::Time),
        (format!("address = \"{FIRST}\"\neffective_from = 2026-12-01T09:00:00+01:00"), 4, 18, ListFault::Time),
    ] {
        let error = ListError { place: Place { line, column }, fault };
        assert!(!error.fault.hint().is_empty());
        assert_eq!(parse(&destination(&keys)), Err(vec![error]), "{keys}");
    }
    for label in ["", "a\\nb", long.as_str()] {
        let text = destination(&format!("address = \"{FIRST}\"")).replace("\"x\"", &format!("\"{label}\""));
        assert_eq!(parse(&text), Err(vec![ListError { place: Place { line: 2, column: 9 }, fault: ListFault::Label }]));
    }
    for node_id in ["", "shop", &NODE_ID[2..], &NODE_ID.to_uppercase(), &NODE_ID.replace("0279", "0579")] {
        let text = format!("[[payee]]\nlabel = \"x\"\nnode_id = \"{node_id}\"\n");
        let fault = ListFault::NodeId(node_id.to_owned());
        assert_eq!(parse(&text), Err(vec![ListError { place: Place { line: 3, column: 11 }, fault }]));
    }
}

#[test]
fn a_private_key_is_not_repeated_in_what_is_said_about_it() {
    let private = account("m/84h/0h/0h", Network::Bitcoin).0.to_string();
    for keys in [format!("xpub = \"{private}\""), format!("descriptor = \"wpkh({private}/0/*)\"")] {
        let errors = parse(&destination(&keys)).expect_err("refused");
        assert!(!format!("{errors:?}{}", errors[0]).contains(&private[..12]));
    }
}

#[test]
fn unknown_keys_and_what_is_no_toml_are_named_with_their_place() {
    for (text, line, what) in [
        (destination("adress = \"\""), 3, "unknown field `adress`"),
        ("[[destinations]]\n".to_owned(), 1, "unknown field `destinations`"),
        (format!("[[peer]]\nlabel = \"x\"\nnode_id = \"{NODE_ID}\"\naddress = \"\"\n"), 4, "unknown field `address`"),
        ("[[peer]]\nlabel = \"x\"\n".to_owned(), 1, "missing field `node_id`"),
        ("[[".to_owned(), 1, ""),
    ] {
        let error = parse(&text).expect_err("refused").remove(0);
        assert_eq!(error.place.line, line, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn the_same_twice_in_a_list_is_refused_and_in_two_lists_is_found_in_both() {
    let xpub = account("m/84h/0h/0h", Network::Bitcoin).1;
    let address = destination(&format!("address = \"{SECOND}\""));
    let fault = ListFault::Duplicate(Place { line: 1, column: 1 });
    let duplicate = Err(vec![ListError { place: Place { line: 4, column: 1 }, fault }]);
    assert_eq!(parse(&(address.clone() + &address)), duplicate);
    assert_eq!(parse(&(address.clone() + &destination(&format!("xpub = \"{xpub}\"\naddresses = 2")))), duplicate);
    let node = format!("[[peer]]\nlabel = \"x\"\nnode_id = \"{NODE_ID}\"\n");
    assert_eq!(parse(&(node.clone() + &node)), duplicate);
    assert!(parse(&(node.replace("peer", "payee") + &node)).is_ok(), "payee and peer");

    let list = |name| List::parse(name, &address, Network::Bitcoin).expect("a list");
    let both = Lists::new(vec![list("exchange"), list("cold")]).expect("two lists");
    let found: Vec<_> = both.destination(&script(SECOND), 0).map(|listed| listed.list).collect();
    assert_eq!(found, ["exchange", "cold"]);
    assert_eq!(Lists::new(vec![list("cold"), list("cold")]), Err(ListsError::NameTaken("cold".into())));
}

#[test]
fn lists_are_bounded_before_they_are_read() {
    let place = Place { line: 1, column: 1 };
    let large = " ".repeat(MAX_FILE_BYTES + 1);
    assert!(parse(&large[1..]).is_ok());
    assert_eq!(parse(&large), Err(vec![ListError { place, fault: ListFault::TooLarge(MAX_FILE_BYTES + 1) }]));
    let many = "[[peer]]\nlabel=\"x\"\nnode_id=\"x\"\n".repeat(MAX_ENTRIES + 1);
    assert_eq!(parse(&many), Err(vec![ListError { place, fault: ListFault::TooManyEntries(MAX_ENTRIES + 1) }]));
    let wrong = "[[peer]]\nlabel=\"x\"\nnode_id=\"x\"\n".repeat(MAX_ENTRIES);
    assert_eq!(parse(&wrong).map_err(|errors| errors.len()), Err(MAX_ERRORS));
    let xpub = account("m/84h/0h/0h", Network::Bitcoin).1;
    let greedy = destination(&format!("xpub = \"{xpub}\"\naddresses = {}", MAX_ADDRESSES / 2 + 1));
    assert_eq!(parse(&greedy).map_err(|mut errors| errors.remove(0).fault), Err(ListFault::TooManyAddresses));
    let unlabelled = greedy.replace("\"x\"", "\"\"").replace(&(MAX_ADDRESSES / 2 + 1).to_string(), "4");
    let faults = parse(&unlabelled.repeat(2_000)).expect_err("refused").into_iter().map(|error| error.fault);
    assert!(
        faults.eq(std::iter::repeat_n(ListFault::Label, MAX_ERRORS)),
        "what is refused is derived within the same bound"
    );
    for name in ["", "Exchange", "a.b", "../x", &"a".repeat(33)] {
        let named = List::parse(name, "", Network::Bitcoin);
        assert_eq!(named, Err(vec![ListError { place, fault: ListFault::Name(name.to_owned()) }]));
    }
}
