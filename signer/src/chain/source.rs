//! Where the appliance's own view of the chain comes from.

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network};

/// The best block of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// The source says that it is still catching up with the network.
    pub syncing: bool,
}

/// A fully validating node of the operator's own. Every call may block up to the source's time limit.
pub trait ChainSource: Send + Sync {
    /// The best block, after checking that the source is on the expected network.
    fn tip(&self) -> Result<Tip, SourceError>;

    /// The hash of the best chain's block at `height`; `None` above the tip.
    fn hash_at(&self, height: u32) -> Result<Option<BlockHash>, SourceError>;

    /// A header by hash, also of a block that left the best chain.
    fn header(&self, hash: &BlockHash) -> Result<Header, SourceError>;

    /// A block by hash, also one that left the best chain. Its transactions are those its header commits to.
    fn block(&self, hash: &BlockHash) -> Result<Block, SourceError>;

    /// What `status` and errors call it. Never holds a credential.
    fn describe(&self) -> String;
}

/// Why a source gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The configured URL cannot be used.
    #[error("'{url}' cannot be used as the chain backend: {rule}")]
    BadUrl {
        /// As configured.
        url: String,
        /// What would be accepted.
        rule: &'static str,
    },
    /// The cookie or password file cannot be read.
    #[error("cannot read the chain backend's credentials in {path}: {cause}")]
    Credentials {
        /// The file.
        path: String,
        /// The system's words.
        cause: String,
    },
    /// No connection, or no answer in time.
    #[error("the chain backend {url} does not answer: {cause}")]
    Unreachable {
        /// The backend.
        url: String,
        /// The system's words.
        cause: String,
    },
    /// The backend does not accept the credentials.
    #[error("the chain backend {url} refuses the credentials")]
    Unauthorized {
        /// The backend.
        url: String,
    },
    /// The backend follows another chain.
    #[error("the chain backend is on network {found}, this signer on {expected}")]
    WrongNetwork {
        /// The signer's network.
        expected: Network,
        /// The backend's word for its own.
        found: String,
    },
    /// The answer is not what the method returns.
    #[error("the chain backend's answer to {method} makes no sense: {cause}")]
    Garbage {
        /// The method called.
        method: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The backend answered with an error.
    #[error("the chain backend refuses {method}: {message} (code {code})")]
    Rpc {
        /// The method called.
        method: &'static str,
        /// bitcoind's error code.
        code: i64,
        /// bitcoind's words.
        message: String,
    },
    /// The backend is still catching up with its network, or has fallen behind what this signer saw already.
    #[error("the chain backend is behind: it is at height {height}")]
    Behind {
        /// Its height.
        height: u32,
    },
}

impl SourceError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "Set chain.url to http://HOST:PORT.",
            Self::Credentials { .. } => "Set chain.cookie_file, or chain.user and chain.password_file.",
            Self::Unreachable { .. } => "Start bitcoind, or correct chain.url; the signer connects again by itself.",
            Self::Unauthorized { .. } => "Compare chain.cookie_file, or chain.user and its password, with bitcoind's.",
            Self::WrongNetwork { .. } => "Point chain.url to a backend of the signer's network.",
            Self::Garbage { .. } => "Check that chain.url is bitcoind's RPC port.",
            Self::Rpc { .. } => "Look at bitcoind's log.",
            Self::Behind { .. } => "Wait until bitcoind has caught up.",
        }
    }
}
