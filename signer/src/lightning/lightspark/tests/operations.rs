//! Operations: what is signed, under which policy, and how often it counts.

use bitcoin::Address;
use vls_protocol::msgs;

use super::*;
use crate::lightning::driver::invoice_to_pay;

const PAY: &str = "mutation PayInvoice($node_id: ID! $encoded_invoice: String! $timeout_secs: Int! \
    $maximum_fees_msats: Long! $amount_msats: Long $idempotency_key: String) { pay_invoice(input: { node_id: $node_id \
    encoded_invoice: $encoded_invoice timeout_secs: $timeout_secs maximum_fees_msats: $maximum_fees_msats \
    amount_msats: $amount_msats idempotency_key: $idempotency_key }) { payment { id } } }";
const WITHDRAW: &str = "mutation RequestWithdrawal($node_id: ID! $bitcoin_address: String! $amount_sats: Long! \
    $withdrawal_mode: WithdrawalMode! $idempotency_key: String) { request_withdrawal(input: { node_id: $node_id \
    bitcoin_address: $bitcoin_address amount_sats: $amount_sats withdrawal_mode: $withdrawal_mode \
    idempotency_key: $idempotency_key }) { request { id } } }";
/// 100 sat a day for each action, and no withdrawal but to [`exchange`].
const BUDGETS: &str = "version = 1\n\
    [[budget]]\nname = \"pay\"\nactions = [\"PayInvoice\"]\nfact = \"amount_msat\"\nscope = [\"node\"]\nwindow = \"24h\"\nlimit = 100_000\n\
    [[budget]]\nname = \"out\"\nactions = [\"Withdraw\"]\nfact = \"amount_msat\"\nscope = [\"node\"]\nwindow = \"24h\"\nlimit = 50_000_000\n";
const RULES: &str = "@id(\"all\") permit (principal, action, resource);\n\
    @id(\"elsewhere\") forbid (principal, action == Action::\"Withdraw\", resource) when { context.unknown_destinations > 0 };";

fn address(key: u8) -> String {
    Address::from_script(&p2wpkh(&peer(key)), Network::Regtest).expect("an address").to_string()
}

pub(super) fn exchange() -> String {
    address(4)
}

pub(super) fn invoice(n: u64, amount_msat: u64) -> String {
    let Ok(msgs::Message::PreapproveInvoice(message)) = msgs::from_vec(invoice_to_pay(n, amount_msat)) else {
        panic!("another message");
    };
    String::from_utf8(message.invstring.0).expect("text")
}

fn governed() -> Spark {
    governed_by(RULES)
}

fn governed_by(rules: &str) -> Spark {
    let mut files = Files::default();
    let list = format!("[[destination]]\nlabel = \"exchange\"\naddress = \"{}\"\n", exchange());
    for (name, text) in [("policy.toml", BUDGETS), ("rules.cedar", rules), ("lists/exchange.toml", &list)] {
        files.add(name, text.as_bytes().to_vec()).expect("a file of a bundle");
    }
    let desk = Desk::default();
    desk.apply(files, Network::Regtest, None, 1, |_| Ok::<_, ApplyFailed>(())).expect("a bundle");
    Spark::under(Arc::new(desk))
}

impl Spark {
    fn call(&self, query: &str, variables: Value, nonce: u64) -> String {
        let expires_at = time(self.node.clock.now_ms() + 3_600_000);
        let name = query.split(['(', ' ']).nth(1).expect("a name");
        json!({ "operationName": name, "query": query, "variables": variables, "nonce": nonce, "expires_at": expires_at })
            .to_string()
    }

    pub(super) fn pay(&self, invoice: &str, key: Option<&str>, nonce: u64) -> String {
        let variables = json!({
            "node_id": NODE, "encoded_invoice": invoice, "timeout_secs": 60, "maximum_fees_msats": 1_000,
            "idempotency_key": key,
        });
        self.call(PAY, variables, nonce)
    }

    pub(super) fn withdraw(&self, to: &str, amount_sat: u64, key: &str) -> String {
        let variables = json!({
            "node_id": NODE, "bitcoin_address": to, "amount_sats": amount_sat, "withdrawal_mode": "WALLET_ONLY",
            "idempotency_key": key,
        });
        self.call(WITHDRAW, variables, 1)
    }

    /// The signature, which must be good for exactly these bytes and the key at m/5.
    pub(super) fn sign_body(&mut self, body: &str) -> Result<Vec<u8>, Refusal> {
        let message = operation_request(&self.clearance, body.as_bytes());
        let row = guard::row(NodeKind::Lightspark, &message).expect("known");
        let signature = self.handle(row, message)?;
        let digest = sha256::Hash::hash(body.as_bytes()).to_byte_array();
        let key = self.node.keys.operations().public_key(self.node.keys.secp());
        let read = ecdsa::Signature::from_der(&signature).expect("DER");
        Secp256k1::new().verify_ecdsa(&Message::from_digest(digest), &read, &key).expect("a good signature");
        Ok(signature)
    }

    fn spent(&self, budget: &str) -> u64 {
        let standings = self.desk.standings(1, self.node.clock.now_ms());
        standings.iter().find(|standing| standing.budget == *budget).map_or(0, |standing| standing.spent)
    }

    /// The L1 job that pays `sat` to `to` and the rest, less a fee, to an address of ours.
    fn payout(&self, id: &str, byte: u8, to: ScriptBuf, sat: u64) -> Value {
        let (coin_script, change) = (self.address(KeyPath::Wallet(0, 1)), self.address(KeyPath::Wallet(1, 9)));
        let outputs = vec![output(sat, to), output(1_000_000 - sat - 1_000, change)];
        let mut job = self.job(id, "m/84'/2'/0'/0/1", &transaction(coin(byte), outputs), &coin_script, 1_000_000);
        job["destination_derivation_path"] = "m/84'/2'/0'/1/9".into();
        job
    }
}

#[test]
fn a_hundred_repeats_of_an_operation_get_one_answer_and_count_once_across_restarts() {
    let mut spark = governed();
    let invoice = invoice(1, 60_000);
    let body = spark.pay(&invoice, Some("order 7"), 15_855_241_872_408_850_000);
    let first = spark.sign_body(&body).expect("within the budget");
    for at in 0..100 {
        if at % 25 == 0 {
            spark = spark.restarted();
        }
        assert_eq!(spark.sign_body(&body).expect("again"), first);
    }
    assert_eq!(spark.spent("pay"), 60_000);
    // The SDKs repeat a call with a nonce and an expiry of its own.
    let repeat = spark.pay(&invoice, Some("order 7"), 2);
    spark.sign_body(&repeat).expect("the same operation");
    assert_eq!(spark.spent("pay"), 60_000);
}

#[test]
fn an_idempotency_key_names_one_operation_and_other_keys_name_others() {
    let mut spark = governed();
    let invoices = [invoice(1, 30_000), invoice(2, 30_000)];
    spark.sign_body(&spark.pay(&invoices[0], Some("a"), 1)).expect("the first");
    spark.sign_body(&spark.pay(&invoices[0], Some("a"), 2)).expect("the same with another nonce");
    let other = spark.pay(&invoices[1], Some("a"), 3);
    assert_eq!(Spark::reason(spark.sign_body(&other)), Some(Reason::OperationReused));
    let mut spark = spark.restarted();
    assert_eq!(Spark::reason(spark.sign_body(&other)), Some(Reason::OperationReused));
    spark.sign_body(&spark.pay(&invoices[1], Some("b"), 3)).expect("under its own key");
    // An invoice is paid once, whatever key it is paid under.
    spark.sign_body(&spark.pay(&invoices[1], None, 4)).expect("without a key");
    assert_eq!(spark.spent("pay"), 60_000);
}

#[test]
fn a_payment_beyond_the_budget_is_not_signed_and_one_within_is() {
    let mut spark = governed();
    let large = spark.pay(&invoice(1, 100_001), None, 1);
    assert_eq!(Spark::reason(spark.sign_body(&large)), Some(Reason::PolicyBudgetExceeded));
    spark.sign_body(&spark.pay(&invoice(2, 100_000), None, 1)).expect("all of the budget");
}

#[test]
fn a_withdrawal_is_signed_to_a_listed_address_and_its_transaction_counts_once() {
    let mut spark = governed();
    let elsewhere = spark.withdraw(&address(5), 30_000, "w");
    assert_eq!(Spark::reason(spark.sign_body(&elsewhere)), Some(Reason::PolicyForbidden));
    spark.sign_body(&spark.withdraw(&exchange(), 30_000, "w")).expect("to the exchange");
    assert_eq!(spark.spent("out"), 30_000_000);
    let mut spark = spark.restarted();
    // The change is right in both: what differs is who is paid.
    let theft = spark.payout("t", 5, p2wpkh(&peer(5)), 30_000);
    assert_eq!(Spark::reason(spark.sign(&[theft])), Some(Reason::PolicyForbidden));
    let honest = spark.payout("h", 5, p2wpkh(&peer(4)), 30_000);
    spark.sign(std::slice::from_ref(&honest)).expect("what was requested");
    assert_eq!(spark.spent("out"), 30_000_000, "charged when it was requested");
    // A request is paid out once: another transaction is another withdrawal.
    let again = spark.payout("a", 6, p2wpkh(&peer(4)), 30_000);
    assert_eq!(Spark::reason(spark.sign(&[again])), Some(Reason::PolicyBudgetExceeded));
    spark.sign(&[honest]).expect("the same again");
}

/// Neither the call nor the job alone moves money, where a rule says so.
#[test]
fn hostile_a_job_that_pays_what_no_call_requested_is_refused_where_a_rule_wants_a_request() {
    let unrequested = "@id(\"unrequested\") forbid (principal, action == Action::\"Withdraw\", resource) \
                       when { context has unrequested && context.unrequested > 0 };";
    let mut spark = governed_by(&format!("{RULES}\n{unrequested}"));
    let job = spark.payout("p", 5, p2wpkh(&peer(4)), 30_000);
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&job))), Some(Reason::PolicyForbidden));
    spark.sign_body(&spark.withdraw(&exchange(), 29_999, "smaller")).expect("to the exchange");
    assert_eq!(
        Spark::reason(spark.sign(std::slice::from_ref(&job))),
        Some(Reason::PolicyForbidden),
        "less was requested"
    );
    let mut spark = governed_by(&format!("{RULES}\n{unrequested}"));
    spark.sign_body(&spark.withdraw(&exchange(), 30_000, "w")).expect("to the exchange");
    spark.sign(&[job]).expect("it was requested");
}

#[test]
fn an_operation_that_is_not_understood_is_refused_by_name_and_its_honest_twin_is_signed() {
    let mut spark = Spark::new();
    let good = spark.pay(&invoice(1, 60_000), None, 1);
    for (from, to, reason) in [
        ("pay_invoice(", "send_payment(", Reason::MessageUnknown),
        ("mutation PayInvoice", "query PayInvoice", Reason::NotAllowed),
        ("{ payment { id } }", "{ payment { id } } more(input: { node_id: $node_id }) { id }", Reason::Malformed),
        ("\"nonce\":1", "\"nonce\":1,\"extensions\":{}", Reason::Malformed),
        ("\"nonce\":1", "\"nonce\":1,\"nonce\":2", Reason::Malformed),
        ("\"nonce\":1", "\"other\":1", Reason::Malformed),
        ("\"timeout_secs\":60", "\"timeout_secs\":60.5", Reason::Malformed),
        ("\"maximum_fees_msats\":1000", "\"maximum_fees_msats\":9007199254740993", Reason::Malformed),
        ("\"maximum_fees_msats\":1000", "\"maximum_fees_msats\":-1", Reason::Malformed),
        ("\"maximum_fees_msats\":1000", "\"maximum_fees_msats\":1000000000", Reason::Limit),
        ("\"node_id\":", "\"amount_msats\":1,\"node_id\":", Reason::Malformed),
        ("lnbcrt", "lnbc", Reason::InvoiceUnreadable),
        ("amount_msats: $amount_msats ", "amount_msats: $amount_msats colour: $node_id ", Reason::Malformed),
    ] {
        assert!(good.contains(from), "{from}");
        let reply = spark.sign_body(&good.replacen(from, to, 1));
        assert_eq!(Spark::reason(reply), Some(reason), "{to}");
    }
    spark.sign_body(&good).expect("understood");
}

#[test]
fn an_operation_that_has_ended_or_ends_late_is_not_signed_and_one_of_an_hour_is() {
    let mut spark = Spark::new();
    let good = spark.pay(&invoice(1, 60_000), None, 1);
    let mut body: Value = serde_json::from_str(&good).expect("JSON");
    let now_ms = spark.node.clock.now_ms();
    for ms in [now_ms - 1_000, now_ms + 2 * 3_600_000] {
        body["expires_at"] = time(ms).into();
        assert_eq!(Spark::reason(spark.sign_body(&body.to_string())), Some(Reason::OperationExpiry));
    }
    spark.sign_body(&good).expect("an hour");
}
