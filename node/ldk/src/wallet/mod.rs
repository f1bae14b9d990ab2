//! The on-chain wallet of a node whose keys are in the signer: addresses and coins here, signatures there.

mod addresses;
mod coins;
mod spend;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::bip32::Xpub;
use bitcoin::{Amount, Block, OutPoint, Psbt, ScriptBuf, Transaction, TxOut};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Listen};
use lightning::events::bump_transaction::Utxo;
use lightning::events::bump_transaction::sync::WalletSourceSync;
use thiserror::Error;

use crate::call::Caller;
use crate::transport::LinkError;
use addresses::Addresses;
use coins::Coins;

/// Follows the coins of the signer's wallet from blocks and builds transactions that the signer signs.
///
/// Coins are kept in memory: feed it the chain through [`Listen`], after a restart again from the height at which the
/// wallet was first used. Confirmed coins are spendable, coinbase outputs after 100 blocks.
pub struct Wallet {
    caller: Arc<Caller>,
    addresses: Addresses,
    coins: Mutex<Coins>,
}

/// A funding transaction that is not signed yet.
#[derive(Clone, Debug)]
pub struct Funding {
    /// Where the channel's funding output will be; its txid does not change by signing.
    pub outpoint: OutPoint,
    /// For [`Wallet::sign`], once LDK says that broadcasting is safe.
    pub psbt: Psbt,
}

/// Why the wallet could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WalletError {
    /// Not enough confirmed coins.
    #[error(
        "{needed_sat} sat are needed and {available_sat} sat are spendable; send coins to the wallet and wait for a confirmation"
    )]
    Funds {
        /// Outputs and fee.
        needed_sat: u64,
        /// In confirmed coins that are not set aside for another transaction.
        available_sat: u64,
    },
    /// The signer could not be asked, or refused.
    #[error(transparent)]
    Signer(#[from] LinkError),
    /// The signer left an input of the wallet unsigned.
    #[error("the signer did not sign input {0}; it is not a coin of its wallet")]
    Unsigned(usize),
    /// No transaction can be built from what was given.
    #[error("the transaction cannot be built: {0}; check its outputs and feerate")]
    Build(String),
}

impl Wallet {
    pub(crate) fn new(caller: Arc<Caller>, account: Xpub) -> Self {
        Self { caller, addresses: Addresses::new(account), coins: Mutex::default() }
    }

    /// The next address to receive on, a P2WPKH script. Addresses repeat after a thousand.
    pub fn next_script(&self) -> ScriptBuf {
        self.addresses.next()
    }

    /// The address that closes of one channel pay to; the same after a restart.
    pub(crate) fn script_for_channel(&self, dbid: u64) -> ScriptBuf {
        self.addresses.for_channel(dbid)
    }

    /// The wallet path (one component below the account key) of a script, if it is ours.
    pub(crate) fn index_of(&self, script: &ScriptBuf) -> Option<u32> {
        self.addresses.index_of(script)
    }

    /// What can be spent now.
    pub fn balance(&self) -> Amount {
        self.coins().spendable().map(|(_, coin)| coin.output.value).sum()
    }

    /// Builds a transaction that pays `output` and sets its coins aside, for the funding of a channel.
    /// `feerate_sat_per_1000_weight` as LDK's `FeeEstimator` gives it. Coins for which `is_spent` holds are left alone:
    /// the wallet sees blocks only, and a transaction that waits for one, e.g. a fee bump, may spend them.
    ///
    /// # Errors
    /// [`WalletError::Funds`], [`WalletError::Build`].
    pub fn fund(
        &self,
        output: TxOut,
        feerate_sat_per_1000_weight: u32,
        is_spent: impl Fn(&OutPoint) -> bool,
    ) -> Result<Funding, WalletError> {
        let mut coins = self.coins();
        let psbt = spend::build(&mut coins, output, self.next_script(), feerate_sat_per_1000_weight, is_spent)?;
        Ok(Funding { outpoint: OutPoint { txid: psbt.unsigned_tx.compute_txid(), vout: 0 }, psbt })
    }

    /// Gives coins back that [`fund`](Self::fund) set aside, for a channel that was not opened after all.
    pub fn release(&self, funding: &Funding) {
        self.coins().release(&funding.psbt.unsigned_tx);
    }

    /// Has the signer sign the wallet's inputs. Other inputs stay as they are.
    ///
    /// # Errors
    /// [`WalletError::Signer`]: away, or refused: an output is neither the wallet's, nor a channel set up with the
    /// signer, nor allowed by the operator. [`WalletError::Unsigned`].
    pub fn sign(&self, mut psbt: Psbt) -> Result<Transaction, WalletError> {
        let utxos = self.describe(&mut psbt);
        let ours: Vec<OutPoint> = utxos.iter().map(|u| OutPoint { txid: u.txid, vout: u.outnum }).collect();
        let signed = spend::sign(&self.caller, psbt, utxos)?;
        for (index, input) in signed.input.iter().enumerate() {
            if ours.contains(&input.previous_output) && input.witness.is_empty() {
                return Err(WalletError::Unsigned(index));
            }
        }
        Ok(signed)
    }

    fn coins(&self) -> MutexGuard<'_, Coins> {
        // A panic cannot leave a half-made change: each is one insertion or one field.
        self.coins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WalletSourceSync for Wallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        Ok(self.coins().spendable().map(|(outpoint, coin)| coin.utxo(*outpoint)).collect())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.next_script())
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        self.sign(psbt).map_err(|error| tracing::warn!(%error, "a transaction was not signed"))
    }
}

impl Listen for Wallet {
    fn block_connected(&self, block: &Block, height: u32) {
        let transactions: Vec<_> = block.txdata.iter().enumerate().collect();
        self.filtered_block_connected(&block.header, &transactions, height);
    }

    fn filtered_block_connected(&self, _: &bitcoin::block::Header, transactions: &TransactionData, height: u32) {
        let mut coins = self.coins();
        coins.height = height;
        for (_, transaction) in transactions {
            coins.add(transaction, height, |script| self.addresses.index_of(script));
        }
    }

    fn blocks_disconnected(&self, fork_point: BestBlock) {
        self.coins().rewind(fork_point.height);
    }
}
