//! `Debug` for the messages that carry secrets (P8): sizes instead of contents.

use std::fmt;

use crate::lnrpc::{InitWalletRequest, InitWalletResponse};
use crate::signrpc::{MuSig2SessionRequest, SharedKeyResponse};
use crate::v1::{
    AccountSecretsRequest, BundleFile, EnrolmentReply, NodeAddRequest, NodeReply, NodeRequest, RotateDataKeyRequest,
    SeedImport, UnsealRequest, node_reply, node_request,
};

impl fmt::Debug for NodeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = f.debug_struct("NodeRequest");
        line.field("request_id", &self.request_id).field("channel", &self.channel);
        match &self.body {
            Some(node_request::Body::Hello(hello)) => line.field("hello", hello),
            Some(node_request::Body::Message(message)) => line.field("message_bytes", &message.len()),
            None => &mut line,
        };
        line.finish()
    }
}

impl fmt::Debug for NodeReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = f.debug_struct("NodeReply");
        line.field("request_id", &self.request_id);
        match &self.body {
            Some(node_reply::Body::Welcome(welcome)) => line.field("welcome", welcome),
            Some(node_reply::Body::Message(message)) => line.field("message_bytes", &message.len()),
            Some(node_reply::Body::Refusal(refusal)) => line.field("refusal", refusal),
            None => &mut line,
        };
        line.finish()
    }
}

impl fmt::Debug for UnsealRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsealRequest { .. }")
    }
}

impl fmt::Debug for RotateDataKeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RotateDataKeyRequest { .. }")
    }
}

impl fmt::Debug for NodeAddRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAddRequest").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for AccountSecretsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountSecretsRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for SeedImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedImport").field("format", &self.format).finish_non_exhaustive()
    }
}

impl fmt::Debug for EnrolmentReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentReply").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for BundleFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleFile").field("name", &self.name).field("bytes", &self.content.len()).finish()
    }
}

impl fmt::Debug for SharedKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKeyResponse { .. }")
    }
}

impl fmt::Debug for MuSig2SessionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuSig2SessionRequest").field("key_loc", &self.key_loc).finish_non_exhaustive()
    }
}

impl fmt::Debug for InitWalletRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitWalletRequest").field("watch_only", &self.watch_only).finish_non_exhaustive()
    }
}

impl fmt::Debug for InitWalletResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitWalletResponse { .. }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_text_shows_message_bytes_or_secrets() {
        let canary = b"CANARY".to_vec();
        let shown = [
            format!("{:?}", UnsealRequest { passphrase: canary.clone(), ..UnsealRequest::default() }),
            format!(
                "{:?}",
                NodeAddRequest {
                    webhook_secret: canary.clone(),
                    api_token: canary.clone(),
                    ..NodeAddRequest::default()
                }
            ),
            format!(
                "{:?}",
                AccountSecretsRequest {
                    name: "acme".into(),
                    webhook_secret: canary.clone(),
                    api_token: canary.clone()
                }
            ),
            format!("{:?}", SeedImport { format: "bip39".into(), secret: canary.clone(), passphrase: canary.clone() }),
            format!("{:?}", EnrolmentReply { node: None, bundle: "CANARY".into(), files: vec![] }),
            format!("{:?}", BundleFile { name: "lnd.macaroon".into(), content: canary.clone() }),
            format!("{:?}", InitWalletRequest { wallet_password: canary.clone(), ..InitWalletRequest::default() }),
            format!("{:?}", InitWalletResponse { admin_macaroon: canary.clone() }),
            format!("{:?}", SharedKeyResponse { shared_key: canary.clone() }),
            format!(
                "{:?}",
                MuSig2SessionRequest { pregenerated_local_nonce: canary.clone(), ..MuSig2SessionRequest::default() }
            ),
            format!(
                "{:?}",
                NodeRequest { request_id: 7, channel: None, body: Some(node_request::Body::Message(canary.clone())) }
            ),
            format!("{:?}", NodeReply { request_id: 7, body: Some(node_reply::Body::Message(canary.clone())) }),
        ];
        for text in shown {
            assert!(!text.contains("CANARY") && !text.contains(&format!("{canary:?}")), "{text}");
        }
    }
}
