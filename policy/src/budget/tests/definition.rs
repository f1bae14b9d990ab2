//! What a `[[budget]]` may say, and what is said about one that may not be.

use super::super::*;
use crate::actions::Action;
use crate::place::Place;

const GOOD: &str = r#"[[budget]]
name = "hourly"
actions = ["PayInvoice", "Keysend"]
fact = "amount_msat"
scope = ["node", "payee"]
window = "1h"
limit = 2_000_000_000
unless_approved = "treasury"
"#;

#[test]
fn a_budget_is_read_as_it_is_written() {
    let expected = Budget {
        name: "hourly".into(),
        actions: vec![Action::PayInvoice, Action::Keysend],
        fact: Some(FactId::AmountMsat),
        scope: vec![Scope::Node, Scope::Payee],
        window_s: 3_600,
        limit: 2_000_000_000,
        unless_approved: Some("treasury".into()),
    };
    assert_eq!(parse(GOOD), Ok(vec![expected.clone()]));
    let count = GOOD.replace("amount_msat", "count").replace("unless_approved = \"treasury\"", "");
    assert_eq!(parse(&count), Ok(vec![Budget { fact: None, unless_approved: None, ..expected }]));
    assert_eq!(parse(""), Ok(vec![]));
}

#[test]
fn windows_are_from_a_minute_to_a_year() {
    for (window, window_s) in [("60s", 60), ("1m", 60), ("15m", 900), ("24h", 86_400), ("366d", MAX_WINDOW_S)] {
        let budgets = parse(&GOOD.replace("\"1h\"", &format!("\"{window}\""))).expect("a window");
        assert_eq!(budgets[0].window_s, window_s);
    }
    for window in
        ["59s", "367d", "8785h", "0m", "", "h", "1", "+1h", "1 h", "1w", "1h30m", "99999999999999999999d", "1µ", "µ"]
    {
        let text = GOOD.replace("\"1h\"", &format!("\"{window}\""));
        assert_eq!(faults(&text), [(6, 10, BudgetFault::Window(window.into()))]);
    }
}

#[test]
fn each_mistake_is_named_with_its_line_and_column_and_the_budget_beside_it_is_good() {
    let name = |text: &str| BudgetFault::Name(text.into());
    let carried = |action, fact| BudgetFault::NotCarried { action, fact };
    for (from, to, line, column, fault) in [
        ("\"hourly\"", "\"Hourly\"", 2, 8, name("Hourly")),
        ("\"hourly\"", "\"\"", 2, 8, name("")),
        ("[\"PayInvoice\", \"Keysend\"]", "[]", 3, 11, BudgetFault::NoActions),
        ("Keysend", "Keysent", 3, 26, BudgetFault::Action("Keysent".into())),
        ("Keysend", "PayInvoice", 3, 26, BudgetFault::Repeated("PayInvoice".into())),
        ("amount_msat", "amount_sat", 4, 8, BudgetFault::Fact("amount_sat".into())),
        ("amount_msat", "payee", 4, 8, BudgetFault::NotAnAmount("payee")),
        ("[\"node\", \"payee\"]", "[]", 5, 9, BudgetFault::NoScope),
        ("\"payee\"", "\"pubkey\"", 5, 18, BudgetFault::Scope("pubkey".into())),
        ("\"payee\"", "\"fleet\"", 5, 9, BudgetFault::FleetAndMore),
        ("2_000_000_000", "2_100_000_000_000_000_001", 7, 9, BudgetFault::Limit(2_100_000_000_000_000_001)),
    ] {
        assert_eq!(faults(&GOOD.replace(from, to)), [(line, column, fault)], "{to}");
    }
    let wrong = GOOD.replace("\"Keysend\"", "\"SignMessage\"");
    let expected = [(4, 8, carried("SignMessage", "amount_msat")), (5, 9, carried("SignMessage", "payee"))];
    assert_eq!(faults(&wrong), expected);
    assert_eq!(faults(&format!("{GOOD}{GOOD}")), [(10, 8, BudgetFault::NameTaken("hourly".into()))]);
}

#[test]
fn unknown_and_missing_keys_and_what_is_no_toml_are_named_with_their_place() {
    for (text, line, what) in [
        (format!("{GOOD}perod = 1\n"), 9, "unknown field `perod`"),
        (GOOD.replace("fact = \"amount_msat\"\n", ""), 1, "missing field `fact`"),
        (GOOD.replace("2_000_000_000", "-1"), 7, "invalid value"),
        (GOOD.replace("2_000_000_000", "\"2000\""), 7, "invalid type"),
        (GOOD.replace("]]", "]"), 1, ""),
        (format!("x = 1\n{GOOD}"), 1, "unknown field `x`"),
    ] {
        let error = parse(&text).expect_err("wrong").remove(0);
        assert_eq!(error.place.line, line, "{error}");
        assert!(error.to_string().contains(what) && !error.fault.hint().is_empty(), "{error}");
    }
}

#[test]
fn budgets_are_few() {
    let many = |count: usize| (0..count).map(|n| GOOD.replace("hourly", &format!("b{n}"))).collect::<String>();
    assert_eq!(parse(&many(MAX_BUDGETS)).map(|budgets| budgets.len()), Ok(MAX_BUDGETS));
    let place = Place { line: MAX_BUDGETS * 8 + 1, column: 1 };
    let fault = BudgetFault::TooMany(MAX_BUDGETS + 1);
    assert_eq!(parse(&many(MAX_BUDGETS + 1)), Err(vec![BudgetError { place, fault }]));
}

fn faults(text: &str) -> Vec<(usize, usize, BudgetFault)> {
    let errors = parse(text).expect_err("wrong");
    errors.into_iter().map(|error| (error.place.line, error.place.column, error.fault)).collect()
}
