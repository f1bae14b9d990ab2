//! The spending policy on lnd's calls: what a rule forbids is refused by its name, the honest twin is signed, and what was
//! counted is counted once.

use claviger_policy::bundle::Files;
use claviger_policy::facts::FactId;
use claviger_policy::value::Value;

use super::*;
use crate::lightning::lnd::scripts::Htlc;
use crate::policy::ApplyFailed;

/// A node under these rules and this budget, and no others.
pub(super) fn under(rules: &str, budget: &str) -> Lnd {
    let mut files = Files::default();
    let permit = r#"@id("all") permit (principal, action, resource);"#;
    let list = format!("[[destination]]\nlabel = \"cold\"\naddress = \"{}\"\n", address(&cold()));
    for (name, text) in [
        ("policy.toml", format!("version = 1\n{budget}")),
        ("rules.cedar", format!("{permit}\n{rules}")),
        ("lists/cold.toml", list),
    ] {
        files.add(name, text.into_bytes()).expect("a file of a bundle");
    }
    let desk = Desk::default();
    let record = |_| Ok::<_, ApplyFailed>(());
    desk.apply(files, Network::Regtest, None, 1, record).expect("a bundle");
    Lnd::under(Arc::new(desk))
}

/// A rule that forbids `action` when `condition` holds.
pub(super) fn forbid(action: &str, condition: &str) -> Lnd {
    let rule = format!("@id(\"the-rule\") forbid (principal, action == Action::\"{action}\", resource)");
    under(&format!("{rule} when {{ {condition} }};"), "")
}

fn budget(action: &str, fact: &str, limit: u64) -> Lnd {
    let of =
        format!("actions = [\"{action}\"]\nfact = \"{fact}\"\nscope = [\"node\"]\nwindow = \"24h\"\nlimit = {limit}");
    under("", &format!("[[budget]]\nname = \"daily\"\n{of}\n"))
}

/// Money that is listed as a destination, behind a script of several keys.
fn cold() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x53]).to_p2wsh()
}

fn stranger() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros())
}

impl Lnd {
    /// The question is refused by the rule.
    fn is_forbidden(&mut self, psbt: &Psbt) {
        let refusal = self.sign(psbt).expect_err("forbidden");
        assert_eq!(refusal.reason, Reason::PolicyForbidden, "{}", refusal.detail);
        assert!(refusal.detail.contains("the-rule"), "{}", refusal.detail);
    }

    fn fact(&self, fact: FactId) -> Option<&Value> {
        self.asked.iter().find_map(|record| record.request.get(fact))
    }

    fn send(&self, outputs: Vec<TxOut>) -> Psbt {
        self.spend(&[(0, 100_000)], &[100_000], 0, outputs)
    }

    fn close(&self, ours: ScriptBuf) -> Psbt {
        self.funding_spend(0, 0xffff_fffd, 800_000, vec![out(399_000, peer_script()), out(600_000, ours)])
    }

    fn spent(&self) -> u64 {
        self.desk.standings(1, self.node.clock.now_ms()).first().map_or(0, |standing| standing.spent)
    }
}

#[test]
fn a_withdrawal_is_judged_by_amount_and_destination_and_the_wallet_pays_itself() {
    let mut lnd = forbid("Withdraw", "context.unknown_destinations > 0 || context.amount_msat > 20000000");
    let honest = lnd.send(vec![out(20_000, cold()), out(79_000, lnd.address(5))]);
    assert_eq!(lnd.class(&honest), Ok("wallet-spend".to_owned()));
    assert_eq!(lnd.fact(FactId::AmountMsat), Some(&Value::Number(20_000_000)));
    assert_eq!(lnd.fact(FactId::FeeMsat), Some(&Value::Number(1_000_000)));
    for outputs in [
        vec![out(20_001, cold()), out(78_999, lnd.address(5))],
        vec![out(9_000, stranger()), out(90_000, lnd.address(5))],
    ] {
        let attack = lnd.send(outputs);
        lnd.is_forbidden(&attack);
    }
    let to_itself = lnd.send(vec![out(99_000, lnd.address(6))]);
    assert!(lnd.class(&to_itself).is_ok(), "no withdrawal");
}

#[test]
fn a_withdrawal_is_judged_by_its_feerate() {
    let mut lnd = forbid("Withdraw", "context has feerate_sat_per_kw && context.feerate_sat_per_kw > 2000");
    // One P2WPKH input, a P2WSH and a P2WPKH output: 610 weight units with the largest signature.
    let pays = |fee_sat: u64| vec![out(20_000, cold()), out(80_000 - fee_sat, lnd.address(5))];
    let (attack, honest) = (lnd.send(pays(1_221)), lnd.send(pays(1_220)));
    lnd.is_forbidden(&attack);
    assert!(lnd.class(&honest).is_ok());
    let signed_weight = honest.unsigned_tx.weight().to_wu() + 2 + 1 + 73 + 34;
    assert_eq!(lnd.fact(FactId::FeerateSatPerKw), Some(&Value::Number(1_220_000 / signed_weight)));
}

#[test]
fn a_withdrawal_of_several_inputs_is_counted_once_and_a_refused_one_not_at_all() {
    let coins = [(0, 60_000), (1, 60_000)];
    let mut lnd = budget("Withdraw", "amount_msat", 20_000_000);
    let too_much = lnd.send(vec![out(50_001, cold()), out(48_999, lnd.address(5))]);
    assert_eq!(lnd.class(&too_much), Err(Reason::Limit), "the limits of claviger.toml hold beside the policy");
    assert_eq!(lnd.spent(), 0);
    for at in [0, 1, 1] {
        let part = lnd.spend(&coins, &[60_000, 60_000], at, vec![out(20_000, cold()), out(99_000, lnd.address(5))]);
        assert!(lnd.class(&part).is_ok());
        assert_eq!(lnd.spent(), 20_000_000);
        if at == 0 {
            lnd = lnd.restarted();
        }
    }
    let more = lnd.spend(&[(3, 10_000)], &[10_000], 0, vec![out(1_000, cold()), out(8_000, lnd.address(5))]);
    assert_eq!(lnd.class(&more), Err(Reason::PolicyBudgetExceeded));
}

#[test]
fn an_open_is_judged_when_it_is_funded_and_by_what_its_first_commitment_gives() {
    let fund = |lnd: &Lnd, sat| {
        lnd.spend(
            &[(0, 2_000_000)],
            &[2_000_000],
            0,
            vec![out(sat, lnd.funding_script(0).to_p2wsh()), out(1_999_000 - sat, lnd.address(5))],
        )
    };
    let mut lnd = forbid("OpenChannel", "context.amount_msat > 1000000000 || context.push_msat > 399000000");
    let too_large = fund(&lnd, CAPACITY_SAT + 1);
    lnd.is_forbidden(&too_large);
    let psbt = fund(&lnd, CAPACITY_SAT);
    assert!(lnd.class(&psbt).is_ok());
    let outpoint = OutPoint { txid: psbt.unsigned_tx.compute_txid(), vout: 0 };
    lnd.reserve(0, 1).expect("ours");
    let first = |lnd: &Lnd, ours_sat| {
        let mut psbt = lnd.commitment(0, 0, Some(ours_sat));
        psbt.unsigned_tx.input[0].previous_output = outpoint;
        psbt
    };
    let (attack, honest) = (first(&lnd, 599_999), first(&lnd, 600_000));
    lnd.is_forbidden(&attack);
    lnd = lnd.restarted();
    assert!(lnd.class(&honest).is_ok(), "what was refused left nothing behind");
    assert_eq!(lnd.fact(FactId::PushMsat), Some(&Value::Number(399_000_000)));
    assert_eq!(lnd.fact(FactId::AmountMsat), Some(&Value::Number(1_000_000_000)));

    // Of a channel that its peer funds, nothing is the wallet's.
    let mut lnd = forbid("OpenChannel", "context.amount_msat > 0 || context.push_msat > 0");
    lnd.open(0, 0);

    // Both questions of one channel are counted once.
    let mut lnd = budget("OpenChannel", "amount_msat", 1_000_000_000);
    assert!(lnd.class(&psbt).is_ok());
    lnd = lnd.restarted();
    lnd.reserve(0, 1).expect("ours");
    assert!(lnd.class(&honest).is_ok());
    assert_eq!(lnd.spent(), 1_000_000_000);
}

#[test]
fn money_that_goes_to_a_listed_script_is_withdrawn_and_funds_no_channel() {
    let mut lnd = forbid("OpenChannel", "true");
    let psbt = lnd.send(vec![out(40_000, cold()), out(59_000, lnd.address(5))]);
    assert!(lnd.class(&psbt).is_ok());
    let other = lnd.send(vec![out(40_000, peer_script()), out(59_000, lnd.address(5))]);
    lnd.is_forbidden(&other);
}

#[test]
fn updates_and_force_closes_are_judged_and_what_lnd_tries_at_an_open_is_neither() {
    let mut lnd = forbid("ForceClose", "true");
    lnd.open(0, 0);
    let tried = lnd.commitment(0, 0, None);
    assert_eq!(lnd.class(&tried), Ok("holder-commitment".to_owned()));
    assert!(lnd.asked.is_empty());
    let next = lnd.commitment(0, 1, Some(600_000));
    assert!(lnd.class(&next).is_ok());
    let ours = lnd.commitment(0, 1, None);
    lnd.is_forbidden(&ours);
    let next = lnd.commitment(0, 2, Some(600_000));
    assert!(lnd.class(&next).is_ok(), "the channel was not closed and goes on");

    let mut lnd = forbid("UpdateChannel", "context has htlcs && context.htlcs > 1");
    lnd.open(0, 0);
    let update = |lnd: &Lnd, htlcs: u64| {
        let mut psbt = lnd.commitment(0, 1, Some(600_000));
        let outputs = &mut psbt.unsigned_tx.output;
        outputs[0].value -= Amount::from_sat(1_000 * htlcs + 660);
        outputs.extend((0..htlcs).map(|_| out(1_000, peer_script())));
        outputs.extend([out(330, peer_script()), out(330, peer_script())]);
        psbt.outputs = vec![Default::default(); psbt.unsigned_tx.output.len()];
        psbt
    };
    let (attack, honest) = (update(&lnd, 2), update(&lnd, 1));
    lnd.is_forbidden(&attack);
    assert!(lnd.class(&honest).is_ok());
}

#[test]
fn htlcs_are_judged_by_size_direction_expiry_and_hash_before_and_after_their_commitment() {
    let hash = hex::encode([5; 20]);
    for (condition, sat) in [
        ("context.htlc_msat > 20000000 && context.direction == \"outgoing\"".to_owned(), 20_000),
        ("context.expires_in_blocks > 100 || context.htlc_msat > 20000000".to_owned(), 20_000),
        (format!("context.expiry_height > {} || context.htlc_msat > 20000000", HEIGHT + 100), 20_000),
        (format!("context.payment_hash160 != \"{hash}\" || context.htlc_msat > 20000000"), 20_000),
        (format!("!([\"{hash}\"].contains(context.payment_hash160)) || context.htlc_msat > 20000000"), 20_000),
    ] {
        let mut lnd = forbid(
            "SignHtlc",
            &condition.replace("context.expires", "context has expires_in_blocks && context.expires"),
        );
        lnd.open(0, 0);
        let state = lnd.commitment(0, 1, Some(600_000));
        let (attack, honest) =
            (states::second_level(&lnd, &state, 1, 1, sat + 1), states::second_level(&lnd, &state, 1, 1, sat));
        lnd.is_forbidden(&attack);
        assert_eq!(lnd.class(&honest), Ok("counterparty-htlc".to_owned()), "{condition}");
        assert_eq!(lnd.fact(FactId::Channel), None, "its commitment was not seen");
        assert!(lnd.class(&state).is_ok());
        lnd = lnd.restarted();
        lnd.is_forbidden(&attack);
        assert!(lnd.class(&honest).is_ok());
        assert_eq!(lnd.fact(FactId::Channel), Some(&Value::Text(funding(0).to_string())));
        assert_eq!(lnd.fact(FactId::ExpiresInBlocks), Some(&Value::Number(100)));
    }
    for forbidden in [
        "context.direction == \"outgoing\"".to_owned(),
        "context has expires_in_blocks && context.expires_in_blocks > 99".to_owned(),
        format!("context.expiry_height > {}", HEIGHT + 99),
        format!("context.payment_hash160 == \"{hash}\""),
        // Only hashes that were approved: this one is not among them.
        format!("!([\"{}\", \"{}\"].contains(context.payment_hash160))", hex::encode([6; 20]), hex::encode([7; 20])),
    ] {
        let mut lnd = forbid("SignHtlc", &forbidden);
        let state = lnd.commitment(0, 1, Some(600_000));
        let attack = states::second_level(&lnd, &state, 1, 1, 20_000);
        lnd.is_forbidden(&attack);
    }
}

#[test]
fn a_channel_with_too_many_unproven_states_takes_no_update_and_one_with_fewer_does() {
    let mut lnd = forbid("UpdateChannel", "context has unproven_states && context.unproven_states >= 3");
    lnd.share(Family::TowerSession as i32, 0, &peer_key(7)).expect("a session");
    lnd.open(0, 3);
    assert_eq!(lnd.fact(FactId::UnprovenStates), Some(&Value::Number(2)), "number 3 takes the place of one more");
    let next = lnd.commitment(0, 4, Some(600_000));
    // States 0, 1 and 2 are of the past.
    lnd.is_forbidden(&next);
    let mut lnd = lnd.restarted();
    lnd.is_forbidden(&next);
}

#[test]
fn what_a_channel_falls_by_is_counted_for_the_channel_and_for_the_node() {
    for (scope, other_channel) in [("channel", Ok(())), ("node", Err(Reason::PolicyBudgetExceeded))] {
        let budget = format!(
            "[[budget]]\nname = \"outflow\"\nactions = [\"UpdateChannel\"]\nfact = \"decrease_msat\"\nscope = [\"{scope}\"]\n\
             window = \"1h\"\nlimit = 50_000_000\n"
        );
        let mut lnd = under("", &budget);
        lnd.open(0, 0);
        lnd.open(1, 0);
        let update = |lnd: &mut Lnd, channel, number, sat| {
            let psbt = lnd.commitment(channel, number, Some(sat));
            lnd.class(&psbt).map(drop)
        };
        assert_eq!(update(&mut lnd, 0, 1, 570_000), Ok(()));
        // Asked again, before and after a restart: counted once. What comes in is not set against it.
        assert_eq!(update(&mut lnd, 0, 1, 570_000), Ok(()));
        lnd = lnd.restarted();
        assert_eq!(update(&mut lnd, 0, 1, 570_000), Ok(()));
        assert_eq!(lnd.spent(), 30_000_000, "{scope}");
        assert_eq!(update(&mut lnd, 0, 2, 590_000), Ok(()));
        // The attack: more than is left, at once or in steps, under the next number or the same one.
        assert_eq!(update(&mut lnd, 0, 3, 569_999), Err(Reason::PolicyBudgetExceeded));
        assert_eq!(update(&mut lnd, 0, 2, 569_999), Err(Reason::PolicyBudgetExceeded));
        assert_eq!(update(&mut lnd, 0, 2, 575_000), Ok(()));
        assert_eq!(update(&mut lnd, 0, 2, 569_999), Err(Reason::PolicyBudgetExceeded));
        assert_eq!(update(&mut lnd, 0, 3, 570_000), Ok(()));
        // Nothing more goes out of it; something may come in.
        assert_eq!(update(&mut lnd, 0, 4, 569_999), Err(Reason::PolicyBudgetExceeded));
        assert_eq!(update(&mut lnd, 0, 4, 580_000), Ok(()));
        assert_eq!(update(&mut lnd, 1, 1, 580_000), other_channel, "{scope}");
    }
}

#[test]
fn a_close_to_an_allowed_address_is_judged_by_it_and_one_to_the_wallet_leaves_nothing() {
    let mut lnd = forbid("CloseChannel", "context.amount_msat > 0");
    lnd.open(0, 1);
    let attack = lnd.close(allowed());
    lnd.is_forbidden(&attack);
    let next = lnd.commitment(0, 2, Some(600_000));
    assert!(lnd.class(&next).is_ok(), "it was not closed");
    let honest = lnd.close(lnd.address(3));
    assert!(lnd.class(&honest).is_ok());
}

#[test]
fn sweeps_are_judged_and_no_rule_keeps_a_penalty_from_being_paid() {
    let mut lnd = forbid("Sweep", "true");
    lnd.open(0, 2);
    let ours = lnd.commitment(0, 2, None);
    assert!(lnd.class(&ours).is_ok());
    assert_eq!(lnd.delayed_sweep(2), Err(Reason::PolicyForbidden));
    // What a penalty spends: the cheat's balance, and ours beside it.
    let secret = SecretKey::from_slice(&[6; 32]).expect("a key");
    let basepoint = lnd.key(Family::RevocationBase, 0);
    let revocation = signing::Tweak::Double(secret).public(&lnd.node.keys, &basepoint).expect("a key");
    let htlc = Htlc {
        revocation_hash: bitcoin::PubkeyHash::hash(&revocation.serialize()).to_byte_array(),
        owner: peer_key(3).serialize(),
        other: peer_key(4).serialize(),
        payment_hash160: [5; 20],
        received_until: None,
        anchors: true,
    };
    let spends = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
    let outputs = vec![out(99_000, lnd.address(1))];
    let unsigned = tx(vec![(spends, 0)], 0, outputs);
    let mut psbt = Psbt::from_unsigned_tx(unsigned.clone()).expect("unsigned");
    let key = (Family::RevocationBase, 0, basepoint);
    channel_input(&mut psbt, 0, 100_000, &htlc.script(), key, EcdsaSighashType::All);
    tweaked(&mut psbt, 0xd0, [6; 32]);
    assert_eq!(lnd.class(&psbt), Ok("justice".to_owned()));
    let basepoint = lnd.key(Family::PaymentBase, 0);
    let mut psbt = Psbt::from_unsigned_tx(Transaction { input: tx(vec![(spends, 1)], 0, vec![]).input, ..unsigned })
        .expect("unsigned");
    let key = (Family::PaymentBase, 0, basepoint);
    channel_input(&mut psbt, 0, 100_000, &to_remote(&basepoint), key, EcdsaSighashType::All);
    assert_eq!(lnd.class(&psbt), Ok("to-remote-sweep".to_owned()));
}

#[test]
fn fees_of_anchors_and_of_the_wallet_are_one_bump() {
    let mut lnd = forbid("BumpFee", "context.fee_msat > 1330000");
    let key = lnd.key(Family::Multisig, 0);
    let script = lightning::ln::chan_utils::get_keyed_anchor_redeemscript(&key);
    let bump = |lnd: &Lnd, fee_sat: u64| {
        let mut psbt = lnd.spend(&[(0, 10_000)], &[10_000], 0, vec![out(10_330 - fee_sat, lnd.address(4))]);
        let anchor = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
        psbt.unsigned_tx.input.insert(0, tx(vec![(anchor, 0)], 0, vec![]).input.remove(0));
        psbt.inputs.insert(0, Default::default());
        psbt.inputs[1].bip32_derivation.clear();
        channel_input(&mut psbt, 0, 330, &script, (Family::Multisig, 0, key), EcdsaSighashType::All);
        psbt
    };
    let (attack, honest) = (bump(&lnd, 1_331), bump(&lnd, 1_330));
    lnd.is_forbidden(&attack);
    assert_eq!(lnd.class(&honest), Ok("anchor-spend".to_owned()));
    let own = lnd.send(vec![out(98_000, lnd.address(5))]);
    lnd.is_forbidden(&own);
}

#[test]
fn words_and_secrets_are_judged_by_their_kind() {
    let key_loc = Some(KeyLocator { key_family: Family::NodeKey as i32, key_index: 0 });
    let text = |text: &str| SignMessageReq {
        msg: [&b"Lightning Signed Message:"[..], text.as_bytes()].concat(),
        key_loc,
        double_hash: true,
        compact_sig: true,
        ..SignMessageReq::default()
    };
    let reason = |result: Result<(Vec<u8>, Vec<Fact>), Refusal>| result.map(drop).map_err(|refusal| refusal.reason);
    let mut lnd = forbid("SignMessage", "context.message_bytes > 5");
    assert_eq!(reason(lnd.ask(Method::SignMessage, &text("hello!"))), Err(Reason::PolicyForbidden));
    assert_eq!(reason(lnd.ask(Method::SignMessage, &text("hello"))), Ok(()));

    let mut lnd = forbid("Ecdh", "!(context has purpose && context.purpose == \"tower\")");
    let share =
        |lnd: &mut Lnd, family: Family| lnd.share(family as i32, 0, &peer_key(7)).map(drop).map_err(|e| e.reason);
    assert_eq!(share(&mut lnd, Family::NodeKey), Err(Reason::PolicyForbidden));
    assert_eq!(share(&mut lnd, Family::TowerSession), Ok(()));
    lnd.open(0, 0);
}
