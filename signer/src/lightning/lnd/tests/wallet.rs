//! Coins of the wallet, and outputs that may fund channels.

use super::*;

#[test]
fn hostile_amounts_are_found_out_before_the_last_input_is_signed() {
    let coins = [(0, 40_000), (1, 5_000_000)];
    let outputs = |lnd: &Lnd| vec![out(39_000, lnd.address(5))];
    // Input 0 is signed with a lie about input 1, which must then hold as little when it is signed itself.
    let mut lnd = Lnd::new();
    let first = lnd.spend(&coins, &[40_000, 1_000], 0, outputs(&lnd));
    assert!(lnd.class(&first).is_ok(), "one signature spends nothing");
    let last = lnd.spend(&coins, &[40_000, 5_000_000], 1, outputs(&lnd));
    assert_eq!(lnd.class(&last), Err(Reason::CoinAmount));
    let lies = lnd.spend(&coins, &[1, 5_000_000], 1, outputs(&lnd));
    assert_eq!(lnd.class(&lies), Err(Reason::CoinAmount), "input 0 was signed with another amount");
    // Nor is there a way around the proof.
    let mut lnd = Lnd::new();
    assert_eq!(lnd.class(&last), Err(Reason::Limit), "the truth is too much for a fee");
    let mut unproven = last.clone();
    unproven.inputs[1].non_witness_utxo = None;
    assert_eq!(lnd.class(&unproven), Err(Reason::CoinUnproven));
    let mut other = lnd.spend(&coins, &[40_000, 1_000], 1, outputs(&lnd));
    assert_eq!(lnd.class(&other), Err(Reason::CoinAmount), "the coin's own transaction says otherwise");
    other.inputs[1].non_witness_utxo = Some(lnd.coin(0, 1).1);
    assert_eq!(lnd.class(&other), Err(Reason::CoinAmount));
    // The honest twin.
    let honest = |lnd: &Lnd| vec![out(5_039_000, lnd.address(5))];
    for at in [0, 1] {
        let psbt = lnd.spend(&coins, &[40_000, 5_000_000], at, honest(&lnd));
        assert_eq!(lnd.class(&psbt), Ok("wallet-spend".to_owned()));
    }
}

#[test]
fn the_wallet_pays_others_within_the_limits_and_itself_without() {
    let send = |sat: u64, change: u64, index: u32, lnd: &mut Lnd| {
        let outputs =
            vec![out(sat, ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros())), out(change, lnd.address(8))];
        let psbt = lnd.spend(&[(index, 1_000_000)], &[1_000_000], 0, outputs);
        let first = lnd.class(&psbt);
        assert_eq!(lnd.class(&psbt), first, "asked again and counted once");
        first
    };
    let mut lnd = Lnd::new();
    assert_eq!(send(50_001, 940_000, 0, &mut lnd), Err(Reason::Limit));
    assert!(send(50_000, 940_000, 0, &mut lnd).is_ok());
    assert_eq!(send(10_001, 980_000, 1, &mut lnd), Err(Reason::Limit), "the day is full");
    assert!(send(10_000, 980_000, 1, &mut lnd).is_ok());
    assert_eq!(send(600, 1_000, 2, &mut lnd), Err(Reason::Limit), "the fee is a million");
    let own = vec![out(999_000, lnd.address(300))];
    let psbt = lnd.spend(&[(3, 1_000_000)], &[1_000_000], 0, own);
    assert_eq!(lnd.class(&psbt), Err(Reason::Limit), "nobody knows an address this far ahead");
    let psbt = lnd.spend(&[(200, 1_000_000)], &[1_000_000], 0, vec![out(999_000, lnd.address(300))]);
    assert!(lnd.class(&psbt).is_ok(), "a coin that was spent shows how far lnd has come");
}

#[test]
fn a_key_of_the_wallet_signs_for_its_own_coin_only() {
    let mut lnd = Lnd::new();
    let honest = lnd.spend(&[(0, 10_000)], &[10_000], 0, vec![out(9_000, lnd.address(1))]);
    let key = lnd.node.keys.public(KeyPath::Wallet(Purpose::Witness, Chain::External, 0));
    for script in [make_funding_redeemscript(&key, &peer_key(3)), to_remote(&key)] {
        let mut psbt = honest.clone();
        psbt.inputs[0].non_witness_utxo = None;
        psbt.inputs[0].witness_utxo = Some(out(10_000, script.to_p2wsh()));
        psbt.inputs[0].witness_script = Some(script);
        assert_eq!(lnd.class(&psbt), Err(Reason::KeyPurpose));
    }
    assert!(lnd.class(&honest).is_ok());
}

#[test]
fn outputs_that_may_fund_channels_fill_a_bucket_that_first_commitments_empty() {
    let mut lnd = Lnd::new();
    let limit_sat = settings().limits.max_unproven_funding_sat;
    let fund = |lnd: &mut Lnd, index: u32, sat: u64| {
        let coin_sat = sat + FEE_SAT;
        let outputs = vec![out(sat, lnd.funding_script(index).to_p2wsh())];
        let psbt = lnd.spend(&[(index, coin_sat)], &[coin_sat], 0, outputs);
        lnd.class(&psbt).map(|_| OutPoint { txid: psbt.unsigned_tx.compute_txid(), vout: 0 })
    };
    let point = fund(&mut lnd, 0, CAPACITY_SAT).expect("there is room");
    assert!(fund(&mut lnd, 1, limit_sat - CAPACITY_SAT).is_ok());
    lnd = lnd.restarted();
    assert_eq!(fund(&mut lnd, 2, 60_000), Err(Reason::Limit), "full, and more than a send may be");
    // The first commitment shows that it is a channel, and ours.
    lnd.reserve(0, 1).expect("ours");
    let mut commitment = lnd.commitment(0, 0, Some(990_000));
    commitment.unsigned_tx.input[0].previous_output = point;
    assert!(lnd.class(&commitment).is_ok());
    assert!(fund(&mut lnd, 2, 60_000).is_ok());
}
