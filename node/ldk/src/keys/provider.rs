//! `SignerProvider` and the scripts that LDK sends our funds to: all of them addresses of the signer's wallet.

use bitcoin::ScriptBuf;
use lightning::ln::script::ShutdownScript;
use lightning::sign::{ChangeDestinationSource, ChangeDestinationSourceSync, SignerProvider};
use lightning::util::async_poll::AsyncResult;

use super::{ClavigerKeys, ids};
use crate::channel::ClavigerSigner;

impl SignerProvider for ClavigerKeys {
    type EcdsaSigner = ClavigerSigner;

    fn generate_channel_keys_id(&self, inbound: bool, _user_channel_id: u128) -> [u8; 32] {
        let dbid = self.dbids.next();
        self.unannounced.insert(dbid);
        ids::channel_keys_id(dbid, inbound)
    }

    /// Needs no answer from the signer: a node whose signer is away still starts.
    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> ClavigerSigner {
        let channel = self.channel_ref(&channel_keys_id);
        self.dbids.seen(channel.dbid);
        ClavigerSigner::new(
            self.caller.clone(),
            self.wallet.clone(),
            self.unannounced.clone(),
            channel,
            channel_keys_id,
        )
    }

    fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        Ok(self.wallet.script_for_channel(ids::dbid(&channel_keys_id)))
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        ShutdownScript::try_from(self.wallet.next_script()).map_err(|_| ())
    }
}

impl ChangeDestinationSourceSync for ClavigerKeys {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.wallet.next_script())
    }
}

impl ChangeDestinationSource for ClavigerKeys {
    fn get_change_destination_script<'a>(&'a self) -> AsyncResult<'a, ScriptBuf, ()> {
        let script = self.wallet.next_script();
        Box::pin(async move { Ok(script) })
    }
}
