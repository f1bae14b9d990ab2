//! LDK's signer traits over the node link: a Lightning node built on LDK keeps no keys, a Claviger signer does.
//!
//! [`ClavigerKeys`] takes the place of LDK's `KeysManager`: it is the node's `EntropySource`, `NodeSigner`,
//! `SignerProvider` and `OutputSpender`, and its [`Wallet`] is the on-chain wallet whose keys the same signer holds.
//! `examples/remote_signed_node.rs` turns a plain LDK node into a remote-signed one.
//!
//! What an application does besides constructing it:
//!
//! - **Before paying**, ask: [`ClavigerKeys::preapprove_invoice`] and its siblings. LDK signs an outgoing HTLC without
//!   asking anyone, and a signer that has not approved the payment then refuses the commitment: the channel waits.
//! - **Funding a channel**: LDK must not have the signed funding transaction before the signer has seen the first
//!   commitment. Use `unsafe_manual_funding_transaction_generated` with the outpoint of [`Wallet::fund`]'s transaction,
//!   and sign and broadcast on `Event::FundingTxBroadcastSafe`.
//! - **When the signer was away**: methods of LDK that may fail return `Err(())` ("signer pending"); a [`Resumer`] calls
//!   `signer_unblocked` when the signer answers again. Methods where an error would close a channel or panic wait,
//!   up to [`Options::patience`].

mod call;
mod channel;
mod keys;
pub mod link;
mod resume;
mod transport;
mod wallet;

pub use channel::ClavigerSigner;
pub use keys::{ClavigerKeys, Options};
pub use resume::Resumer;
pub use transport::{ChannelRef, Fact, LinkError, Refusal, RefusalReason, Transport};
pub use wallet::{Funding, Wallet, WalletError};
