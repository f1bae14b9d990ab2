//! Rules are checked strictly, any `forbid` wins, and any error is a fault.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::actions::Action;
use crate::verdict::Passes;

fn compile(text: &str) -> Result<Rules, Vec<RuleError>> {
    Rules::compile(&[source("rules.cedar", text)])
}

fn source(file: &str, text: &str) -> Source {
    Source { file: file.into(), text: text.into() }
}

fn rules(text: &str) -> Rules {
    compile(text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn fault(text: &str) -> RuleError {
    compile(text).err().expect("refused").remove(0)
}

fn pay(amount_msat: u64) -> Request {
    asked("alice", 0, amount_msat)
}

fn asked(node: &str, time_ms: u64, amount_msat: u64) -> Request {
    Request::new(node, Action::PayInvoice, time_ms)
        .with(FactId::AmountMsat, amount_msat)
        .with(FactId::Payee, "03cd")
        .with(FactId::PaymentHash, "e3b0")
}

fn evaluate(rules: &Rules, request: &Request) -> Evaluation {
    rules.evaluate(request, &Memberships::default()).unwrap()
}

fn permitted(rules: &Rules, request: &Request) -> bool {
    let evaluation = evaluate(rules, request);
    evaluation.forbids.is_empty() && !evaluation.permits.is_empty()
}

fn ids(ids: &[RuleId]) -> Vec<&str> {
    ids.iter().map(RuleId::as_str).collect()
}

const PAY: &str = r#"@id("pay") permit (principal, action == Action::"PayInvoice", resource) when { context.amount_msat <= 1000 };
"#;

#[test]
fn what_no_rule_permits_is_not_permitted_and_what_one_permits_is() {
    let rules = rules(PAY);
    assert!(permitted(&rules, &pay(1_000)));
    assert!(!permitted(&rules, &pay(1_001)));
    assert_eq!(evaluate(&rules, &pay(1_001)), Evaluation::default());
    assert!(!permitted(&self::rules(""), &pay(1)));
    let sign =
        Request::new("alice", Action::SignMessage, 0).with(FactId::MessageBytes, 3).with(FactId::MessageSha256, "ba78");
    assert!(!permitted(&rules, &sign));
}

#[test]
fn any_forbid_wins_in_whatever_order_rules_stand() {
    let texts = [
        PAY,
        r#"@id("small") permit (principal, action, resource);"#,
        r#"@id("never-bob") forbid (principal == Node::"bob", action, resource);"#,
        r#"@id("cap") forbid (principal, action in Action::"Spend", resource) when { context.amount_msat > 500 };"#,
    ];
    let bob = asked("bob", 0, 5);
    for order in permutations(texts.len()) {
        let text = order.iter().map(|at| texts[*at]).collect::<Vec<_>>().join("\n");
        let rules = rules(&text);
        let over = evaluate(&rules, &pay(600));
        assert_eq!((ids(&over.forbids), ids(&over.permits)), (vec!["cap"], vec!["pay", "small"]));
        let under = evaluate(&rules, &pay(500));
        assert_eq!((ids(&under.forbids), ids(&under.permits)), (vec![], vec!["pay", "small"]));
        assert_eq!(ids(&evaluate(&rules, &bob).forbids), ["never-bob"]);
    }
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(of - 1);
    let insert = |order: &Vec<usize>| {
        let order = order.clone();
        (0..of).map(move |at| {
            let mut longer = order.clone();
            longer.insert(at, of - 1);
            longer
        })
    };
    shorter.iter().flat_map(insert).collect()
}

#[test]
fn a_forbid_that_overflows_is_a_fault_and_never_skipped() {
    let text = r#"@id("all") permit (principal, action, resource);
@id("product") forbid (principal, action == Action::"PayInvoice", resource) when { context.amount_msat * 1000000 > 5 };"#;
    let rules = rules(text);
    let fault = rules.evaluate(&pay(u64::MAX), &Memberships::default()).unwrap_err();
    assert_eq!(fault.rule, Some(RuleId::from("product")));
    assert!(fault.message.contains("overflow"), "{}", fault.message);
    assert_eq!(ids(&evaluate(&rules, &pay(1)).forbids), ["product"], "the twin that fits is judged");
    let permit = r#"@id("all") permit (principal, action, resource);
@id("more") permit (principal, action == Action::"PayInvoice", resource) when { context.amount_msat * 1000000 > 5 };"#;
    assert!(self::rules(permit).evaluate(&pay(u64::MAX), &Memberships::default()).is_err(), "a permit that errs, too");
}

#[test]
fn sums_of_facts_never_overflow() {
    let text = r#"@id("sum") permit (principal, action == Action::"PayInvoice", resource)
when { context has fee_msat && context.amount_msat + context.fee_msat + context.amount_msat + context.fee_msat > 7 };"#;
    let request = pay(u64::MAX).with(FactId::FeeMsat, u64::MAX);
    assert!(permitted(&rules(text), &request));
}

#[test]
fn a_typo_is_told_with_its_line_and_column_and_the_right_word_passes() {
    let typo = PAY.replace("amount_msat", "amount_mast");
    let error = fault(&format!("// a comment\n{typo}"));
    assert_eq!(error.place.line, 2);
    assert!(matches!(&error.fault, RuleFault::Schema(words) if words.contains("amount_mast")), "{error}");
    assert!(!error.fault.hint().is_empty());
    assert!(matches!(fault(&PAY.replace("PayInvoice", "PayInvoce")).fault, RuleFault::Schema(_)));
    assert!(matches!(fault(&PAY.replace("permit", "allow")).fault, RuleFault::Syntax(_)));
    assert!(matches!(fault(&PAY.replace("<= 1000", "<= \"1000\"")).fault, RuleFault::Schema(_)));
    assert!(matches!(fault(&PAY.replace("action ==", "action == Node::\"x\" &&")).fault, RuleFault::Syntax(_)));
    assert!(compile(PAY).is_ok());
}

#[test]
fn a_fact_that_is_not_always_there_is_read_after_has_only() {
    let unguarded =
        r#"@id("fee") forbid (principal, action == Action::"PayInvoice", resource) when { context.fee_msat > 5 };"#;
    assert!(matches!(fault(unguarded).fault, RuleFault::Schema(_)));
    let guarded = unguarded.replace("context.fee_msat >", "context has fee_msat && context.fee_msat >");
    let rules = rules(&format!("{PAY}{guarded}"));
    assert!(permitted(&rules, &pay(5)));
    assert!(permitted(&rules, &pay(5).with(FactId::FeeMsat, 5)));
    assert!(!permitted(&rules, &pay(5).with(FactId::FeeMsat, 6)));
}

#[test]
fn every_rule_has_an_id_and_no_two_have_the_same() {
    assert_eq!(fault(&PAY.replace("@id(\"pay\") ", "")).fault, RuleFault::IdMissing);
    assert_eq!(fault(&PAY.replace("\"pay\"", "\"Pay me\"")).fault, RuleFault::IdShape("Pay me".into()));
    let twice = compile(&format!("{PAY}\n{PAY}")).err().unwrap().remove(0);
    assert_eq!(twice.place, Place { line: 3, column: 1 });
    let first = Place { line: 1, column: 1 };
    assert_eq!(twice.fault, RuleFault::IdTwice { id: "pay".into(), file: "rules.cedar".into(), place: first });
    let files = [source("a.cedar", PAY), source("b.cedar", PAY)];
    let across = Rules::compile(&files).err().unwrap().remove(0);
    assert_eq!((across.file.as_str(), across.place), ("b.cedar", first));
}

#[test]
fn annotations_that_mean_nothing_are_refused() {
    let forbid = r#"@id("no") @unless_approved("treasury") forbid (principal, action, resource);"#;
    assert_eq!(rules(forbid).iter().next().unwrap().unless_approved(), Some("treasury"));
    let typo = forbid.replace("unless_approved", "unless_aproved");
    assert_eq!(fault(&typo).fault, RuleFault::Annotation("unless_aproved".into()));
    assert_eq!(fault(&forbid.replace("treasury", "")).fault, RuleFault::GroupShape(String::new()));
    assert_eq!(fault(&forbid.replace("forbid", "permit")).fault, RuleFault::GroupOnPermit);
}

#[test]
fn a_rule_that_can_never_apply_is_refused() {
    let never =
        r#"@id("no") forbid (principal, action == Action::"PayInvoice", resource) when { context has push_msat };"#;
    assert!(matches!(fault(never).fault, RuleFault::Suspect(_)));
    let fleet = r#"@id("no") forbid (principal == Fleet::"claviger", action, resource);"#;
    assert!(compile(fleet).is_err());
    let slot = r#"@id("no") forbid (principal == ?principal, action, resource);"#;
    assert_eq!(fault(slot).fault, RuleFault::Template);
}

#[test]
fn text_is_bounded_before_it_is_parsed() {
    let deep = |depth: usize| {
        let condition = format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        format!("@id(\"deep\") permit (principal, action, resource) when {{ {condition} }};")
    };
    assert_eq!(fault(&deep(100_000)).fault, RuleFault::TooDeep);
    assert!(compile(&deep(MAX_DEPTH - 1)).is_ok());
    let wide = |terms: usize| {
        let condition = vec!["context.amount_msat > 1"; terms].join(" && ");
        format!("@id(\"wide\") permit (principal, action == Action::\"PayInvoice\", resource) when {{ {condition} }};")
    };
    assert_eq!(fault(&wide(30)).fault, RuleFault::TooDeep);
    assert!(permitted(&rules(&wide(24)), &pay(2)));
    assert_eq!(fault(&format!("// {}", "x".repeat(MAX_RULE_BYTES))).fault, RuleFault::TooLong);
    assert_eq!(fault(&"x".repeat(MAX_TEXT + 1)).fault, RuleFault::TooMuch);
    let many = |count: usize| {
        (0..count)
            .map(|at| format!("@id(\"r{at}\") forbid (principal == Node::\"n{at}\", action, resource);\n"))
            .collect::<String>()
    };
    assert_eq!(fault(&many(10_000)).fault, RuleFault::TooMany);
    let quoted =
        r#"@id("q") @doc("brackets in \"text\" ((((((((((((((((((((((((((((") permit (principal, action, resource);"#;
    assert!(compile(quoted).is_ok());
}

#[test]
fn a_rule_for_one_node_concerns_no_other() {
    let text = r#"@id("alices") permit (principal == Node::"alice", action == Action::"PayInvoice", resource);
@id("bobs") permit (principal == Node::"bob", action == Action::"PayInvoice", resource);
@id("cap") forbid (principal, action, resource) when { context has amount_msat && context.amount_msat > 9 };"#;
    let rules = rules(text);
    assert_eq!(ids(&evaluate(&rules, &pay(9)).permits), ["alices"]);
    let over = evaluate(&rules, &pay(10));
    assert_eq!((ids(&over.permits), ids(&over.forbids)), (vec!["alices"], vec!["cap"]));
    let carol = asked("carol", 0, 9);
    assert_eq!(evaluate(&rules, &carol), Evaluation::default());
    let quote = asked("alice\", Node::\"bob", 0, 9);
    assert_eq!(evaluate(&rules, &quote), Evaluation::default());
}

#[test]
fn slices_judge_as_one_set_of_all_rules_would() {
    let nodes = ["alice", "bob"];
    let mut text = String::new();
    for (at, action) in Action::ALL.iter().enumerate() {
        let node = nodes[at % 2];
        text += &format!("@id(\"a{at}\") permit (principal, action == Action::\"{action}\", resource);\n");
        text += &format!(
            "@id(\"n{at}\") forbid (principal == Node::\"{node}\", action in [Action::\"{action}\", Action::\"Speak\"], resource) when {{ context.hour_utc < {} }};\n",
            at + 1
        );
    }
    let rules = rules(&text);
    let whole = PolicySet::from_policies(rules.rules.iter().map(|rule| rule.policy.clone())).unwrap();
    for node in ["alice", "bob", "carol"] {
        for hour in [0, 3, 14, 23] {
            let request = asked(node, hour * HOUR_MS, 1);
            let context = context(&request, &Memberships::default(), Facts::ALL).unwrap();
            let uid = EntityUid::from_type_name_and_id(rules.node.clone(), EntityId::new(node));
            let action = rules.actions[request.action as usize].clone();
            let asked = cedar_policy::Request::new(uid, action, rules.fleet.clone(), context, None).unwrap();
            let mut all = Evaluation::default();
            rules.authorize(&asked, &whole, &mut all).unwrap();
            let sliced = evaluate(&rules, &request);
            all.forbids.sort();
            assert_eq!(sliced.forbids, all.forbids);
            if all.forbids.is_empty() {
                assert_eq!(sliced.permits, all.permits);
            }
        }
    }
}

#[test]
fn a_request_that_is_not_what_the_table_says_is_a_fault() {
    let rules = rules(r#"@id("all") permit (principal, action, resource);"#);
    let bare = Request::new("alice", Action::PayInvoice, 0);
    assert_eq!(rules.evaluate(&bare, &Memberships::default()).unwrap_err().rule, None);
    assert!(permitted(&rules, &pay(1)));
}

#[test]
fn hours_and_weekdays_are_those_of_utc() {
    let text = r#"@id("now") permit (principal, action, resource) when { context.hour_utc == 17 && context.weekday_utc == 1 };"#;
    let rules = rules(text);
    // 2026-11-23 17:59:59.999 UTC, a Monday.
    let end_ms = 1_795_456_799_999;
    assert!(permitted(&rules, &asked("alice", end_ms, 1)));
    assert!(!permitted(&rules, &asked("alice", end_ms + 1, 1)));
}

#[test]
fn lists_are_what_decide_found_them_to_be() {
    let text = r#"@id("listed") permit (principal, action == Action::"Withdraw", resource)
when { context.destination_lists.contains("exchange") || context.unknown_destinations == 0 };"#;
    let rules = rules(text);
    let request = Request::new("alice", Action::Withdraw, 0).with(FactId::AmountMsat, 5).with(FactId::FeeMsat, 5);
    let request = request.paying_to(vec!["bc1q".into()]);
    let of = |lists: &[&str], unknown_destinations| {
        let destination_lists = lists.iter().map(|list| (*list).to_owned()).collect();
        let memberships = Memberships { destination_lists, unknown_destinations, ..Memberships::default() };
        !rules.evaluate(&request, &memberships).unwrap().permits.is_empty()
    };
    assert!(of(&["exchange"], 1));
    assert!(of(&[], 0));
    assert!(!of(&["suppliers"], 1));
}

#[test]
fn a_rule_says_what_it_compared_and_what_would_have_passed() {
    let text = r#"@id("cap") forbid (principal, action == Action::"PayInvoice", resource) when { 500 < context.amount_msat };
@id("night") forbid (principal, action == Action::"PayInvoice", resource) unless { context.hour_utc >= 6 && context.hour_utc < 22 };
@id("pay") permit (principal, action == Action::"PayInvoice", resource) when { context.amount_msat <= 400 && context.payee == "03ff" };"#;
    let rules = rules(text);
    let request = pay(600);
    let compared = |id: &str| rules.rule(&RuleId::from(id)).unwrap().compare(&request);
    assert_eq!(compared("cap")[0].passes, Some(Passes::AtMost(500)));
    assert_eq!(compared("cap")[0].to_string(), "amount_msat 600 msat (at most 500 msat would pass)");
    assert_eq!(compared("night").len(), 1);
    let closest = rules.closest(&request, 3).remove(0);
    assert_eq!(closest.rule.as_str(), "pay");
    assert_eq!(closest.compared[0].passes, Some(Passes::AtMost(400)));
    assert_eq!(closest.compared[1].passes, Some(Passes::Exactly("03ff".into())));
    assert_eq!(rules.closest(&pay(400).with(FactId::Payee, "03ff"), 3)[0].compared[0].passes, None);
}
