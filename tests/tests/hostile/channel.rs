//! A channel whose node and peer do as the test says: every commitment is spelled out, the peer signs whatever it is shown.

use bitcoin::secp256k1::{All, PublicKey, Secp256k1, ecdsa};
use bitcoin::{Amount, OutPoint, ScriptBuf};
use claviger::reasons::Reason;
use claviger_ldk::ChannelRef;
use lightning::chain::transaction::OutPoint as FundingOutpoint;
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction, CounterpartyChannelTransactionParameters,
    HTLCOutputInCommitment, make_funding_redeemscript,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use vls_protocol::model::{Basepoints, BitcoinSignature, DisclosedSecret, Htlc, PubKey, Sha256, Signature};
use vls_protocol::msgs::{self, DeBolt, SerBolt};

use crate::thief::{Scene, Thief};

pub(crate) const CHANNEL_SAT: u64 = 1_000_000;
pub(crate) const CONTEST_DELAY: u16 = 144;
pub(crate) const FEERATE: u32 = 1_000;
const ANCHORS_SAT: u64 = 660;
/// BOLT 3 counts commitments backwards from here.
const FIRST: u64 = (1 << 48) - 1;

type Refused = (Reason, String);

/// What a commitment says, as both sides see it. What is left to the funder pays fee and anchors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What is not ours and in no HTLC, in sat.
    pub(crate) to_peer_sat: u64,
    pub(crate) htlcs: Vec<Offer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Offered by us, or by the peer.
    pub(crate) ours: bool,
    pub(crate) amount_sat: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) expiry: u32,
}

impl Terms {
    /// No HTLCs.
    pub(crate) fn to_peer(to_peer_sat: u64) -> Self {
        Self { to_peer_sat, htlcs: Vec::new() }
    }

    pub(crate) fn with(mut self, offer: Offer) -> Self {
        self.htlcs.push(offer);
        self
    }

    fn to_us_sat(&self) -> u64 {
        let fee_sat = (1_124 + 172 * self.htlcs.len() as u64) * u64::from(FEERATE) / 1_000;
        let htlcs_sat: u64 = self.htlcs.iter().map(|offer| offer.amount_sat).sum();
        CHANNEL_SAT - self.to_peer_sat - htlcs_sat - fee_sat - ANCHORS_SAT
    }

    fn wire(&self) -> Vec<Htlc> {
        let htlc = |offer: &Offer| Htlc {
            side: if offer.ours { Htlc::LOCAL } else { Htlc::REMOTE },
            amount: offer.amount_sat * 1_000,
            payment_hash: Sha256(offer.hash),
            ctlv_expiry: offer.expiry,
        };
        self.htlcs.iter().map(htlc).collect()
    }
}

/// A channel that we fund, with anchors. The commitments of both sides have the same number between two advances.
pub(crate) struct Channel<'a> {
    thief: &'a Thief,
    pub(crate) reference: ChannelRef,
    pub(crate) peer: InMemorySigner,
    pub(crate) ours: ChannelPublicKeys,
    pub(crate) funding: OutPoint,
    secp: Secp256k1<All>,
    /// As the peer sees the channel.
    parameters: ChannelTransactionParameters,
    /// The number of the commitments in force.
    pub(crate) number: u64,
    pub(crate) terms: Terms,
}

impl<'a> Channel<'a> {
    /// Opens channel `dbid`, funded and confirmed; all of it is ours.
    pub(crate) fn open(scene: &'a Scene, dbid: u64) -> Self {
        let channel = Self::open_unconfirmed(scene, dbid);
        scene.mine(1);
        channel
    }

    /// The same before its funding transaction is in a block.
    pub(crate) fn open_unconfirmed(scene: &'a Scene, dbid: u64) -> Self {
        let channel = Self::set_up(scene, dbid);
        channel.sign_remote(0, &channel.terms).expect("the first commitment of the peer");
        channel.validate(0, &channel.terms).expect("our first commitment");
        channel
    }

    /// The same before there is a commitment: as far as the messages go that every kind of node sends.
    pub(crate) fn set_up(scene: &'a Scene, dbid: u64) -> Self {
        let (thief, secp) = (&scene.thief, Secp256k1::new());
        let mut keys_id = [0; 32];
        keys_id[..8].copy_from_slice(&dbid.to_be_bytes());
        let peer = KeysManager::new(&[0x42; 32], 0, 0, true).derive_channel_keys(&keys_id);
        let theirs = peer.pubkeys(&secp);
        let peer_id = theirs.funding_pubkey.serialize(); // any point does; this one is at hand
        let reference = ChannelRef { peer_id, dbid };
        let _: msgs::NewChannelReply = thief.answered(None, &msgs::NewChannel { peer_id: PubKey(peer_id), dbid });
        let ask_basepoints = msgs::GetChannelBasepoints { node_id: PubKey(peer_id), dbid };
        let ours = public_keys(&thief.answered(None, &ask_basepoints));
        let script = make_funding_redeemscript(&ours.funding_pubkey, &theirs.funding_pubkey).to_p2wsh();
        let tx = scene.fund(&script, Amount::from_sat(CHANNEL_SAT));
        let funding = OutPoint { txid: tx.compute_txid(), vout: 0 };
        let _: msgs::SetupChannelReply = thief.answered(Some(reference), &setup(&theirs, funding));
        let parameters = parameters(theirs, ours.clone(), funding);
        Self { thief, reference, peer, ours, funding, secp, parameters, number: 0, terms: Terms::to_peer(0) }
    }

    /// Moves both sides on to `terms`, or as far as the signer lets us.
    pub(crate) fn advance(&mut self, terms: Terms) -> Result<(), Refused> {
        let new = self.number + 1;
        self.sign_remote(new, &terms)?;
        self.validate(new, &terms)?;
        self.revoke(self.number)?;
        self.peer_revokes(self.number)?;
        (self.number, self.terms) = (new, terms);
        Ok(())
    }

    /// Has the signer sign the peer's commitment `number`.
    pub(crate) fn sign_remote(&self, number: u64, terms: &Terms) -> Result<(), Refused> {
        self.ask::<msgs::SignCommitmentTxWithHtlcsReply>(&self.remote_commitment(number, terms)).map(drop)
    }

    /// The message that has it signed.
    pub(crate) fn remote_commitment(&self, number: u64, terms: &Terms) -> msgs::SignRemoteCommitmentTx2 {
        let theirs = self.peer.get_per_commitment_point(FIRST - number, &self.secp).unwrap();
        msgs::SignRemoteCommitmentTx2 {
            remote_per_commitment_point: PubKey(theirs.serialize()),
            commitment_number: number,
            feerate: FEERATE,
            to_local_value_sat: terms.to_us_sat(),
            to_remote_value_sat: terms.to_peer_sat,
            htlcs: terms.wire().into(),
        }
    }

    /// Has the signer validate our commitment `number`, signed by the peer.
    pub(crate) fn validate(&self, number: u64, terms: &Terms) -> Result<(), Refused> {
        let commitment = self.commitment(number, terms);
        let (signature, of_htlcs) = self
            .peer
            .sign_counterparty_commitment(&self.parameters, &commitment, Vec::new(), Vec::new(), &self.secp)
            .unwrap();
        let wire = |signature: ecdsa::Signature, sighash| BitcoinSignature {
            signature: Signature(signature.serialize_compact()),
            sighash,
        };
        let message = msgs::ValidateCommitmentTx2 {
            commitment_number: number,
            feerate: FEERATE,
            to_local_value_sat: terms.to_us_sat(),
            to_remote_value_sat: terms.to_peer_sat,
            htlcs: terms.wire().into(),
            signature: wire(signature, 0x01),
            htlc_signatures: of_htlcs.into_iter().map(|s| wire(s, 0x83)).collect::<Vec<_>>().into(),
        };
        self.ask::<msgs::ValidateCommitmentTxReply>(&message).map(drop)
    }

    /// Our commitment `number`.
    pub(crate) fn commitment(&self, number: u64, terms: &Terms) -> CommitmentTransaction {
        let point = self.point(number).unwrap();
        let htlc = |offer: &Offer| HTLCOutputInCommitment {
            offered: offer.ours,
            amount_msat: offer.amount_sat * 1_000,
            cltv_expiry: offer.expiry,
            payment_hash: PaymentHash(offer.hash),
            transaction_output_index: None,
        };
        CommitmentTransaction::new(
            FIRST - number,
            &point,
            terms.to_us_sat(),
            terms.to_peer_sat,
            FEERATE,
            terms.htlcs.iter().map(htlc).collect(),
            &self.parameters.as_counterparty_broadcastable(),
            &self.secp,
        )
    }

    /// Takes our secret of commitment `number` from the signer.
    pub(crate) fn revoke(&self, number: u64) -> Result<[u8; 32], Refused> {
        let reply =
            self.ask::<msgs::RevokeCommitmentTxReply>(&msgs::RevokeCommitmentTx { commitment_number: number })?;
        Ok(reply.old_commitment_secret.0)
    }

    /// Shows the signer the peer's secret of commitment `number`.
    pub(crate) fn peer_revokes(&self, number: u64) -> Result<(), Refused> {
        let secret = self.peer.release_commitment_secret(FIRST - number).unwrap();
        let message =
            msgs::ValidateRevocation { commitment_number: number, commitment_secret: DisclosedSecret(secret) };
        self.ask::<msgs::ValidateRevocationReply>(&message).map(drop)
    }

    /// Tells the signer a preimage, as `claviger-ldk` does before the commitment that settles its payment.
    pub(crate) fn learn(&self, preimage: [u8; 32]) {
        let message = [&3000u16.to_be_bytes()[..], &1u16.to_be_bytes(), &preimage].concat();
        self.thief.send(Some(self.reference), message).expect("a preimage is welcome");
    }

    /// Has our commitment `number` signed, to close the channel with.
    pub(crate) fn force_close(&self, number: u64) -> Result<(), Refused> {
        let message = msgs::SignLocalCommitmentTx2 { commitment_number: number };
        self.ask::<msgs::SignCommitmentTxReply>(&message).map(drop)
    }

    /// Has the end of the channel signed together with the peer: what is ours to our wallet, the rest to `theirs`.
    pub(crate) fn mutual_close(&self, to_us_sat: u64, to_peer_sat: u64, theirs: ScriptBuf) -> Result<(), Refused> {
        let ours = crate::sweeps::p2wpkh(&self.thief.wallet_key(1));
        let message = msgs::SignMutualCloseTx2 {
            to_local_value_sat: to_us_sat,
            to_remote_value_sat: to_peer_sat,
            local_script: ours.into_bytes().into(),
            remote_script: theirs.into_bytes().into(),
            local_wallet_path_hint: vec![1].into(),
        };
        self.ask::<msgs::SignTxReply>(&message).map(drop)
    }

    /// Our point of commitment `number`.
    pub(crate) fn point(&self, number: u64) -> Result<PublicKey, Refused> {
        let message = msgs::GetPerCommitmentPoint2 { commitment_number: number };
        let reply = self.ask::<msgs::GetPerCommitmentPoint2Reply>(&message)?;
        Ok(PublicKey::from_slice(&reply.point.0).unwrap())
    }

    /// Asks about this channel.
    pub(crate) fn ask<R: DeBolt>(&self, message: &dyn SerBolt) -> Result<R, Refused> {
        self.thief.ask(Some(self.reference), message)
    }
}

fn public_keys(reply: &msgs::GetChannelBasepointsReply) -> ChannelPublicKeys {
    let key = |key: &PubKey| PublicKey::from_slice(&key.0).unwrap();
    ChannelPublicKeys {
        funding_pubkey: key(&reply.funding),
        revocation_basepoint: key(&reply.basepoints.revocation).into(),
        payment_point: key(&reply.basepoints.payment),
        delayed_payment_basepoint: key(&reply.basepoints.delayed_payment).into(),
        htlc_basepoint: key(&reply.basepoints.htlc).into(),
    }
}

pub(crate) fn features() -> ChannelTypeFeatures {
    let mut features = ChannelTypeFeatures::empty();
    features.set_static_remote_key_required();
    features.set_anchors_zero_fee_htlc_tx_required();
    features
}

fn setup(theirs: &ChannelPublicKeys, funding: OutPoint) -> msgs::SetupChannel {
    msgs::SetupChannel {
        is_outbound: true,
        channel_value: CHANNEL_SAT,
        push_value: 0,
        funding_txid: funding.txid,
        funding_txout: funding.vout as u16,
        to_self_delay: CONTEST_DELAY,
        local_shutdown_script: Vec::new().into(),
        local_shutdown_wallet_index: None,
        remote_basepoints: Basepoints {
            revocation: PubKey(theirs.revocation_basepoint.0.serialize()),
            payment: PubKey(theirs.payment_point.serialize()),
            htlc: PubKey(theirs.htlc_basepoint.0.serialize()),
            delayed_payment: PubKey(theirs.delayed_payment_basepoint.0.serialize()),
        },
        remote_funding_pubkey: PubKey(theirs.funding_pubkey.serialize()),
        remote_to_self_delay: CONTEST_DELAY,
        remote_shutdown_script: Vec::new().into(),
        // As BOLT 2 writes it: big endian.
        channel_type: features().le_flags().iter().rev().copied().collect::<Vec<u8>>().into(),
    }
}

fn parameters(theirs: ChannelPublicKeys, ours: ChannelPublicKeys, funding: OutPoint) -> ChannelTransactionParameters {
    ChannelTransactionParameters {
        holder_pubkeys: theirs,
        holder_selected_contest_delay: CONTEST_DELAY,
        is_outbound_from_holder: false,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: ours,
            selected_contest_delay: CONTEST_DELAY,
        }),
        funding_outpoint: Some(FundingOutpoint { txid: funding.txid, index: funding.vout as u16 }),
        splice_parent_funding_txid: None,
        channel_type_features: features(),
        channel_value_satoshis: CHANNEL_SAT,
    }
}
