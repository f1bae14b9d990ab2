//! Not compiled in: attacks whose rules are not merged yet.

// sweeps.rs, with `use crate::reasons::HTLC_UNKNOWN;`
#[test]
fn hostile_an_htlc_of_no_commitment_is_not_claimed() {
    let scene = crate::value::scene();
    let (channel, offer, tx) = received(&scene);
    channel.force_close(channel.number).expect("in force");
    let refused = |message: msgs::SignLocalHtlcTx2, why| {
        let reply = channel.ask::<msgs::SignTxReply>(&message);
        assert_eq!(reply.map(drop).expect_err(why).0, HTLC_UNKNOWN, "{why}");
    };
    let other = Offer { hash: [0x78; 32], ..offer };
    refused(sign(&tx, channel.number, &other), "no HTLC has this hash");
    refused(sign(&tx, channel.number - 1, &offer), "not on this commitment");
    let mut elsewhere = tx.clone();
    elsewhere.input[0].previous_output.txid = Txid::all_zeros();
    refused(sign(&elsewhere, channel.number, &offer), "not an output of the commitment");
    let mut abroad = tx.clone();
    abroad.output[0].script_pubkey = stranger();
    refused(sign(&abroad, channel.number, &offer), "to a stranger");
}

