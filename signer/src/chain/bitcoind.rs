//! A chain source that speaks bitcoind's JSON-RPC.
//!
//! Plain HTTP: the backend belongs on this host or on a network the operator trusts. bitcoind itself offers no TLS.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::block::Header;
use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Block, BlockHash, Network};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{StatusCode, Uri};
use zeroize::Zeroizing;

use super::source::{ChainSource, SourceError, Tip};

/// A call that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest answer, in bytes: a block of 4 MB in hex, and some.
const MAX_ANSWER: u64 = 9 << 20;
/// bitcoind's code for a height above the tip.
const INVALID_PARAMETER: i64 = -8;

/// How the signer identifies itself to the backend. Files are read for every call, so that a new secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// bitcoind's `.cookie`: `user:password`, new at every start of bitcoind.
    Cookie(PathBuf),
    /// A fixed user, and a file that holds the password.
    UserPassword {
        /// rpcuser, or the name in rpcauth.
        user: String,
        /// The file that holds the password; a final newline is not part of it.
        password_file: PathBuf,
    },
}

/// bitcoind, or anything that answers like it.
pub struct BitcoindSource {
    url: String,
    auth: Auth,
    network: Network,
    agent: Agent,
}

impl BitcoindSource {
    /// A source at `url` (`http://HOST:PORT`, no credentials in it). Does not connect yet.
    pub fn new(url: &str, auth: Auth, network: Network) -> Result<Self, SourceError> {
        let bad = |rule| SourceError::BadUrl { url: url.to_owned(), rule };
        if url.contains('@') {
            return Err(SourceError::BadUrl { url: "http://…@…".to_owned(), rule: "it must not hold credentials" });
        }
        let uri: Uri = url.parse().map_err(|_| bad("it must be http://HOST:PORT"))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(bad("it must be http://HOST:PORT"));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            // The environment must not decide who tells us about the chain.
            .proxy(None)
            .build()
            .into();
        Ok(Self { url: url.to_owned(), auth, network, agent })
    }

    /// Calls `method`.
    fn call(&self, method: &'static str, params: Value) -> Result<Value, SourceError> {
        let body = json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params}).to_string();
        let mut response = self
            .agent
            .post(&self.url)
            .header("Authorization", self.authorization()?.as_str())
            .header("Content-Type", "application/json")
            .send(&body)
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(SourceError::Unauthorized { url: self.url.clone() });
        }
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let text = text.map_err(|error| self.unreachable(&error))?;
        // bitcoind sends its errors as JSON with status 500; without JSON, the status says more.
        let mut answer: Value =
            serde_json::from_slice(&text).map_err(|error| garbage(method, format!("HTTP status {status}, {error}")))?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(SourceError::Rpc {
                method,
                code: error["code"].as_i64().unwrap_or(0),
                message: shortened(error["message"].as_str().unwrap_or("no message")),
            });
        }
        answer.get_mut("result").map(Value::take).ok_or_else(|| garbage(method, "it has no result".to_owned()))
    }

    fn authorization(&self) -> Result<Zeroizing<String>, SourceError> {
        let (path, prefix) = match &self.auth {
            Auth::Cookie(path) => (path, String::new()),
            Auth::UserPassword { user, password_file } => (password_file, format!("{user}:")),
        };
        let secret = fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| SourceError::Credentials { path: path.display().to_string(), cause: error.to_string() })?;
        let credentials = Zeroizing::new(format!("{prefix}{}", secret.trim_end_matches(['\r', '\n'])));
        Ok(Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(credentials.as_bytes()))))
    }

    fn unreachable(&self, error: &ureq::Error) -> SourceError {
        SourceError::Unreachable { url: self.url.clone(), cause: error.to_string() }
    }
}

impl ChainSource for BitcoindSource {
    fn tip(&self) -> Result<Tip, SourceError> {
        const METHOD: &str = "getblockchaininfo";
        let info = self.call(METHOD, json!([]))?;
        let found = info["chain"].as_str().ok_or_else(|| garbage(METHOD, "'chain' is missing".to_owned()))?;
        // Asked every time: another backend may answer at the same address.
        if Network::from_core_arg(found) != Ok(self.network) {
            return Err(SourceError::WrongNetwork { expected: self.network, found: shortened(found) });
        }
        let height = info["blocks"].as_u64().and_then(|height| u32::try_from(height).ok());
        Ok(Tip {
            height: height.ok_or_else(|| garbage(METHOD, "'blocks' is not a height".to_owned()))?,
            hash: parse_hash(METHOD, &info["bestblockhash"])?,
            syncing: info["initialblockdownload"].as_bool().unwrap_or(false),
        })
    }

    fn hash_at(&self, height: u32) -> Result<Option<BlockHash>, SourceError> {
        const METHOD: &str = "getblockhash";
        match self.call(METHOD, json!([height])) {
            Ok(hash) => parse_hash(METHOD, &hash).map(Some),
            Err(SourceError::Rpc { code: INVALID_PARAMETER, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, SourceError> {
        const METHOD: &str = "getblockheader";
        let header: Header = decode(METHOD, &self.call(METHOD, json!([hash, false]))?)?;
        if header.block_hash() != *hash {
            return Err(garbage(METHOD, format!("asked for {hash}, got {}", header.block_hash())));
        }
        Ok(header)
    }

    fn block(&self, hash: &BlockHash) -> Result<Block, SourceError> {
        const METHOD: &str = "getblock";
        let block: Block = decode(METHOD, &self.call(METHOD, json!([hash, 0]))?)?;
        if block.block_hash() != *hash {
            return Err(garbage(METHOD, format!("asked for {hash}, got {}", block.block_hash())));
        }
        if !block.check_merkle_root() {
            return Err(garbage(METHOD, format!("the transactions of {hash} are not those of its header")));
        }
        Ok(block)
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}

fn decode<T: Decodable>(method: &'static str, answer: &Value) -> Result<T, SourceError> {
    let hex = answer.as_str().ok_or_else(|| garbage(method, "it is not a string".to_owned()))?;
    deserialize_hex(hex).map_err(|error| garbage(method, error.to_string()))
}

fn parse_hash(method: &'static str, answer: &Value) -> Result<BlockHash, SourceError> {
    answer.as_str().and_then(|hash| hash.parse().ok()).ok_or_else(|| garbage(method, "no block hash in it".to_owned()))
}

fn garbage(method: &'static str, cause: String) -> SourceError {
    SourceError::Garbage { method, cause }
}

/// A stranger's words go into logs and `status`: bounded, on one line.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
