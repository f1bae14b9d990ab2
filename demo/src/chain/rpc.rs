//! The chain behind bitcoind's JSON-RPC dialect: plain HTTP on loopback, a cookie file, the methods a follower needs.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, BlockHash, Network, OutPoint, Transaction, Txid};
use serde_json::{Value, json};

use super::{Chain, Reject};

/// How long an idle connection may sit before it looks whether the server stopped.
const IDLE: Duration = Duration::from_millis(100);
/// The largest request body, in bytes: a 4 MB block in hex and some.
const MAX_BODY: usize = 10 << 20;

/// A running server. Stops when dropped, and removes its cookie file.
pub struct RpcServer {
    addr: SocketAddr,
    cookie_file: PathBuf,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl RpcServer {
    /// Serves `chain` on `listen` (loopback; port 0 picks one) and writes a new cookie to `cookie_file` (0600).
    pub fn start(chain: Arc<Chain>, listen: SocketAddr, cookie_file: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let addr = listener.local_addr()?;
        let authorization = Arc::new(write_cookie(cookie_file)?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let acceptor = std::thread::Builder::new().name("chain-rpc".to_owned()).spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (chain, authorization, stop) = (chain.clone(), authorization.clone(), stopping.clone());
                connections.push(std::thread::spawn(move || {
                    // A connection that breaks ends by itself; the client sees it.
                    let _ = serve(stream, &chain, &authorization, &stop);
                }));
                connections.retain(|connection: &JoinHandle<()>| !connection.is_finished());
            }
            connections.into_iter().for_each(|connection| drop(connection.join()));
        })?;
        Ok(Self { addr, cookie_file: cookie_file.to_owned(), stop, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a client's `url` is.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The file that holds `user:password`.
    pub fn cookie_file(&self) -> &Path {
        &self.cookie_file
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let _ = std::fs::remove_file(&self.cookie_file);
    }
}

/// Writes a fresh cookie and returns the `Authorization` header that matches it.
fn write_cookie(path: &Path) -> io::Result<String> {
    let mut password = [0u8; 32];
    getrandom::fill(&mut password).map_err(io::Error::other)?;
    let cookie = format!("__cookie__:{}", hex::encode(password));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(cookie.as_bytes())?;
    Ok(format!("Basic {}", BASE64_STANDARD.encode(cookie)))
}

/// Answers the requests of one connection until it closes or the server stops.
fn serve(stream: TcpStream, chain: &Chain, authorization: &str, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while wait_for_request(&mut reader, stop)? {
        reader.get_ref().set_read_timeout(Some(Duration::from_secs(5)))?;
        let request = read_request(&mut reader)?;
        reader.get_ref().set_read_timeout(Some(IDLE))?;
        if request.authorization.as_deref() != Some(authorization) {
            writer.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let (status, body) = answer(chain, &request.body);
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        writer.write_all(head.as_bytes())?;
        writer.write_all(body.as_bytes())?;
    }
    Ok(())
}

/// Whether a request begins; false when the peer closed or the server stops.
fn wait_for_request(reader: &mut BufReader<TcpStream>, stop: &AtomicBool) -> io::Result<bool> {
    loop {
        match reader.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty() && !stop.load(Ordering::SeqCst)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if stop.load(Ordering::SeqCst) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

struct HttpRequest {
    authorization: Option<String>,
    body: Vec<u8>,
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<HttpRequest> {
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(8 << 10).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            _ => {}
        }
    }
    if length > MAX_BODY {
        return Err(io::Error::other("request too large"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(HttpRequest { authorization, body })
}

/// An error object of the dialect.
struct RpcError {
    code: i32,
    message: String,
}

impl RpcError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Reject> for RpcError {
    fn from(reject: Reject) -> Self {
        let code = match reject {
            Reject::MissingInput(_) => -25,
            Reject::AlreadyConfirmed => -27,
            _ => -26,
        };
        Self::new(code, reject.to_string())
    }
}

fn answer(chain: &Chain, body: &[u8]) -> (&'static str, Value) {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return (
            "500 Internal Server Error",
            json!({"result": null, "error": {"code": -32700, "message": "Parse error"}, "id": null}),
        );
    };
    let method = request["method"].as_str().unwrap_or_default();
    match call(chain, method, &request["params"]) {
        Ok(result) => ("200 OK", json!({"result": result, "error": null, "id": request["id"]})),
        Err(error) => {
            let status = if error.code == -32601 { "404 Not Found" } else { "500 Internal Server Error" };
            (
                status,
                json!({"result": null, "error": {"code": error.code, "message": error.message}, "id": request["id"]}),
            )
        }
    }
}

fn call(chain: &Chain, method: &str, params: &Value) -> Result<Value, RpcError> {
    match method {
        "getblockchaininfo" => {
            let (height, hash) = chain.tip();
            Ok(json!({"chain": "regtest", "blocks": height, "headers": height, "bestblockhash": hash,
                "initialblockdownload": false, "verificationprogress": 1.0, "pruned": false, "warnings": ""}))
        }
        "getbestblockhash" => Ok(json!(chain.tip().1)),
        "getblockcount" => Ok(json!(chain.height())),
        "getblockhash" => {
            let block = chain.block_at(number(params, 0)?).ok_or(RpcError::new(-8, "Block height out of range"))?;
            Ok(json!(block.block_hash()))
        }
        "getblockheader" => {
            let hash: BlockHash = parsed(params, 0)?;
            let block = chain.block(&hash).ok_or(RpcError::new(-5, "Block not found"))?;
            if params[1] == json!(false) {
                return Ok(json!(serialize_hex(&block.header)));
            }
            let height = chain.height_of(&hash);
            let confirmations = height.map_or(-1, |height| i64::from(chain.height() - height) + 1);
            Ok(json!({"hash": hash, "height": height, "confirmations": confirmations, "time": block.header.time,
                "previousblockhash": block.header.prev_blockhash, "nTx": block.txdata.len()}))
        }
        "getblock" if params[1] == json!(0) => {
            let block = chain.block(&parsed(params, 0)?).ok_or(RpcError::new(-5, "Block not found"))?;
            Ok(json!(serialize_hex(&*block)))
        }
        "getblock" => Err(RpcError::new(-8, "Only verbosity 0 is served")),
        "sendrawtransaction" => Ok(json!(chain.broadcast(&transaction(params)?)?)),
        "getrawtransaction" => {
            let tx = chain.transaction(&parsed(params, 0)?);
            tx.map(|tx| json!(serialize_hex(&tx))).ok_or(RpcError::new(-5, "No such mempool or blockchain transaction"))
        }
        "gettxout" => {
            let txid: Txid = parsed(params, 0)?;
            let outpoint = OutPoint { txid, vout: number(params, 1)? };
            let confirmations = chain.confirmed_at(&txid).map(|height| chain.height() + 1 - height);
            Ok(chain.unspent(&outpoint).map_or(Value::Null, |output| {
                json!({"bestblock": chain.tip().1, "confirmations": confirmations, "value": output.value.to_btc(),
                    "scriptPubKey": {"hex": output.script_pubkey.to_hex_string()}})
            }))
        }
        "generatetoaddress" => {
            let address: Address<_> = parsed::<Address<_>>(params, 1)?;
            let address = address
                .require_network(Network::Regtest)
                .map_err(|error| RpcError::new(-5, format!("Invalid address: {error}")))?;
            Ok(json!(chain.mine_to(number(params, 0)?, &address.script_pubkey())))
        }
        "getmempoolinfo" => {
            let waiting = chain.mempool();
            let bytes: usize = waiting.iter().map(Transaction::vsize).sum();
            Ok(
                json!({"loaded": true, "size": waiting.len(), "bytes": bytes, "mempoolminfee": 0.0, "minrelaytxfee": 0.0}),
            )
        }
        "estimatesmartfee" => Ok(json!({"feerate": 0.00001, "blocks": params[0]})),
        _ => Err(RpcError::new(-32601, "Method not found")),
    }
}

fn number(params: &Value, index: usize) -> Result<u32, RpcError> {
    params[index]
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| RpcError::new(-8, format!("Parameter {index} is not a number in range")))
}

fn parsed<T: std::str::FromStr>(params: &Value, index: usize) -> Result<T, RpcError> {
    params[index]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| RpcError::new(-8, format!("Parameter {index} is malformed")))
}

fn transaction(params: &Value) -> Result<Transaction, RpcError> {
    params[0].as_str().and_then(|raw| deserialize_hex(raw).ok()).ok_or_else(|| RpcError::new(-22, "TX decode failed"))
}
