//! The administration socket: who may use it, what arrives, and what its errors say.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use claviger::admin::api::{AdminApi, AdminFailure, Brought, FailureKind, Sink};
use claviger::admin::socket::{AdminSocket, SocketError};
use claviger::keys::memory::Secret;
use claviger_proto::v1::admin_client::AdminClient;
use claviger_proto::v1::*;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// Writes down what it was asked.
#[derive(Default)]
struct Scribe(Mutex<Vec<String>>);

impl Scribe {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl AdminApi for Scribe {
    fn status(&self) -> StatusReply {
        StatusReply { sealed: true, ..StatusReply::default() }
    }
    fn metrics(&self) -> MetricsReply {
        MetricsReply::default()
    }
    fn unseal(&self, brought: Brought) -> Result<UnsealReply, AdminFailure> {
        if let Some(slot) = brought.slot {
            self.note(format!("unseal slot {slot}, secret {}, {:?}", brought.secret.is_some(), brought.tries));
        } else if brought.secret.unwrap().expose(|bytes| bytes == b"open sesame") {
            return Ok(UnsealReply { nodes: 2, shares: None });
        }
        Err(AdminFailure::new(FailureKind::Passphrase, "the passphrase is wrong", "Try again in 2 s."))
    }
    fn seal(&self) -> Result<(), AdminFailure> {
        Err(AdminFailure::sealed())
    }
    fn shutdown(&self) {
        self.note("shutdown".to_owned());
    }
    fn node_add(&self, request: NodeAddRequest) -> Result<EnrolmentReply, AdminFailure> {
        let import = request.import.map(|import| (import.format, import.secret.len()));
        self.note(format!("add {} {} {import:?}", request.name, request.kind));
        Ok(EnrolmentReply { node: None, bundle: "the bundle".to_owned(), files: vec![] })
    }
    fn account_secrets(&self, request: AccountSecretsRequest) -> Result<NodeInfo, AdminFailure> {
        self.note(format!("secrets {}", request.name));
        Ok(NodeInfo::default())
    }
    fn recover_channel(&self, request: RecoverChannelRequest) -> Result<RecoveredChannel, AdminFailure> {
        self.note(format!("recover {} {}", request.node, request.kit.len()));
        Ok(RecoveredChannel::default())
    }
    fn node_list(&self) -> Result<Vec<NodeInfo>, AdminFailure> {
        Ok(vec![NodeInfo::default(); 3])
    }
    fn node_show(&self, _: &str) -> Result<NodeInfo, AdminFailure> {
        panic!("the daemon fails inside")
    }
    fn node_renew(&self, name: &str) -> Result<EnrolmentReply, AdminFailure> {
        Ok(EnrolmentReply { node: None, bundle: format!("the bundle of {name}"), files: vec![] })
    }
    fn node_revoke(&self, request: &NodeRevokeRequest) -> Result<NodeInfo, AdminFailure> {
        self.note(format!("revoke {} {}", request.name, request.serial));
        Ok(NodeInfo::default())
    }
    fn node_remove(&self, request: &NodeRemoveRequest) -> Result<(), AdminFailure> {
        self.note(format!("remove {} {}", request.name, request.confirm));
        Ok(())
    }
    fn journal_tail(
        &self,
        lines: u32,
        _: bool,
        _: &str,
        sink: &mut dyn Sink<DecisionRecord>,
    ) -> Result<(), AdminFailure> {
        for sequence in 0..u64::from(lines) {
            if !sink.put(DecisionRecord { sequence, ..DecisionRecord::default() }) {
                self.note(format!("nobody reads after {sequence}"));
                break;
            }
        }
        Ok(())
    }
    fn journal_verify(&self, sink: &mut dyn Sink<VerifyProgress>) -> Result<(), AdminFailure> {
        sink.put(VerifyProgress { checked: 6, ..VerifyProgress::default() });
        Err(AdminFailure::new(FailureKind::Damaged, "record 7 is damaged", "Restore."))
    }
    fn journal_export(&self, from: u64, sink: &mut dyn Sink<ExportLine>) -> Result<(), AdminFailure> {
        sink.put(ExportLine { json: format!("{{\"from\":{from}}}") });
        Ok(())
    }
    fn rotate_data_key(
        &self,
        key: Secret<32>,
        _: &str,
        sink: &mut dyn Sink<RotationProgress>,
    ) -> Result<(), AdminFailure> {
        let done = key.expose(|key| u64::from(key[31]));
        sink.put(RotationProgress { done, total: done, finished: true });
        Ok(())
    }
    fn backup(&self, _: &BackupRequest, sink: &mut dyn Sink<BackupPiece>) -> Result<(), AdminFailure> {
        sink.put(BackupPiece { done: true, ..BackupPiece::default() });
        Ok(())
    }
    fn channel_list(&self, _: &str) -> Result<Vec<ChannelInfo>, AdminFailure> {
        Ok(vec![ChannelInfo::default(); 2])
    }
    fn channel_show(&self, node: &str, channel: &str) -> Result<ChannelInfo, AdminFailure> {
        Ok(ChannelInfo { channel: format!("{channel} of {node}"), ..ChannelInfo::default() })
    }
    fn order(&self, request: &OrderRequest, by: String) -> Result<OrderReply, AdminFailure> {
        self.note(format!("{} {} by {by}", request.order, request.node));
        Ok(OrderReply::default())
    }
    fn lnd_adopt(&self, request: LndAdoptRequest, by: String) -> Result<LndAdoptReply, AdminFailure> {
        self.note(format!("adopt {} by {by}", request.node));
        Ok(LndAdoptReply::default())
    }
    fn doctor(&self, request: &DoctorRequest) -> Result<DoctorReply, AdminFailure> {
        self.note(format!("doctor {:?} {}", request.node, request.repair));
        Ok(DoctorReply::default())
    }
    fn hardening(&self) -> HardeningReply {
        self.note("hardening".to_owned());
        HardeningReply::default()
    }
    fn explain(&self, request: &str) -> Result<DecisionRecord, AdminFailure> {
        Ok(DecisionRecord { request: request.to_owned(), ..DecisionRecord::default() })
    }
    fn policy_status(&self) -> Result<PolicyInfo, AdminFailure> {
        Ok(PolicyInfo { highest_version: 7, ..PolicyInfo::default() })
    }
    fn policy_bundle(&self, sha256: &str) -> Result<PolicyFiles, AdminFailure> {
        self.note(format!("bundle {sha256}"));
        Ok(PolicyFiles::default())
    }
    fn policy_apply(&self, request: PolicyApplyRequest, _: &str) -> Result<PolicyInfo, AdminFailure> {
        let bytes: usize = request.files.iter().map(|file| file.content.len()).sum();
        self.note(format!("apply {} files, {bytes} bytes", request.files.len()));
        self.policy_status()
    }
    fn policy_rollback(&self, request: PolicyRollbackRequest, _: &str) -> Result<PolicyInfo, AdminFailure> {
        self.note(format!("rollback with {} signatures", request.signatures.len()));
        self.policy_status()
    }
    fn policy_shadow(&self, request: PolicyShadowRequest, by: &str) -> Result<PolicyShadowReply, AdminFailure> {
        self.note(format!("shadow of {} files by {by}", request.files.len()));
        Ok(PolicyShadowReply::default())
    }
    fn policy_history(&self, from_ms: u64, sink: &mut dyn Sink<ExportLine>) -> Result<(), AdminFailure> {
        self.journal_export(from_ms, sink)
    }
    fn grant_list(&self, request: &GrantListRequest) -> Result<Vec<GrantInfo>, AdminFailure> {
        Ok(vec![GrantInfo { node: request.node.clone(), ..GrantInfo::default() }])
    }
    fn grant_ask(&self, text: &str, signature: &str, _: &str) -> Result<GrantInfo, AdminFailure> {
        self.note(format!("ask {text} {signature}"));
        Ok(GrantInfo::default())
    }
    fn grant_approve(&self, grant: &str, signature: &str, _: &str) -> Result<GrantInfo, AdminFailure> {
        self.note(format!("approve {grant} {signature}"));
        Ok(GrantInfo::default())
    }
    fn grant_revoke(&self, grant: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        self.note(format!("revoke {grant} by {by}"));
        Ok(GrantInfo::default())
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

    fn notes(&self) -> Vec<String> {
        self.scribe.0.lock().unwrap().clone()
    }
}

async fn connect(path: &Path) -> AdminClient<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    AdminClient::new(Endpoint::from_static("http://claviger").connect_with_connector(connector).await.unwrap())
}

fn failure(status: &Status) -> (Code, String) {
    let error = AdminError::decode(status.details()).unwrap();
    assert!(!error.hint.is_empty() && error.what == status.message());
    (status.code(), error.id)
}

#[tokio::test]
async fn questions_arrive_and_answers_come_back() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    assert!(admin.status(StatusRequest {}).await.unwrap().into_inner().sealed);
    let unseal = UnsealRequest { passphrase: b"open sesame".to_vec(), ..UnsealRequest::default() };
    assert_eq!(admin.unseal(unseal).await.unwrap().into_inner().nodes, 2);
    assert_eq!(admin.node_list(NodeListRequest {}).await.unwrap().into_inner().nodes.len(), 3);
    let import = Some(SeedImport { format: "bip39".into(), secret: vec![1; 9], passphrase: vec![] });
    let add =
        NodeAddRequest { name: "alice".into(), kind: "ldk".into(), import, webhook_secret: vec![], api_token: vec![] };
    assert_eq!(admin.node_add(add).await.unwrap().into_inner().bundle, "the bundle");
    let renewed = admin.node_renew(NodeRequestByName { name: "alice".into() }).await.unwrap();
    assert_eq!(renewed.into_inner().bundle, "the bundle of alice");
    admin.node_revoke(NodeRevokeRequest { name: "alice".into(), serial: "0a".into() }).await.unwrap();
    admin.node_remove(NodeRemoveRequest { name: "alice".into(), confirm: "alice".into() }).await.unwrap();
    let export = admin.journal_export(JournalExportRequest { from: 5 }).await.unwrap();
    assert_eq!(export.into_inner().message().await.unwrap().unwrap().json, "{\"from\":5}");
    let explained = admin.explain(ExplainRequest { request: "alice-1".into() }).await.unwrap();
    assert_eq!(explained.into_inner().request, "alice-1");
    admin.shutdown(ShutdownRequest {}).await.unwrap();
    let expected =
        ["add alice ldk Some((\"bip39\", 9))", "revoke alice 0a", "remove alice alice", "shutdown"].map(str::to_owned);
    assert_eq!(world.notes(), expected);
}

#[tokio::test]
async fn what_opens_a_slot_arrives_with_who_enters_it() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    for (passphrase, slot, deliberate) in [("271828", 2, true), ("271828", 3, false), ("", 4, false)] {
        let unseal = UnsealRequest { passphrase: passphrase.into(), slot, deliberate };
        admin.unseal(unseal).await.unwrap_err();
    }
    let arrived = ["2, secret true, Deliberate", "3, secret true, Automatic", "4, secret false, Automatic"];
    assert_eq!(world.notes(), arrived.map(|words| format!("unseal slot {words}")));
    for (slot, id) in [(65_538, "not-found"), (0, "passphrase")] {
        let nobody = admin.unseal(UnsealRequest { slot, ..UnsealRequest::default() }).await.unwrap_err();
        assert_eq!(failure(&nobody).1, id);
    }
}

#[tokio::test]
async fn a_data_key_arrives_whole_or_not_at_all() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    for length in [31, 33] {
        let refused = admin.rotate_data_key(RotateDataKeyRequest { data_key: vec![7; length] }).await.unwrap_err();
        assert_eq!(failure(&refused), (Code::InvalidArgument, "invalid".to_owned()));
    }
    let mut progress =
        admin.rotate_data_key(RotateDataKeyRequest { data_key: vec![7; 32] }).await.unwrap().into_inner();
    assert_eq!(progress.next().await.unwrap().unwrap().total, 7);
    assert!(progress.next().await.is_none());
}

#[tokio::test]
async fn an_order_arrives_with_the_name_of_who_gave_it() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    let order = OrderRequest { node: "alice".into(), order: "freeze".into(), ..OrderRequest::default() };
    admin.order(order).await.unwrap();
    let list = admin.channel_list(ChannelListRequest { node: "alice".into() }).await.unwrap().into_inner();
    assert_eq!((list.node.as_str(), list.channels.len()), ("alice", 2));
    let show = ChannelShowRequest { node: "alice".into(), channel: "7".into() };
    assert_eq!(admin.channel_show(show).await.unwrap().into_inner().channel, "7 of alice");
    admin.doctor(DoctorRequest { node: String::new(), repair: true, lnd: vec![] }).await.unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(world.notes(), [format!("freeze alice by uid {own}"), "doctor \"\" true".to_owned()]);
}

#[tokio::test]
async fn a_long_answer_stops_when_nobody_reads_it() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    let tail = |lines| JournalTailRequest { lines, follow: false, node: String::new() };
    let short: Vec<_> = admin.journal_tail(tail(3)).await.unwrap().into_inner().collect().await;
    assert_eq!(short.len(), 3);
    let mut endless = admin.journal_tail(tail(u32::MAX)).await.unwrap().into_inner();
    endless.message().await.unwrap();
    drop((endless, admin));
    while world.notes().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_error_arrives_with_its_kind_words_and_hint() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    let wrong =
        admin.unseal(UnsealRequest { passphrase: b"guess".to_vec(), ..UnsealRequest::default() }).await.unwrap_err();
    assert_eq!(failure(&wrong), (Code::PermissionDenied, "passphrase".to_owned()));
    let sealed = admin.seal(SealRequest {}).await.unwrap_err();
    assert_eq!(failure(&sealed), (Code::FailedPrecondition, "sealed".to_owned()));
    let mut verify = admin.journal_verify(JournalVerifyRequest {}).await.unwrap().into_inner();
    assert_eq!(verify.message().await.unwrap().unwrap().checked, 6);
    assert_eq!(failure(&verify.message().await.unwrap_err()), (Code::DataLoss, "damaged".to_owned()));
}

#[tokio::test]
async fn a_panic_inside_one_call_is_that_calls_failure() {
    let world = World::new();
    let mut admin = connect(&world.path()).await;
    let failed = admin.node_show(NodeRequestByName { name: "alice".into() }).await.unwrap_err();
    assert_eq!(failure(&failed), (Code::Internal, "fault".to_owned()));
    admin.status(StatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_can_open_the_socket_and_it_goes_with_its_daemon() {
    let world = World::new();
    let path = world.path();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    world.socket.shutdown().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_live_daemons_socket_is_left_alone_and_a_dead_ones_replaced() {
    let world = World::new();
    let path = world.path();
    let start = |path: &Path| AdminSocket::start(path, Arc::<Scribe>::default());
    assert_eq!(start(&path).unwrap_err(), SocketError::InUse(path.clone()));
    connect(&path).await.status(StatusRequest {}).await.unwrap();

    let dead = world.dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let _socket = start(&dead).unwrap();
    connect(&dead).await.status(StatusRequest {}).await.unwrap();

    let file = world.dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(start(&file).unwrap_err(), SocketError::NotASocket(file.clone()));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

/// The largest bundle arrives whole, and who takes a grant back is the kernel's word.
#[tokio::test]
async fn policies_and_grants_arrive_as_they_were_sent() {
    let world = World::new();
    let mut client = connect(&world.path()).await;
    let file = |name: usize| BundleFile { name: format!("a{name}.cedar"), content: vec![b' '; 1 << 20] };
    let request = PolicyApplyRequest { files: (0..8).map(file).collect(), from_ms: 0 };
    assert_eq!(client.policy_apply(request).await.unwrap().into_inner().highest_version, 7);
    let signed = GrantApproveRequest { grant: "9f86".to_owned(), signature: "by bob".to_owned() };
    client.grant_approve(signed).await.unwrap();
    client.grant_revoke(GrantRevokeRequest { grant: "9f86".to_owned() }).await.unwrap();
    let own = rustix::process::geteuid().as_raw();
    let expected = ["apply 8 files, 8388608 bytes", "approve 9f86 by bob", &format!("revoke 9f86 by uid {own}")];
    assert_eq!(world.notes(), expected);
    let mut lines = client.policy_history(PolicyHistoryRequest { from_ms: 3 }).await.unwrap().into_inner();
    assert_eq!(lines.next().await.unwrap().unwrap().json, "{\"from\":3}");
}
