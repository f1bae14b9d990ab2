//! Channels that were opened before lnd's keys came here.

use bitcoin::consensus::encode::serialize;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::sha256;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::*;
use crate::lightning::lnd::adopt::{AdoptError, BackupError};
use crate::lightning::lnd::scripts::{delayed_script, funding_script};
use crate::lightning::lnd::signing::revocation_key;

const NUMBER: u64 = 41;
const DELAY: u16 = 144;

/// What lnd writes of one channel. Each field can be changed by an attack.
#[derive(Clone)]
struct Backup {
    version: u8,
    is_initiator: bool,
    network: Network,
    funding: OutPoint,
    capacity_sat: u64,
    /// Indices of our keys: funding, revocation, payment, delay, HTLC, and the root of the secrets.
    ours: [u32; 6],
    theirs: [PublicKey; 5],
    old_secrets: bool,
    /// Signs our commitment.
    signer: SecretKey,
    /// By which keys the commitment is made.
    made_by: Option<[u32; 6]>,
    pays_us_sat: u64,
    /// What else the commitment pays.
    also_sat: Vec<u64>,
}

impl Backup {
    fn honest() -> Self {
        Self {
            version: 3 | 0x80,
            is_initiator: true,
            network: Network::Regtest,
            funding: funding(4),
            capacity_sat: CAPACITY_SAT,
            // The root's index differs: lnd counts it by itself.
            ours: [4, 4, 4, 4, 4, 5],
            theirs: [3, 13, 23, 33, 43].map(peer_key),
            old_secrets: false,
            signer: SecretKey::from_slice(&[3; 32]).expect("a key"),
            made_by: None,
            pays_us_sat: 600_000,
            also_sat: Vec::new(),
        }
    }

    /// BOLT 3's number, hidden by the payment base points.
    fn mask(&self, lnd: &Lnd) -> u64 {
        let ours = lnd.key(Family::PaymentBase, self.made_by.unwrap_or(self.ours)[2]);
        let keys = if self.is_initiator { [ours, self.theirs[2]] } else { [self.theirs[2], ours] };
        let hash = sha256::Hash::hash(&keys.map(|key| key.serialize()).concat()).to_byte_array();
        hash[26..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// Our newest commitment, and the counterparty's signature.
    fn commitment(&self, lnd: &Lnd) -> (Transaction, Vec<u8>) {
        let made_by = self.made_by.unwrap_or(self.ours);
        let root_key = lnd.node.keys.secret(KeyPath::Channel(Family::RevocationRoot, made_by[5]));
        let root = SharedSecret::new(&lnd.key(Family::Multisig, made_by[0]), &root_key);
        let secret = lightning::ln::chan_utils::build_commitment_secret(&root.secret_bytes(), (1 << 48) - 1 - NUMBER);
        let secp = Secp256k1::new();
        let point = SecretKey::from_slice(&secret).expect("a key").public_key(&secp);
        let basepoint = lnd.key(Family::DelayBase, made_by[3]);
        let scalar = Scalar::from_be_bytes(tweak(&point, &basepoint)).expect("a scalar");
        let delayed = basepoint.add_exp_tweak(&secp, &scalar).expect("a key");
        let revocation = revocation_key(&secp, &self.theirs[1], &point).expect("a key");
        let ours = delayed_script(&revocation, DELAY.into(), &delayed).to_p2wsh();
        let obscured = NUMBER ^ self.mask(lnd);
        let (sequence, lock_time) = (0x80 << 24 | (obscured >> 24) as u32, 0x20 << 24 | (obscured & 0xff_ffff) as u32);
        let mut outputs = vec![out(self.capacity_sat - FEE_SAT - self.pays_us_sat, peer_script())];
        if self.pays_us_sat > 0 {
            outputs.push(out(self.pays_us_sat, ours));
        }
        outputs.extend(self.also_sat.iter().map(|also_sat| out(*also_sat, peer_script())));
        let tx = tx(vec![(self.funding, sequence)], lock_time, outputs);
        let script = funding_script(&lnd.key(Family::Multisig, made_by[0]), &peer_key(3));
        let amount = Amount::from_sat(CAPACITY_SAT);
        let digest = SighashCache::new(&tx).p2wsh_signature_hash(0, &script, amount, EcdsaSighashType::All);
        let digest = Digest::from_digest(digest.expect("a digest").to_byte_array());
        let signature = secp.sign_ecdsa(&digest, &self.signer).serialize_der().to_vec();
        (tx, signature)
    }

    /// As lnd writes it.
    fn plain(&self, lnd: &Lnd) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_initiator)];
        bytes.extend(ChainHash::using_genesis_block_const(self.network).to_bytes());
        bytes.extend(self.funding.txid.to_byte_array());
        bytes.extend((self.funding.vout as u16).to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(peer_key(50).serialize());
        bytes.extend([0, 7, 1, 127, 0, 0, 1, 0x26, 0x07]); // an IPv4 address
        bytes.extend(self.capacity_sat.to_be_bytes());
        bytes.extend(DELAY.to_be_bytes());
        for (family, index) in [0u32, 1, 3, 4, 2].into_iter().zip(self.ours) {
            bytes.extend(family.to_be_bytes());
            bytes.extend(index.to_be_bytes());
        }
        bytes.extend([0, 200]);
        self.theirs.iter().for_each(|key| bytes.extend(key.serialize()));
        bytes.extend([u8::from(self.old_secrets) * 2; 33]);
        bytes.extend(5u32.to_be_bytes());
        bytes.extend(self.ours[5].to_be_bytes());
        if self.version & 0x80 != 0 {
            let (tx, signature) = self.commitment(lnd);
            bytes.extend(serialize(&tx));
            bytes.extend((signature.len() as u16).to_be_bytes());
            bytes.extend(signature);
        }
        [&[self.version][..], &(bytes.len() as u16).to_be_bytes(), &bytes].concat()
    }

    fn sealed(&self, lnd: &Lnd) -> Vec<u8> {
        seal(lnd, &[&[0][..], &1u32.to_be_bytes(), &self.plain(lnd)].concat())
    }
}

fn seal(lnd: &Lnd, plain: &[u8]) -> Vec<u8> {
    let key = sha256::Hash::hash(&lnd.key(Family::BaseEncryption, 0).serialize()).to_byte_array();
    let nonce = [8; 24];
    let payload = Payload { msg: plain, aad: &nonce };
    let sealed = XChaCha20Poly1305::new(&key.into()).encrypt(&XNonce::from(nonce), payload).expect("sealed");
    [&nonce[..], &sealed].concat()
}

impl Lnd {
    fn adopt(&mut self, backup: &[u8]) -> Result<Adopted, BackupError> {
        let (adopted, puts) = self.node.adopt(backup)?;
        for put in puts {
            match put.value {
                Some(value) => self.entries.insert(put.key, value),
                None => self.entries.remove(&put.key),
            };
        }
        Ok(adopted)
    }

    /// A commitment of the counterparty of the adopted channel.
    fn next(&self, backup: &Backup, number: u64, ours_sat: Option<u64>) -> Psbt {
        let mut psbt = self.commitment(4, number, ours_sat);
        let obscured = number ^ backup.mask(self);
        psbt.unsigned_tx.input[0].sequence = Sequence(0x80 << 24 | (obscured >> 24) as u32);
        psbt.unsigned_tx.lock_time = LockTime::from_consensus(0x20 << 24 | (obscured & 0xff_ffff) as u32);
        psbt
    }
}

#[test]
fn a_channel_from_before_goes_on_with_its_numbers_and_its_balance() {
    for is_initiator in [true, false] {
        let mut lnd = Lnd::new();
        let backup = Backup { is_initiator, ..Backup::honest() };
        let next = lnd.next(&backup, NUMBER + 1, Some(600_000));
        assert_eq!(lnd.class(&next), Err(Reason::ChannelUnknown), "as it was before");
        let adopted = lnd.adopt(&backup.sealed(&lnd)).expect("its own backup");
        assert_eq!(adopted, Adopted { adopted: vec![funding(4)], ..Default::default() });
        let again = lnd.adopt(&backup.sealed(&lnd)).expect("its own backup");
        assert_eq!(again, Adopted { known: vec![funding(4)], ..Default::default() });
        lnd = lnd.restarted();
        let shown = lnd.shown(4);
        assert_eq!(shown.peer, Some(peer_key(50)), "as the backup says");
        let balance = shown.counterparty.expect("a side").balance.expect("a balance");
        assert_eq!((balance.ours_sat, balance.theirs_sat), (600_000, 400_000));
        // The peer may be some updates ahead or behind; from then on one follows the other.
        let far = lnd.next(&backup, NUMBER + 2_000, Some(600_000));
        assert_eq!(lnd.class(&far), Err(Reason::CommitmentOrder));
        let next = lnd.next(&backup, NUMBER + 7, Some(590_000));
        assert_eq!(lnd.class(&next), Ok("counterparty-commitment".to_owned()));
        let skips = lnd.next(&backup, NUMBER + 9, Some(590_000));
        assert_eq!(lnd.class(&skips), Err(Reason::CommitmentOrder));
        let follows = lnd.next(&backup, NUMBER + 8, Some(590_000));
        assert!(lnd.class(&follows).is_ok());
        let ours = lnd.next(&backup, NUMBER, None);
        assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
    }
}

#[test]
fn a_channel_from_before_closes_at_once_and_pays_us_what_we_own() {
    let closes = |ours_sat: u64| {
        let mut lnd = Lnd::new();
        let backup = Backup::honest();
        lnd.adopt(&backup.sealed(&lnd)).expect("its own backup");
        let outputs = vec![out(CAPACITY_SAT - FEE_SAT - ours_sat, peer_script()), out(ours_sat, lnd.address(1))];
        let close = lnd.funding_spend(4, 0xffff_ffff, 0, outputs);
        lnd.class(&close)
    };
    assert_eq!(closes(598_999), Err(Reason::CloseValue));
    assert_eq!(closes(600_000), Ok("mutual-close".to_owned()));
}

#[test]
fn hostile_backups_do_not_open_and_their_channels_are_not_taken_over() {
    let mut lnd = Lnd::new();
    let honest = Backup::honest();
    let sealed = honest.sealed(&lnd);
    for at in [0, 23, 24, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(lnd.adopt(&changed), Err(BackupError::Sealed), "{at}");
    }
    for len in [0, 23, 24, 40, sealed.len() - 1] {
        assert_eq!(lnd.adopt(&sealed[..len]), Err(BackupError::Sealed), "{len}");
    }
    let plain = [&[0][..], &1u32.to_be_bytes(), &honest.plain(&lnd)].concat();
    for len in 0..plain.len() {
        let cut = seal(&lnd, &plain[..len]);
        assert_eq!(lnd.adopt(&cut), Err(BackupError::Malformed), "{len}");
    }
    assert_eq!(lnd.adopt(&seal(&lnd, &[&plain[..], &[0]].concat())), Err(BackupError::Malformed));
    assert_eq!(lnd.adopt(&seal(&lnd, &[1, 0, 0, 0, 0])), Err(BackupError::Version(1)));
    let many = [&[0][..], &u32::MAX.to_be_bytes(), &honest.plain(&lnd)].concat();
    assert_eq!(lnd.adopt(&seal(&lnd, &many)), Err(BackupError::Malformed));

    let thief = SecretKey::from_slice(&[66; 32]).expect("a key");
    let thief_key = thief.public_key(&Secp256k1::new());
    let [_, revocation, payment, delay, htlc] = honest.theirs;
    let made_by = Some(honest.ours);
    for (attack, error) in [
        (Backup { version: 0x80, ..honest.clone() }, AdoptError::Type(0)),
        (Backup { version: 4 | 0x80, ..honest.clone() }, AdoptError::Type(4)),
        (Backup { version: 5 | 0x80, ..honest.clone() }, AdoptError::Type(5)),
        (Backup { version: 3, ..honest.clone() }, AdoptError::NoCommitment),
        (Backup { network: Network::Bitcoin, ..honest.clone() }, AdoptError::Chain),
        (Backup { old_secrets: true, ..honest.clone() }, AdoptError::OldSecrets),
        // A channel that the counterparty does not know.
        (Backup { signer: thief, ..honest.clone() }, AdoptError::Unsigned),
        (Backup { capacity_sat: CAPACITY_SAT + 1, ..honest.clone() }, AdoptError::Unsigned),
        // Our channel with somebody else in it, or with other keys of ours, or other secrets.
        (Backup { theirs: [thief_key, revocation, payment, delay, htlc], ..honest.clone() }, AdoptError::Unsigned),
        (Backup { ours: [3, 4, 4, 4, 4, 5], made_by, ..honest.clone() }, AdoptError::Unsigned),
        (Backup { ours: [4, 4, 5, 4, 4, 5], made_by, ..honest.clone() }, AdoptError::OtherKeys),
        (Backup { ours: [4, 4, 4, 5, 4, 5], made_by, ..honest.clone() }, AdoptError::OtherKeys),
        (Backup { ours: [4, 4, 4, 4, 4, 6], made_by, ..honest.clone() }, AdoptError::OtherKeys),
        (Backup { also_sat: vec![FEE_SAT + 1], ..honest.clone() }, AdoptError::Overspent),
        (Backup { also_sat: vec![u64::MAX, 2], ..honest.clone() }, AdoptError::Overspent),
        (Backup { ours: [4, 4, 4, 4, 4, 1 << 25], made_by, ..honest.clone() }, AdoptError::Malformed),
    ] {
        let adopted = lnd.adopt(&attack.sealed(&lnd)).expect("it opens");
        assert_eq!(adopted.refused, [(funding(4), error)]);
        assert!(adopted.adopted.is_empty() && adopted.known.is_empty());
    }
    // A funding key is one channel's.
    lnd.open(3, 0);
    let attack = Backup { ours: [3, 4, 4, 4, 4, 5], ..honest.clone() };
    let adopted = lnd.adopt(&attack.sealed(&lnd)).expect("it opens");
    assert_eq!(adopted.refused, [(funding(4), AdoptError::KeyInUse)]);
    lnd.reserve(4, 9).expect("ours");
    assert_eq!(lnd.adopt(&sealed).expect("it opens").refused, [(funding(4), AdoptError::KeyInUse)]);

    let mut lnd = Lnd::new();
    assert_eq!(lnd.adopt(&sealed).expect("it opens").adopted, [funding(4)]);
    // Where we own next to nothing our commitment has no output of ours.
    let mut lnd = Lnd::new();
    let poor = Backup { pays_us_sat: 0, ..honest };
    assert_eq!(lnd.adopt(&poor.sealed(&lnd)).expect("it opens").adopted, [funding(4)]);
}
