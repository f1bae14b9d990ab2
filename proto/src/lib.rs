//! The messages Claviger speaks: generated from the `.proto` files beside this crate, and the enrolment bundle.

pub mod bundle;
mod redact;

/// The node link, the operations of Lightspark accounts, and the administration socket.
#[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("claviger.v1");
}

/// What a watch-only lnd asks of its remote signer: `signrpc.Signer`.
#[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated code")]
pub mod signrpc {
    tonic::include_proto!("signrpc");
}

/// What a watch-only lnd asks of its remote signer: `walletrpc.WalletKit`.
#[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated code")]
pub mod walletrpc {
    tonic::include_proto!("walletrpc");
}

/// How lnd makes a wallet of public accounts: `lnrpc.WalletUnlocker`.
#[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated code")]
pub mod lnrpc {
    tonic::include_proto!("lnrpc");
}

/// No hsmd message on the link is larger (the vls protocol's own limit).
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// No frame on the link is larger: an hsmd message and a few bytes of envelope.
pub const MAX_FRAME_BYTES: usize = 132 * 1024;

/// The name the signer's certificate carries besides its host names, and the one clients check: a signer may move to
/// another address without new certificates. Its own CA signs nothing else for servers.
pub const SERVER_NAME: &str = "signer.claviger";
