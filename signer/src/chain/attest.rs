//! Our word that a block is on the chain, in the form vls-core's tracker asks for (TXOO).

use bitcoin::hash_types::FilterHeader;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use txoo::Attestation;
use txoo::proof::{ProofType, TxoProof};
use txoo::spv::SpvProof;
use txoo::util::sign_attestation;

use super::block::ChainBlock;

/// Attests blocks with the one key that every node's tracker trusts (`trusted_oracle_pubkeys`).
///
/// The key signs nothing but attestations (P10); derive it from the data key for this purpose alone.
pub struct Attestor {
    keypair: Keypair,
    secp: Secp256k1<All>,
}

impl Attestor {
    /// An attestor for `key`.
    pub fn new(key: &SecretKey) -> Self {
        let secp = Secp256k1::new();
        Self { keypair: Keypair::from_secret_key(&secp, key), secp }
    }

    /// What trackers trust.
    pub fn public_key(&self) -> PublicKey {
        self.keypair.public_key()
    }

    /// Attests `block` as the successor of the block whose filter header is `previous`.
    ///
    /// The proof names no transaction: channels are shown theirs by [`apply_block`](super::apply_block). The same block
    /// and predecessor give the same bytes (P5).
    pub(crate) fn attest(&self, block: &ChainBlock, previous: &FilterHeader) -> TxoProof {
        let filter = block.filter();
        let attestation = Attestation {
            block_hash: block.hash(),
            block_height: block.height(),
            filter_header: filter.filter_header(previous),
            time: block.block().header.time.into(),
        };
        let signed = sign_attestation(attestation, &self.keypair, &self.secp);
        let no_transactions = SpvProof { txs: Vec::new(), proof: None };
        TxoProof {
            attestations: vec![(self.public_key(), signed)],
            proof: ProofType::Filter(filter.content.clone(), no_transactions),
        }
    }
}

impl Drop for Attestor {
    fn drop(&mut self) {
        self.keypair.non_secure_erase();
    }
}
