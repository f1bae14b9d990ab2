//! The administration socket: who may use it, what arrives, and what its errors say.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use claviger::admin::api::{AdminApi, AdminError, AdminErrorKind, AdminStream, SeedImport};
use claviger::admin::client;
use claviger::admin::record::Which;
use claviger::admin::socket::{AdminSocket, SocketError};
use claviger::names::{NodeKind, NodeName};
use claviger_proto::bundle::{BUNDLE_VERSION, Bundle};
use claviger_proto::v1::{
    DecisionRecord, ExplainRequest, ExportLine, JournalExportRequest, JournalTailRequest, JournalVerifyRequest,
    NodeAddRequest, NodeInfo, NodeListRequest, NodeRemoveRequest, NodeRequestByName, NodeRevokeRequest, SealRequest,
    SeedImport as WireImport, ShutdownRequest, StatusReply, StatusRequest, UnsealRequest, VerifyProgress,
};
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

/// Writes down what it was asked.
#[derive(Default)]
struct Scribe(Mutex<Vec<String>>);

impl Scribe {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }
}

fn node(name: &NodeName) -> NodeInfo {
    NodeInfo { name: name.to_string(), ..NodeInfo::default() }
}

fn enrolled(name: &NodeName) -> (NodeInfo, Bundle) {
    let text = || "-----BEGIN X-----\n-----END X-----\n".to_owned();
    let bundle = Bundle {
        version: BUNDLE_VERSION,
        node: name.to_string(),
        kind: "ldk".into(),
        network: "regtest".into(),
        signer: "127.0.0.1:7700".into(),
        not_after: 1,
        ca_certificate: text(),
        certificate: text(),
        private_key: text().into(),
    };
    (node(name), bundle)
}

#[tonic::async_trait]
impl AdminApi for Scribe {
    async fn status(&self) -> Result<StatusReply, AdminError> {
        Ok(StatusReply { sealed: true, network: "regtest".into(), ..StatusReply::default() })
    }
    async fn unseal(&self, passphrase: Zeroizing<Vec<u8>>) -> Result<u32, AdminError> {
        match passphrase.as_slice() {
            b"open sesame" => Ok(2),
            _ => Err(AdminError::new(AdminErrorKind::Passphrase, "the passphrase is wrong", "Try again in 2 s.")),
        }
    }
    async fn seal(&self) -> Result<(), AdminError> {
        Err(AdminError::sealed())
    }
    async fn shutdown(&self) -> Result<(), AdminError> {
        self.note("shutdown");
        Ok(())
    }
    async fn node_add(
        &self,
        name: NodeName,
        kind: NodeKind,
        import: Option<SeedImport>,
    ) -> Result<(NodeInfo, Bundle), AdminError> {
        let import = import.map(|import| (import.format, import.secret.len(), import.passphrase.len()));
        self.note(format!("add {name} {kind} {import:?}"));
        Ok(enrolled(&name))
    }
    async fn node_list(&self) -> Result<Vec<NodeInfo>, AdminError> {
        Ok(vec![NodeInfo::default(); 3])
    }
    async fn node_show(&self, name: NodeName) -> Result<NodeInfo, AdminError> {
        Err(AdminError::no_such_node(&name))
    }
    async fn node_renew(&self, name: NodeName) -> Result<(NodeInfo, Bundle), AdminError> {
        Ok(enrolled(&name))
    }
    async fn node_revoke(&self, name: NodeName, which: Which) -> Result<NodeInfo, AdminError> {
        self.note(format!("revoke {name} {which:?}"));
        Ok(node(&name))
    }
    async fn node_remove(&self, name: NodeName) -> Result<(), AdminError> {
        self.note(format!("remove {name}"));
        Ok(())
    }
    async fn journal_tail(
        &self,
        lines: u32,
        follow: bool,
        node: Option<NodeName>,
    ) -> Result<AdminStream<DecisionRecord>, AdminError> {
        self.note(format!("tail {lines} {follow} {node:?}"));
        let records = (0..u64::from(lines)).map(|sequence| Ok(DecisionRecord { sequence, ..Default::default() }));
        Ok(Box::pin(tokio_stream::iter(records)))
    }
    async fn journal_verify(&self) -> Result<AdminStream<VerifyProgress>, AdminError> {
        let broken = AdminError::new(AdminErrorKind::Damaged, "record 7 is damaged", "Restore.");
        Ok(Box::pin(tokio_stream::iter([Ok(VerifyProgress { checked: 6, ..Default::default() }), Err(broken)])))
    }
    async fn journal_export(&self, from: u64) -> Result<AdminStream<ExportLine>, AdminError> {
        Ok(Box::pin(tokio_stream::once(Ok(ExportLine { json: format!("{{\"from\":{from}}}") }))))
    }
    async fn explain(&self, request: String) -> Result<DecisionRecord, AdminError> {
        Ok(DecisionRecord { request, ..Default::default() })
    }
}

struct World {
    dir: tempfile::TempDir,
    scribe: Arc<Scribe>,
    socket: AdminSocket,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scribe = Arc::<Scribe>::default();
        let socket = AdminSocket::start(&dir.path().join("admin.sock"), scribe.clone()).unwrap();
        Self { dir, scribe, socket }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }
}

#[tokio::test]
async fn questions_arrive_and_answers_come_back() {
    let world = World::new();
    let mut admin = client::connect(&world.path()).await.unwrap();
    assert!(admin.status(StatusRequest {}).await.unwrap().into_inner().sealed);
    let unseal = UnsealRequest { passphrase: b"open sesame".to_vec() };
    assert_eq!(admin.unseal(unseal).await.unwrap().into_inner().nodes, 2);
    assert_eq!(admin.node_list(NodeListRequest {}).await.unwrap().into_inner().nodes.len(), 3);
    let import = Some(WireImport { format: "bip39".into(), secret: vec![1; 9], passphrase: vec![] });
    let add = NodeAddRequest { name: "alice".into(), kind: "ldk".into(), import };
    let reply = admin.node_add(add).await.unwrap().into_inner();
    assert_eq!(Bundle::parse(&reply.bundle).unwrap().node, "alice");
    let revoke = |serial: &str| NodeRevokeRequest { name: "alice".into(), serial: serial.into() };
    admin.node_revoke(revoke("")).await.unwrap();
    admin.node_revoke(revoke("0a")).await.unwrap();
    let tail = JournalTailRequest { lines: 3, follow: true, node: "alice".into() };
    let records: Vec<_> = admin.journal_tail(tail).await.unwrap().into_inner().collect().await;
    assert_eq!(records.len(), 3);
    let mut export = admin.journal_export(JournalExportRequest { from: 5 }).await.unwrap().into_inner();
    assert_eq!(export.message().await.unwrap().unwrap().json, "{\"from\":5}");
    let explained = admin.explain(ExplainRequest { request: "alice-1".into() }).await.unwrap().into_inner();
    assert_eq!(explained.request, "alice-1");
    admin.shutdown(ShutdownRequest {}).await.unwrap();
    assert_eq!(
        *world.scribe.0.lock().unwrap(),
        [
            "add alice ldk Some((\"bip39\", 9, 0))",
            "revoke alice All",
            "revoke alice Serial(\"0a\")",
            "tail 3 true Some(NodeName(\"alice\"))",
            "shutdown",
        ]
    );
}

#[tokio::test]
async fn an_error_arrives_with_its_kind_words_and_hint() {
    let world = World::new();
    let mut admin = client::connect(&world.path()).await.unwrap();
    let wrong = admin.unseal(UnsealRequest { passphrase: b"guess".to_vec() }).await.unwrap_err();
    let expected = AdminError::new(AdminErrorKind::Passphrase, "the passphrase is wrong", "Try again in 2 s.");
    assert_eq!(AdminError::from(wrong), expected);
    assert_eq!(AdminError::from(admin.seal(SealRequest {}).await.unwrap_err()), AdminError::sealed());
    let show = admin.node_show(NodeRequestByName { name: "bob".into() }).await.unwrap_err();
    assert_eq!(AdminError::from(show), AdminError::no_such_node(&NodeName::new("bob").unwrap()));
    let mut verify = admin.journal_verify(JournalVerifyRequest {}).await.unwrap().into_inner();
    assert_eq!(verify.message().await.unwrap().unwrap().checked, 6);
    assert_eq!(AdminError::from(verify.message().await.unwrap_err()).kind, AdminErrorKind::Damaged);
}

#[tokio::test]
async fn what_makes_no_sense_does_not_reach_the_daemon() {
    let world = World::new();
    let mut admin = client::connect(&world.path()).await.unwrap();
    let add = |name: &str, kind: &str| NodeAddRequest { name: name.into(), kind: kind.into(), import: None };
    for request in [add("Alice", "ldk"), add("alice", "lnd"), add("", "ldk")] {
        let error = AdminError::from(admin.node_add(request).await.unwrap_err());
        assert_eq!(error.kind, AdminErrorKind::Invalid);
    }
    let unconfirmed = NodeRemoveRequest { name: "alice".into(), confirm: "bob".into() };
    assert_eq!(AdminError::from(admin.node_remove(unconfirmed).await.unwrap_err()).kind, AdminErrorKind::Invalid);
    assert!(world.scribe.0.lock().unwrap().is_empty());
    let confirmed = NodeRemoveRequest { name: "alice".into(), confirm: "alice".into() };
    admin.node_remove(confirmed).await.unwrap();
    assert_eq!(*world.scribe.0.lock().unwrap(), ["remove alice"]);
}

#[tokio::test]
async fn only_the_owner_can_open_the_socket_and_it_goes_with_its_daemon() {
    let world = World::new();
    let path = world.path();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    world.socket.shutdown().await;
    assert!(!path.exists());
    let error = client::connect(&path).await.unwrap_err();
    assert_eq!(error.kind, AdminErrorKind::NotRunning);
    assert!(error.hint.contains("claviger run"));
}

#[tokio::test]
async fn a_live_daemons_socket_is_left_alone_and_a_dead_ones_replaced() {
    let world = World::new();
    let path = world.path();
    let start = |path: &std::path::Path| AdminSocket::start(path, Arc::<Scribe>::default());
    assert_eq!(start(&path).unwrap_err(), SocketError::InUse(path.clone()));

    let dead = world.dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert_eq!(client::connect(&dead).await.unwrap_err().kind, AdminErrorKind::NotRunning);
    let _socket = start(&dead).unwrap();
    client::connect(&dead).await.unwrap().status(StatusRequest {}).await.unwrap();

    let file = world.dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(start(&file).unwrap_err(), SocketError::NotASocket(file.clone()));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}
