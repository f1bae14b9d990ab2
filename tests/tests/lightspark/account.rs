//! An account of Lightspark at a real signer: its webhooks, its operations, and the policy that both are under.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Xpriv};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, CompressedPublicKey, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use claviger_demo::signer::{Program, SignerProcess};
use claviger_proto::SERVER_NAME;
use claviger_proto::v1::SignOperationRequest;
use claviger_proto::v1::operations_client::OperationsClient;
use hmac::{Hmac, KeyInit, Mac};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::Endpoint;

/// What the account's keys come from.
pub(crate) const SEED: [u8; 32] = [0x5e; 32];
/// What its webhooks are signed with.
pub(crate) const SECRET: &str = "39kyJO140000000000000000000049ws";
/// What it calls Lightspark with.
pub(crate) const TOKEN: &str = "client-id:Yw7xS1token0000000000000000000q3";
/// An answer is waited for so long on one connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

const WITHDRAW: &str = "mutation RequestWithdrawal($node_id: ID! $bitcoin_address: String! $amount_sats: Long! \
    $withdrawal_mode: WithdrawalMode! $idempotency_key: String) { request_withdrawal(input: { node_id: $node_id \
    bitcoin_address: $bitcoin_address amount_sats: $amount_sats withdrawal_mode: $withdrawal_mode \
    idempotency_key: $idempotency_key }) { request { id } } }";

/// The account `acme`, and the signer that holds it.
pub(crate) struct Account {
    pub(crate) signer: SignerProcess,
    pub(crate) folder: std::path::PathBuf,
    webhooks: String,
    _dir: TempDir,
}

impl Account {
    /// A signer that logs everything, with the account in it, under the limits of `claviger.toml` alone. It answers directly.
    pub(crate) fn new() -> Self {
        Self::with(None, &hex::encode(SEED), &[])
    }

    /// The same, calling back to the API at this URL.
    pub(crate) fn calling_back(api: &str) -> Self {
        Self::with(Some(api), &hex::encode(SEED), &[])
    }

    /// The same with another seed, in hex; any amount may go to the addresses `allow`.
    pub(crate) fn of(seed: &str, allow: &[&str]) -> Self {
        Self::with(None, seed, allow)
    }

    fn with(api: Option<&str>, seed: &str, allow: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = Program::binary(env!("CARGO_BIN_EXE_claviger-under-test"));
        let cookie = dir.path().join("cookie");
        std::fs::write(&cookie, "user:password").unwrap();
        // Nobody answers there: an account's keys need no view of the chain.
        let signer = SignerProcess::init(program, &dir.path().join("signer"), "http://127.0.0.1:1", &cookie);
        let mut signer = signer.unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let webhooks = format!("127.0.0.1:{port}");
        signer
            .configure(|config| {
                config["log"]["level"] = "trace".into();
                config["limits"]["max_onchain_sat"] = 50_000.into();
                config["limits"]["max_onchain_sat_per_day"] = 60_000.into();
                config["limits"]["allow"] = allow.to_vec().into();
                let listen = ("listen", webhooks.as_str());
                let keys = [Some(listen), api.map(|api| ("api", api))].into_iter().flatten();
                let lightspark: toml::Table = keys.map(|(key, value)| (key.to_owned(), value.into())).collect();
                config.insert("lightspark".to_owned(), lightspark.into());
            })
            .unwrap();
        signer.start().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("seed"), seed).unwrap();
        std::fs::write(path("secret"), SECRET).unwrap();
        std::fs::write(path("token"), TOKEN).unwrap();
        let (seed, secret, token) = (path("seed"), path("secret"), path("token"));
        let folder = path("acme.lightspark");
        let import = ["--import", &seed, "--format", "lightspark-seed", "--webhook-secret", &secret, "--out", &folder];
        let token: &[&str] = if api.is_some() { &["--api-token", &token] } else { &[] };
        signer.cli(&[&["node", "add", "acme", "--kind", "lightspark"][..], &import, token].concat()).unwrap();
        Self { signer, folder: folder.into(), webhooks, _dir: dir }
    }

    /// Puts a budget for withdrawals in force.
    pub(crate) fn with_budget(self) -> Self {
        let bundle = self.folder.with_file_name("policy");
        std::fs::create_dir(&bundle).unwrap();
        let budget = "version = 1\n[[budget]]\nname = \"out\"\nactions = [\"Withdraw\"]\nfact = \"amount_msat\"\n\
                      scope = [\"node\"]\nwindow = \"24h\"\nlimit = 50_000_000\n";
        std::fs::write(bundle.join("policy.toml"), budget).unwrap();
        std::fs::write(bundle.join("all.cedar"), "@id(\"all\") permit (principal, action, resource);").unwrap();
        self.signer.cli(&["policy", "apply", bundle.to_str().unwrap()]).unwrap();
        self
    }

    /// What the budget has counted, in msat.
    pub(crate) fn spent_msat(&self) -> u64 {
        let status = self.signer.cli(&["policy", "status"]).unwrap();
        status["budgets"][0]["spent"].as_u64().unwrap_or(0)
    }

    pub(crate) fn client(&self) -> Client {
        Client { webhooks: self.webhooks.clone(), folder: self.folder.clone() }
    }
}

/// Whoever calls the signer for the account: Lightspark, and a service of the account's own.
#[derive(Clone)]
pub(crate) struct Client {
    webhooks: String,
    folder: std::path::PathBuf,
}

impl Client {
    /// Of the account with this folder.
    pub(crate) fn with_folder(self, folder: std::path::PathBuf) -> Self {
        Self { folder, ..self }
    }

    /// Sends a webhook: its status and what it is answered.
    pub(crate) fn webhook(&self, body: &str) -> std::io::Result<(u16, String)> {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        self.post(body, &hex::encode(mac.finalize().into_bytes()))
    }

    /// The same under any signature.
    pub(crate) fn post(&self, body: &str, signature: &str) -> std::io::Result<(u16, String)> {
        let tls = ClientConnection::new(Arc::new(tls(&self.folder, false)), name()).map_err(std::io::Error::other)?;
        let tcp = TcpStream::connect(&self.webhooks)?;
        tcp.set_read_timeout(Some(ANSWER_WITHIN))?;
        let stream = StreamOwned::new(tls, tcp);
        let length = body.len();
        let head = "POST /lightspark-webhook/acme HTTP/1.1\r\nhost: signer\r\nconnection: close";
        let head = format!("{head}\r\ncontent-length: {length}\r\nlightspark-signature: {signature}");
        call(stream, &format!("{head}\r\n\r\n{body}"))
    }

    /// Has a service's call signed over plain HTTP: the status and what it is answered.
    pub(crate) fn sign_over_http(&self, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let signer = std::fs::read_to_string(self.folder.join("signer.txt"))?;
        let mut config = tls(&self.folder, true);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = ClientConnection::new(Arc::new(config), name()).map_err(std::io::Error::other)?;
        let tcp = TcpStream::connect(signer.trim())?;
        tcp.set_read_timeout(Some(ANSWER_WITHIN))?;
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: signer\r\nconnection: close\r\ncontent-length: {}", body.len());
        call(StreamOwned::new(tls, tcp), &format!("{head}\r\n\r\n{body}"))
    }

    /// Has a service's call signed.
    pub(crate) fn sign_operation(&self, body: &str) -> Result<Vec<u8>, Status> {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let lost = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
            let signer = std::fs::read_to_string(self.folder.join("signer.txt")).unwrap();
            let tcp = tokio::net::TcpStream::connect(signer.trim()).await.map_err(|error| lost(&error))?;
            let connector = TlsConnector::from(Arc::new(tls(&self.folder, true)));
            let stream = connector.connect(name(), tcp).await.map_err(|error| lost(&error))?;
            let mut io = Some(TokioIo::new(stream));
            let connector = tower::service_fn(move |_| {
                let io = io.take().ok_or_else(|| std::io::Error::other("used up"));
                async move { io }
            });
            let endpoint = Endpoint::from_static("https://signer.claviger").timeout(ANSWER_WITHIN);
            let channel = endpoint.connect_with_connector(connector).await.map_err(|error| lost(&error))?;
            let request = SignOperationRequest { body: body.as_bytes().to_vec(), clearance: vec![] };
            Ok(OperationsClient::new(channel).sign(request).await?.into_inner().signature)
        })
    }
}

/// Sends a request, the last of its connection; the status and the body of the answer.
fn call(mut stream: StreamOwned<ClientConnection, TcpStream>, request: &str) -> std::io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| std::io::Error::other("no answer"))
}

fn name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).unwrap()
}

/// Of a service, which shows the account's certificate, or of Lightspark, which has none.
fn tls(folder: &Path, is_service: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    if !is_service {
        return config.with_no_client_auth();
    }
    let certificate = CertificateDer::from_pem_file(folder.join("client.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("client.key")).unwrap();
    let mut config = config.with_client_auth_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// An event of now.
pub(crate) fn event(id: &str, sub_event: &str, mut data: Value) -> String {
    data["sub_event_type"] = sub_event.into();
    data["bitcoin_network"] = "REGTEST".into();
    let (entity, timestamp) = ("Channel:018fe6a8-1096-69e3-0000-b60765430f65", in_seconds(0));
    let head = json!({ "event_type": "REMOTE_SIGNING", "event_id": id, "timestamp": timestamp, "entity_id": entity });
    let mut body = head;
    body["data"] = data;
    body.to_string()
}

/// A withdrawal of `amount_sat` to [`exchange`] under `key`.
pub(crate) fn withdrawal(key: &str, amount_sat: u64) -> String {
    let to = Address::from_script(&exchange(), Network::Regtest).unwrap().to_string();
    let variables = json!({
        "node_id": "LightsparkNodeWithRemoteSigning:1", "bitcoin_address": to, "amount_sats": amount_sat,
        "withdrawal_mode": "WALLET_ONLY", "idempotency_key": key,
    });
    let body = json!({
        "operationName": "RequestWithdrawal", "query": WITHDRAW, "variables": variables, "nonce": 7,
        "expires_at": in_seconds(3_600),
    });
    body.to_string()
}

/// Where withdrawals go.
pub(crate) fn exchange() -> ScriptBuf {
    p2wpkh(&CompressedPublicKey::from_slice(&[2; 33]).unwrap())
}

fn p2wpkh(key: &CompressedPublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&key.wpubkey_hash())
}

/// The job of an L1 transaction that pays `to` this much, and the rest of a coin of ours to us.
pub(crate) fn l1_job(to: ScriptBuf, amount_sat: u64) -> Value {
    const COIN_SAT: u64 = 1_000_000;
    let change = COIN_SAT - amount_sat - 1_000;
    let output = |sat, script_pubkey| TxOut { value: Amount::from_sat(sat), script_pubkey };
    let input = TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let (coin, ours) = ("m/84'/2'/0'/0/1", "m/84'/2'/0'/1/9");
    let output = vec![output(amount_sat, to), output(change, p2wpkh(&key(ours)))];
    let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output };
    let script = p2wpkh(&key(coin));
    let digest = SighashCache::new(&tx)
        .p2wpkh_signature_hash(0, &script, Amount::from_sat(COIN_SAT), EcdsaSighashType::All)
        .unwrap();
    json!({
        "id": "job", "derivation_path": coin, "message": hex::encode(digest.to_byte_array()), "add_tweak": "",
        "mul_tweak": "", "script": hex::encode(script), "transaction": serialize_hex(&tx), "amount": COIN_SAT,
        "destination_derivation_path": ours,
    })
}

/// The public key of the account's node, in hex.
pub(crate) fn node_id() -> String {
    key("m/0").to_string()
}

fn key(path: &str) -> CompressedPublicKey {
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(Network::Regtest, &SEED).unwrap();
    let path: DerivationPath = path.parse().unwrap();
    let secret = master.derive_priv(&secp, &path).unwrap().to_priv();
    CompressedPublicKey::from_private_key(&secp, &secret).unwrap()
}

/// As Lightspark writes a time.
fn in_seconds(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (mut days, day_s) = ((now.as_secs() + seconds) / 86_400, (now.as_secs() + seconds) % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (day_s / 3_600, day_s / 60 % 60, day_s % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.000000+00:00", days + 1)
}
