//! What the wallet of a frozen node still does: it adds fees to claims and anchors, and sends nothing (docs/doctor.md).

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use lightning::ln::chan_utils::get_keyed_anchor_redeemscript;
use vls_protocol::model::{PubKey, Utxo};
use vls_protocol::msgs::{self, SerBolt};
use vls_protocol::psbt::StreamedPSBT;
use vls_protocol::serde_bolt::{Array, WithSize};

use super::onchain::{stranger, taproot, wallet_coin, wallet_key, withdrawal};
use super::operator::order;
use super::*;
use crate::facts::{Fact, Unit};
use crate::lightning::driver::{invoice_to_pay, keysend};
use crate::lightning::orders::Order;
use crate::reasons::Reason;

const FEE_SAT: u64 = 1_000;
const CLAIM_SAT: u64 = 30_000;
const ANCHOR_SAT: u64 = 330;

/// A node with a channel; `allow` are its allowed addresses.
struct Scene {
    signer: Signer,
    alice: NodeName,
    driver: Driver,
    key: PublicKey,
}

impl Scene {
    fn new(allow: &[&str]) -> Self {
        let limits = LimitsConfig {
            max_onchain_sat: 500_000,
            max_onchain_sat_per_day: 5_000_000,
            allow: allow.iter().map(ToString::to_string).collect(),
            ..LimitsConfig::default()
        };
        let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
        let alice = signer.add("alice", NodeKind::Ldk);
        let driver = signer.channel(&alice, 1);
        let key = wallet_key(&signer, &alice, 1);
        Self { signer, alice, driver, key }
    }

    fn ask(&self, message: Vec<u8>) -> Result<(), Refusal> {
        match self.signer.ask(&self.alice, None, message) {
            Outcome::Reply(_) => Ok(()),
            Outcome::Refused { refusal, .. } => Err(refusal),
        }
    }

    /// An HTLC's second-level transaction with a coin of the wallet's, which pays `sent_sat` beside it.
    fn claim(&self, sent_sat: u64) -> Vec<u8> {
        let claimed = TxOut { value: Amount::from_sat(CLAIM_SAT), script_pubkey: stranger().to_p2wsh() };
        let (utxos, psbt) = self.with_coin(claimed.clone(), vec![claimed], sent_sat);
        let channel = self.driver.channel();
        msgs::SignHtlcTxMingle { peer_id: PubKey(channel.peer_id), dbid: channel.dbid, utxos, psbt }.as_vec()
    }

    /// A spend of our anchor with a coin of the wallet's, which pays `sent_sat` beside it.
    fn bump(&self, sent_sat: u64) -> Vec<u8> {
        let script_pubkey = get_keyed_anchor_redeemscript(&self.driver.funding_keys()[0]).to_p2wsh();
        let anchor = TxOut { value: Amount::from_sat(ANCHOR_SAT), script_pubkey };
        let (utxos, psbt) = self.with_coin(anchor, Vec::new(), sent_sat);
        let channel = self.driver.channel();
        msgs::SignAnchorspend { peer_id: PubKey(channel.peer_id), dbid: channel.dbid, utxos, psbt }.as_vec()
    }

    /// A transaction that spends `foreign` and a proven coin of the wallet's, and pays `outputs`, `sent_sat` to a
    /// stranger, and the rest back but for the fee.
    fn with_coin(
        &self,
        foreign: TxOut,
        mut outputs: Vec<TxOut>,
        sent_sat: u64,
    ) -> (Array<Utxo>, WithSize<StreamedPSBT>) {
        let out = |sat, script_pubkey: ScriptBuf| TxOut { value: Amount::from_sat(sat), script_pubkey };
        let made = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn::default()],
            output: vec![out(200_000, taproot(self.key))],
        };
        let coin = OutPoint { txid: made.compute_txid(), vout: 0 };
        outputs.extend((sent_sat > 0).then(|| out(sent_sat, stranger())));
        let change = outputs.len();
        outputs.push(out(200_000 - FEE_SAT - sent_sat, taproot(self.key)));
        let spent = [OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 }, coin];
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: spent.map(|previous_output| TxIn { previous_output, ..TxIn::default() }).to_vec(),
            output: outputs,
        };
        let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
        psbt.inputs[0].witness_utxo = Some(foreign);
        psbt.inputs[1].witness_utxo = Some(made.output[0].clone());
        psbt.inputs[1].non_witness_utxo = Some(made);
        let path: DerivationPath = vec![ChildNumber::from_normal_idx(1).expect("an index")].into();
        psbt.outputs[change].bip32_derivation.insert(self.key, (Fingerprint::default(), path));
        (vec![wallet_coin(coin)].into(), WithSize(StreamedPSBT::new(psbt)))
    }
}

#[test]
fn hostile_sends_of_a_frozen_wallet_are_refused_wherever_they_go_and_honest_fees_are_paid() {
    for allow in [&[][..], &["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"]] {
        let scene = Scene::new(allow);
        // The twin: what is stopped below passes while nothing is frozen.
        for message in [scene.claim(10_000), scene.bump(10_000), withdrawal(scene.key, 1, 10_000, 189_000)] {
            assert_eq!(scene.ask(message), Ok(()), "{allow:?}");
        }
        order(&scene.signer, &scene.alice, Order::Freeze(None)).expect("frozen");
        // An anchor brings a little in, which may be passed on.
        for (message, sent_sat) in [(scene.claim(10_001), 10_001), (scene.bump(10_001), 10_001 - ANCHOR_SAT)] {
            let refusal = scene.ask(message).expect_err("it sends");
            assert_eq!(refusal.reason, Reason::Frozen, "{allow:?}: {}", refusal.detail);
            assert!(
                refusal.facts.contains(&Fact::number("onchain_send", sent_sat, Unit::Sat).at_most(0)),
                "{refusal:?}"
            );
        }
        for message in [
            withdrawal(scene.key, 2, 10_000, 189_000),
            withdrawal(scene.key, 2, 0, 199_000),
            keysend(1, 0),
            invoice_to_pay(2, 1),
        ] {
            assert_eq!(scene.ask(message).expect_err("it sends").reason, Reason::Frozen, "{allow:?}");
        }
        assert_eq!(scene.ask(scene.claim(0)), Ok(()), "{allow:?}");
        assert_eq!(scene.ask(scene.bump(0)), Ok(()), "{allow:?}");
    }
}

#[test]
fn a_freeze_of_a_channel_does_not_stop_the_wallet() {
    let scene = Scene::new(&[]);
    order(&scene.signer, &scene.alice, Order::Freeze(Some(scene.driver.channel().into()))).expect("frozen");
    for message in [scene.claim(10_000), scene.bump(10_000), withdrawal(scene.key, 1, 10_000, 189_000)] {
        assert_eq!(scene.ask(message), Ok(()));
    }
}
