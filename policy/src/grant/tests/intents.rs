//! What an intent says, its text, and what is within it.

use super::*;

/// The text as an approver sees it.
const TEXT: &str = "\
claviger grant 1
appliance: appliance-1
grant: 07070707070707070707070707070707
kind: normal
node: alice-node
actions: PayInvoice
destinations: any
payee: 02aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
payment_hash: any
peer: any
channel: any
client: any
message_sha256: any
device_key: any
purpose: any
max_amount_msat: 300000000
max_fee_msat: 1000000
max_total_msat: any
uses: 1
valid_from: 2026-11-23T09:00:00Z
valid_until: 2026-11-24T09:00:00Z
group: treasury
needs: 2 treasurer
requester: person dora
reason: invoice 17 of the new exchange
";

#[test]
fn an_intent_has_one_text_and_the_text_one_intent() {
    let varied = [
        intent(),
        emergency(),
        Intent { actions: vec![Action::PayInvoice, Action::Keysend], uses: MAX_USES, ..intent() },
        Intent { max_total_msat: Some(u64::from(u32::MAX)), max_fee_msat: None, ..intent() },
        Intent { requester: Requester::Node(NODE.into()), pins: BTreeMap::new(), ..intent() },
        Intent { reason: "a: b\\n \"quoted\", any".into(), ..intent() },
    ];
    assert_eq!(intent().text(), TEXT);
    for intent in varied {
        assert_eq!(intent.check(), Ok(()));
        let text = intent.text();
        assert!(text.is_ascii() && text.len() <= MAX_TEXT);
        let read = Intent::parse(&text).expect("its own text");
        assert_eq!(read, intent);
        assert_eq!(read.text(), text);
    }
}

#[test]
fn a_text_written_in_any_other_way_is_refused() {
    for (honest, wrong) in [
        ("claviger grant 1", "claviger grant 2"),
        ("claviger grant 1\n", "\nclaviger grant 1\n"),
        ("kind: normal\n", ""),
        ("kind: normal\n", "kind: normal\nkind: normal\n"),
        ("kind: normal", "kind: Normal"),
        ("kind: normal", "kind:normal"),
        ("kind: normal", "kind:  normal"),
        ("kind: normal", "kind: normal "),
        ("kind: normal\n", "kind: normal\r\n"),
        ("kind", "Kind"),
        ("node: alice-node\nactions: PayInvoice\n", "actions: PayInvoice\nnode: alice-node\n"),
        ("alice-node", "аlice-node"),
        ("alice-node", "alice-node\u{200b}"),
        ("PayInvoice", "payinvoice"),
        ("PayInvoice", "PayInvoice, PayInvoice"),
        ("PayInvoice", "Keysend, PayInvoice"),
        ("PayInvoice", "PayInvoice,Keysend"),
        ("PayInvoice", ""),
        ("300000000", "0300000000"),
        ("300000000", "+300000000"),
        ("300000000", "300_000_000"),
        ("300000000", "３00000000"),
        ("300000000", "18446744073709551616"),
        ("uses: 1", "uses: any"),
        ("uses: 1", "uses: 4294967297"),
        ("2026-11-24T09:00:00Z", "2026-11-24T10:00:00+01:00"),
        ("0707070707", "0707"),
        ("grant: 07070707", "grant: 0707070A"),
        ("person dora", "dora"),
        ("person dora", "person  dora"),
        ("2 treasurer", "02 treasurer"),
        ("2 treasurer", "2"),
        ("exchange\n", "exchange\nuses: 1000\n"),
        ("exchange\n", "exchange"),
        ("exchange\n", "exchange\n\n"),
        ("exchange", "exch\u{202e}ange"),
        ("exchange", "exchange\u{0}"),
    ] {
        assert_eq!(TEXT.matches(honest).count().min(1), 1, "{honest}");
        let text = TEXT.replacen(honest, wrong, 1);
        assert!(Intent::parse(&text).is_err(), "{wrong:?}");
    }
    assert_eq!(Intent::parse(TEXT), Ok(intent()));
    let long = "x".repeat(MAX_TEXT + 1);
    assert_eq!(Intent::parse(&long), Err(TextError::TooLong(long.len())));
}

#[test]
fn every_text_that_is_accepted_is_the_one_that_its_intent_prints() {
    let mut accepted = 0;
    for at in 0..TEXT.len() {
        let (before, after) = (&TEXT[..at], &TEXT[at + 1..]);
        let here = &TEXT[at..=at];
        for instead in ["", " ", "\n", "\r\n", "0", "1", "a", "A", ":", "-", "é", "\t", &here.repeat(2)] {
            let text = format!("{before}{instead}{after}");
            if let Ok(intent) = Intent::parse(&text) {
                assert_eq!(intent.text(), text);
                accepted += 1;
            }
        }
    }
    assert!(accepted > 100, "other names, numbers and reasons are fine");
}

#[test]
fn the_page_shows_every_line_of_a_text_in_its_order() {
    let page = include_str!("../../../../docs/policy/grants.md");
    let (_, from_first) = page.split_once("    claviger grant 1\n").expect("an example");
    let shown = from_first.lines().map_while(|line| line.strip_prefix("    ")?.split_once(": "));
    let written = TEXT.lines().skip(1).filter_map(|line| line.split_once(": "));
    assert!(shown.map(|(key, _)| key).eq(written.map(|(key, _)| key)));
}

#[test]
fn an_error_of_a_text_says_its_line() {
    let wrong = TextError::Value { line: 19, key: "uses", value: "many".into() };
    assert_eq!(Intent::parse(&TEXT.replace("uses: 1", "uses: many")), Err(wrong));
    assert_eq!(Intent::parse(&TEXT.replace("uses: 1\n", "")), Err(TextError::Line { line: 19, key: "uses" }));
    assert_eq!(Intent::parse(&TEXT[..TEXT.len() - 1]), Err(TextError::Line { line: 25, key: "reason" }));
    assert_eq!(Intent::parse(&format!("{TEXT}more")), Err(TextError::End(25)));
}

#[test]
fn values_cannot_carry_lines_of_their_own() {
    let mut hostile = intent();
    hostile.reason = "harmless\nuses: 1000".into();
    assert_eq!(hostile.check(), Err(IntentError::Reason));
    hostile = intent();
    hostile.pins.insert(FactId::Payee, "02aa\nuses: 1000".into());
    assert!(matches!(hostile.check(), Err(IntentError::Pin { fact: "payee", .. })));
    hostile.pins.insert(FactId::Payee, "any".into());
    assert!(matches!(hostile.check(), Err(IntentError::Pin { fact: "payee", .. })));
    hostile = intent();
    hostile.group = "treasury\nneeds: 0 x".into();
    assert!(matches!(hostile.check(), Err(IntentError::Name { key: "group", .. })));
    assert_eq!(intent().check(), Ok(()));
}

#[test]
fn an_intent_is_bounded() {
    let until = |valid_s: u64| NOW_S + valid_s;
    for (wrong, error) in [
        (Intent { max_amount_msat: None, ..intent() }, IntentError::Unbounded("PayInvoice")),
        (Intent { uses: 0, ..intent() }, IntentError::Uses(0)),
        (Intent { uses: MAX_USES + 1, ..intent() }, IntentError::Uses(MAX_USES + 1)),
        (Intent { uses: 2, ..emergency() }, IntentError::Uses(2)),
        (Intent { of: 0, ..intent() }, IntentError::NeedsNone),
        (Intent { valid_until_s: NOW_S, ..intent() }, IntentError::Validity(0)),
        (Intent { valid_until_s: NOW_S - 1, ..intent() }, IntentError::Validity(0)),
        (Intent { valid_until_s: until(MAX_VALIDITY_S + 1), ..intent() }, IntentError::Validity(MAX_VALIDITY_S + 1)),
        (
            Intent { valid_until_s: until(MAX_BREAK_GLASS_S + 1), ..emergency() },
            IntentError::Validity(MAX_BREAK_GLASS_S + 1),
        ),
        (
            Intent { max_amount_msat: Some(u64::MAX), ..intent() },
            IntentError::Amount { key: "max_amount_msat", value: u64::MAX },
        ),
        (
            Intent { max_total_msat: Some(299_999_999), ..intent() },
            IntentError::Amount { key: "max_total_msat", value: 299_999_999 },
        ),
        (Intent { actions: vec![], ..intent() }, IntentError::NoActions),
        (
            Intent { actions: vec![Action::SignMessage], ..intent() },
            IntentError::NotCarried { action: "SignMessage", fact: "payee" },
        ),
        (Intent { reason: String::new(), ..intent() }, IntentError::Reason),
        (Intent { reason: "x".repeat(MAX_REASON + 1), ..intent() }, IntentError::Reason),
    ] {
        assert_eq!(wrong.check(), Err(error));
    }
    let longest = Intent { valid_until_s: until(MAX_BREAK_GLASS_S), reason: "x".repeat(MAX_REASON), ..emergency() };
    assert_eq!(longest.check(), Ok(()));
}

#[test]
fn a_request_is_within_an_intent_only_if_its_facts_show_it() {
    let covers = |request: &Request| intent().covers(request);
    assert_eq!(covers(&pay(300_000_000, 1_000_000)), Ok(()));
    assert_eq!(covers(&pay(0, 0)), Ok(()));
    let above = |fact, asked_msat, max_msat| Mismatch::Above { fact, asked_msat, max_msat };
    assert_eq!(covers(&pay(300_000_001, 0)), Err(above("amount_msat", 300_000_001, 300_000_000)));
    assert_eq!(covers(&pay(1, 1_000_001)), Err(above("fee_msat", 1_000_001, 1_000_000)));
    assert_eq!(covers(&pay(1, 1).with(FactId::Payee, "02bb")), Err(Mismatch::Other("payee")));
    let with = |fact: FactId, value: u64| Request::new(NODE, Action::PayInvoice, NOW_MS).with(fact, value);
    let no_payee = with(FactId::AmountMsat, 1).with(FactId::FeeMsat, 1);
    assert_eq!(covers(&no_payee), Err(Mismatch::Missing("payee")));
    let no_fee = with(FactId::AmountMsat, 1).with(FactId::Payee, PAYEE);
    assert_eq!(covers(&no_fee), Err(Mismatch::Missing("fee_msat")));
    let no_amount = with(FactId::FeeMsat, 1).with(FactId::Payee, PAYEE);
    assert_eq!(covers(&no_amount), Err(Mismatch::Missing("amount_msat")));
}

#[test]
fn a_request_of_another_node_or_action_is_not_within_an_intent() {
    let request = |node: &str, action| {
        let request = Request::new(node, action, NOW_MS).with(FactId::Payee, PAYEE);
        request.with(FactId::AmountMsat, 1).with(FactId::FeeMsat, 1)
    };
    assert_eq!(intent().covers(&request(NODE, Action::PayInvoice)), Ok(()));
    assert_eq!(intent().covers(&request("alice-node2", Action::PayInvoice)), Err(Mismatch::Node));
    assert_eq!(intent().covers(&request(NODE, Action::Keysend)), Err(Mismatch::Action));
}

#[test]
fn every_destination_has_to_be_the_pinned_one() {
    let to = "bcrt1qexchange";
    let withdraw = |pinned: &str, destinations: &[&str]| {
        let pins = BTreeMap::from([(FactId::Destinations, pinned.to_owned())]);
        let intent = Intent { actions: vec![Action::Withdraw], pins, ..intent() };
        assert_eq!(intent.check(), Ok(()));
        let destinations: Vec<_> = destinations.iter().map(|text| (*text).to_owned()).collect();
        let request = Request::new(NODE, Action::Withdraw, NOW_MS).with(FactId::Destinations, destinations);
        intent.covers(&request.with(FactId::AmountMsat, 1).with(FactId::FeeMsat, 1))
    };
    let other = Err(Mismatch::Other("destinations"));
    assert_eq!(withdraw(to, &[to]), Ok(()));
    assert_eq!(withdraw(to, &[to, to]), Ok(()));
    assert_eq!(withdraw(to, &[to, "bcrt1qthief"]), other);
    assert_eq!(withdraw(to, &[]), other);
    assert_eq!(withdraw("none", &[]), Ok(()));
    assert_eq!(withdraw("none", &[to]), other);
}

#[test]
fn approvers_see_what_rests_on_the_nodes_word() {
    let keysend = Intent { actions: vec![Action::PayInvoice, Action::Keysend], ..intent() };
    assert_eq!(keysend.claimed().collect::<Vec<_>>(), [FactId::Payee]);
    assert_eq!(intent().claimed().count(), 0);
}
