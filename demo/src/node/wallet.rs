//! A node's on-chain wallet: the signer's, or one key of the node's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use claviger_ldk::{Funding, Wallet};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Listen};
use lightning::events::bump_transaction::Utxo;
use lightning::events::bump_transaction::sync::WalletSourceSync;

/// Where a node's coins are.
pub enum AnyWallet {
    /// Under a key of the node.
    Local(LocalWallet),
    /// Under the signer's keys.
    Remote(Arc<Wallet>),
}

impl AnyWallet {
    /// Where to send coins to.
    pub fn script(&self) -> ScriptBuf {
        match self {
            Self::Local(wallet) => wallet.script.clone(),
            Self::Remote(wallet) => wallet.next_script(),
        }
    }

    /// All that [`script`](Self::script) may ever answer: a signer's wallet hands its scripts out in a circle.
    pub fn scripts(&self) -> Vec<ScriptBuf> {
        let first = self.script();
        let others = std::iter::repeat_with(|| self.script()).take_while(|script| *script != first);
        std::iter::once(first.clone()).chain(others).collect()
    }

    /// Confirmed coins that are not `is_spent` by a transaction on its way.
    pub fn balance(&self, is_spent: impl Fn(&OutPoint) -> bool) -> Amount {
        let coins = self.list_confirmed_utxos().unwrap_or_default();
        coins.iter().filter(|utxo| !is_spent(&utxo.outpoint)).map(|utxo| utxo.output.value).sum()
    }

    /// An unsigned transaction that pays `output` from such coins.
    pub fn fund(&self, output: TxOut, feerate: u32, is_spent: impl Fn(&OutPoint) -> bool) -> Result<Funding, String> {
        match self {
            Self::Local(wallet) => wallet.fund(output, feerate, is_spent),
            Self::Remote(wallet) => wallet.fund(output, feerate, is_spent).map_err(|e| e.to_string()),
        }
    }
}

impl WalletSourceSync for AnyWallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        match self {
            Self::Local(wallet) => wallet.list_confirmed_utxos(),
            Self::Remote(wallet) => wallet.list_confirmed_utxos(),
        }
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.script())
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        match self {
            Self::Local(wallet) => wallet.sign_psbt(psbt),
            Self::Remote(wallet) => wallet.sign_psbt(psbt),
        }
    }
}

impl Listen for AnyWallet {
    fn filtered_block_connected(&self, header: &bitcoin::block::Header, txdata: &TransactionData, height: u32) {
        match self {
            Self::Local(wallet) => wallet.filtered_block_connected(header, txdata, height),
            Self::Remote(wallet) => wallet.filtered_block_connected(header, txdata, height),
        }
    }

    fn blocks_disconnected(&self, fork_point: BestBlock) {
        match self {
            Self::Local(wallet) => wallet.blocks_disconnected(fork_point),
            Self::Remote(wallet) => wallet.blocks_disconnected(fork_point),
        }
    }
}

/// One P2WPKH key and the coins that pay to it.
pub struct LocalWallet {
    key: SecretKey,
    public_key: PublicKey,
    script: ScriptBuf,
    coins: Mutex<BTreeMap<OutPoint, Coin>>,
}

struct Coin {
    output: TxOut,
    height: u32,
    spent: Option<u32>,
    reserved: bool,
}

impl LocalWallet {
    /// A wallet under `key`.
    pub fn new(key: SecretKey) -> Self {
        let public_key = key.public_key(&Secp256k1::new());
        let script = ScriptBuf::new_p2wpkh(&CompressedPublicKey(public_key).wpubkey_hash());
        Self { key, public_key, script, coins: Mutex::default() }
    }

    fn fund(&self, output: TxOut, feerate: u32, is_spent: impl Fn(&OutPoint) -> bool) -> Result<Funding, String> {
        const INPUT_WEIGHT: u64 = 4 * 41 + 108;
        let mut coins = self.coins();
        let paid = output.value.to_sat();
        let mut tx =
            Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![], output: vec![output] };
        let mut spent = 0;
        let mut fee = u64::from(feerate) * (tx.weight().to_wu() + 200) / 1000;
        let free = |outpoint: &OutPoint, coin: &Coin| coin.spent.is_none() && !coin.reserved && !is_spent(outpoint);
        for (outpoint, coin) in coins.iter().filter(|(outpoint, coin)| free(outpoint, coin)) {
            if spent >= paid + fee {
                break;
            }
            spent += coin.output.value.to_sat();
            fee += u64::from(feerate) * INPUT_WEIGHT / 1000;
            let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
            tx.input.push(TxIn { previous_output: *outpoint, sequence, ..TxIn::default() });
        }
        let change = spent.checked_sub(paid + fee).ok_or("not enough coins")?;
        for input in &tx.input {
            if let Some(coin) = coins.get_mut(&input.previous_output) {
                coin.reserved = true;
            }
        }
        if change > 1000 {
            tx.output.push(TxOut { value: Amount::from_sat(change), script_pubkey: self.script.clone() });
        }
        let outpoint = OutPoint { txid: tx.compute_txid(), vout: 0 };
        Ok(Funding { outpoint, psbt: Psbt::from_unsigned_tx(tx).map_err(|e| e.to_string())? })
    }

    fn coins(&self) -> MutexGuard<'_, BTreeMap<OutPoint, Coin>> {
        self.coins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WalletSourceSync for LocalWallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        let hash = CompressedPublicKey(self.public_key).wpubkey_hash();
        let utxo = |(outpoint, coin): (&OutPoint, &Coin)| Utxo::new_v0_p2wpkh(*outpoint, coin.output.value, &hash);
        Ok(self.coins().iter().filter(|(_, coin)| coin.spent.is_none() && !coin.reserved).map(utxo).collect())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.script.clone())
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        let mut tx = psbt.unsigned_tx;
        let unsigned = tx.clone();
        let mut cache = SighashCache::new(&unsigned);
        for (index, input) in tx.input.iter_mut().enumerate() {
            let coins = self.coins();
            let Some(coin) = coins.get(&input.previous_output) else { continue };
            let hash = cache
                .p2wpkh_signature_hash(index, &self.script, coin.output.value, EcdsaSighashType::All)
                .map_err(|_| ())?;
            let signature = Secp256k1::new().sign_ecdsa_low_r(&Message::from(hash), &self.key);
            let signature = bitcoin::ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All };
            input.witness = Witness::p2wpkh(&signature, &self.public_key);
        }
        Ok(tx)
    }
}

impl Listen for LocalWallet {
    fn filtered_block_connected(&self, _: &bitcoin::block::Header, txdata: &TransactionData, height: u32) {
        let mut coins = self.coins();
        for (_, tx) in txdata {
            for input in &tx.input {
                if let Some(coin) = coins.get_mut(&input.previous_output) {
                    coin.spent = Some(height);
                }
            }
            for (output, vout) in tx.output.iter().zip(0..) {
                if output.script_pubkey == self.script {
                    let coin = Coin { output: output.clone(), height, spent: None, reserved: false };
                    coins.insert(OutPoint { txid: tx.compute_txid(), vout }, coin);
                }
            }
        }
    }

    fn blocks_disconnected(&self, fork_point: BestBlock) {
        let mut coins = self.coins();
        coins.retain(|_, coin| coin.height <= fork_point.height);
        for coin in coins.values_mut() {
            coin.spent = coin.spent.filter(|height| *height <= fork_point.height);
        }
    }
}
