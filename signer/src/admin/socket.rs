//! The administration socket: `claviger.v1.Admin` over a Unix socket that only its owner and root can use.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claviger_hsm::Tries;
use claviger_proto::v1::admin_server::{Admin, AdminServer};
use claviger_proto::v1::*;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};
use zeroize::Zeroizing;

use super::api::{AdminApi, AdminFailure, Brought, FailureKind, Sink};
use crate::keys::memory::{Secret, scrub_stack, spawn};
use crate::keys::passphrase::Passphrase;

/// Elements of a long answer that wait for a slow reader.
const READ_AHEAD: usize = 64;

/// The largest administration message: a policy bundle with room to spare.
const MAX_ADMIN_BYTES: usize = 2 * claviger_policy::bundle::MAX_BUNDLE_BYTES;

/// How long a stopping socket waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);

/// Why the socket cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers on it.
    #[error("another daemon answers on {0}")]
    InUse(PathBuf),
    /// Something that is not a socket has its name.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot open the socket {path}: {cause}")]
    System {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
}

impl SocketError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse(_) => "Stop the other daemon, or use another data directory.",
            Self::NotASocket(_) => "Move the file away.",
            Self::System { .. } => "Look at the data directory's owner, mode (0700) and the length of its path.",
        }
    }
}

/// A running administration socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    accepting: JoinHandle<()>,
    serving: JoinHandle<()>,
}

/// An administration socket that nobody answers yet.
#[derive(Debug)]
pub struct AdminListener {
    path: PathBuf,
    listener: net::UnixListener,
}

impl AdminSocket {
    /// Opens `path`, in a directory of mode 0700, and serves `api`. Call it within a tokio runtime, with the data
    /// directory locked: a socket that nobody answers is taken for a dead daemon's and replaced.
    pub fn start(path: &Path, api: Arc<dyn AdminApi>) -> Result<Self, SocketError> {
        Self::serve(Self::listen(path)?, api)
    }

    /// The first half of that, for a process that opens no such sockets later.
    pub fn listen(path: &Path) -> Result<AdminListener, SocketError> {
        Ok(AdminListener { path: path.to_owned(), listener: bind(path)? })
    }

    /// The other half.
    pub fn serve(AdminListener { path, listener }: AdminListener, api: Arc<dyn AdminApi>) -> Result<Self, SocketError> {
        let listener = UnixListener::from_std(listener).map_err(|error| system(&path, &error))?;
        let (ready, callers) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept_loop(listener, ready));
        let service = AdminServer::new(Service { api }).max_decoding_message_size(MAX_ADMIN_BYTES);
        let router = Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            let incoming = ReceiverStream::new(callers).map(Ok::<_, io::Error>);
            let stopped = async { stopped.await.unwrap_or(()) };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "admin: the socket failed");
            }
        });
        Ok(Self { path, stop: Some(stop), accepting, serving })
    }

    /// Stops after the answers under way, or a little later.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = tokio::time::timeout(GRACE, &mut self.serving).await;
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.accepting.abort();
        self.serving.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn system(path: &Path, error: &io::Error) -> SocketError {
    SocketError::System { path: path.into(), cause: error.to_string() }
}

fn bind(path: &Path) -> Result<net::UnixListener, SocketError> {
    let system = |error: io::Error| system(path, &error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket(path.into())),
        Ok(_) if net::UnixStream::connect(path).is_ok() => return Err(SocketError::InUse(path.into())),
        Ok(_) => std::fs::remove_file(path).map_err(system)?,
    }
    let listener = net::UnixListener::bind(path).map_err(system)?;
    listener.set_nonblocking(true).map_err(system)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(system)?;
    Ok(listener)
}

/// Lets the daemon's user and root in. The socket's mode says the same; the kernel's word for the peer is the second lock.
async fn accept_loop(listener: UnixListener, ready: mpsc::Sender<UnixStream>) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept connections");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        match stream.peer_cred().map(|peer| peer.uid()) {
            Ok(uid) if uid == own || uid == 0 => {
                if ready.send(stream).await.is_err() {
                    return;
                }
            }
            Ok(uid) => tracing::warn!(uid, "admin: refused: not the daemon's user"),
            Err(error) => tracing::warn!(%error, "admin: refused: the caller is unknown"),
        }
    }
}

struct Service {
    api: Arc<dyn AdminApi>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    /// Runs a blocking call on a thread of its own, whose stack is wiped afterwards: passphrases and keys pass there.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn AdminApi) -> Result<T, AdminFailure> + Send + 'static,
    ) -> Reply<T> {
        let api = Arc::clone(&self.api);
        let (done, outcome) = oneshot::channel();
        let thread = spawn("admin", move || {
            // Nobody may be waiting any more.
            let _ = done.send(call(&*api));
            scrub_stack();
        });
        thread.map_err(|error| Status::internal(error.to_string()))?;
        match outcome.await {
            Ok(result) => result.map(Response::new).map_err(status),
            Err(_) => Err(status(AdminFailure::new(
                FailureKind::Fault,
                "the call failed inside",
                "Look at the daemon's log.",
            ))),
        }
    }

    /// The same for a long answer.
    fn stream<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn AdminApi, &mut dyn Sink<T>) -> Result<(), AdminFailure> + Send + 'static,
    ) -> Reply<ReceiverStream<Result<T, Status>>> {
        let api = Arc::clone(&self.api);
        let (elements, answer) = mpsc::channel(READ_AHEAD);
        let thread = spawn("admin", move || {
            let mut reader = Reader(elements);
            if let Err(failure) = call(&*api, &mut reader) {
                let _ = reader.0.blocking_send(Err(status(failure)));
            }
        });
        thread.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ReceiverStream::new(answer)))
    }
}

/// Who reads a long answer, some elements behind.
struct Reader<T>(mpsc::Sender<Result<T, Status>>);

impl<T> Sink<T> for Reader<T> {
    fn put(&mut self, element: T) -> bool {
        self.0.blocking_send(Ok(element)).is_ok()
    }

    fn offer(&mut self, element: T) -> bool {
        !matches!(self.0.try_send(Ok(element)), Err(TrySendError::Closed(_)))
    }

    fn put_while(&mut self, mut element: T, goes_on: &dyn Fn() -> bool) -> bool {
        loop {
            match self.0.try_send(Ok(element)) {
                Err(TrySendError::Full(Ok(unsent))) if goes_on() => element = unsent,
                sent => return sent.is_ok(),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_read(&self) -> bool {
        !self.0.is_closed()
    }
}

/// Who called, as the kernel says.
fn caller<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    peer.map_or_else(|| "an unknown user".to_owned(), |peer| format!("uid {}", peer.uid()))
}

fn status(failure: AdminFailure) -> Status {
    let code = match failure.kind {
        FailureKind::Invalid => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Exists => Code::AlreadyExists,
        FailureKind::Sealed | FailureKind::NotSealed | FailureKind::Device => Code::FailedPrecondition,
        FailureKind::Passphrase => Code::PermissionDenied,
        FailureKind::RateLimited => Code::ResourceExhausted,
        FailureKind::Damaged => Code::DataLoss,
        FailureKind::Fault => Code::Internal,
    };
    let message = failure.what.clone();
    Status::with_details(code, message, AdminError::from(failure).encode_to_vec().into())
}

#[tonic::async_trait]
impl Admin for Service {
    type JournalTailStream = ReceiverStream<Result<DecisionRecord, Status>>;
    type JournalVerifyStream = ReceiverStream<Result<VerifyProgress, Status>>;
    type JournalExportStream = ReceiverStream<Result<ExportLine, Status>>;
    type RotateDataKeyStream = ReceiverStream<Result<RotationProgress, Status>>;
    type BackupStream = ReceiverStream<Result<BackupPiece, Status>>;
    type PolicyHistoryStream = ReceiverStream<Result<ExportLine, Status>>;

    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusReply> {
        self.run(|api| Ok(api.status())).await
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Reply<MetricsReply> {
        self.run(|api| Ok(api.metrics())).await
    }

    async fn unseal(&self, request: Request<UnsealRequest>) -> Reply<UnsealReply> {
        let UnsealRequest { passphrase, slot, deliberate } = request.into_inner();
        let secret = Zeroizing::new(passphrase);
        self.run(move |api| {
            let invalid =
                |_| AdminFailure::new(FailureKind::NotFound, "there is no such slot", "`claviger slots list`.");
            let slot = Some(slot).filter(|slot| *slot != 0).map(u16::try_from).transpose().map_err(invalid)?;
            let secret = if secret.is_empty() && slot.is_some() { None } else { Some(Passphrase::copy_from(&secret)) };
            let secret =
                secret.transpose().map_err(|error| AdminFailure::new(FailureKind::Passphrase, &error, error.hint()))?;
            let tries = if deliberate { Tries::Deliberate } else { Tries::Automatic };
            api.unseal(Brought { secret, slot, tries })
        })
        .await
    }

    async fn seal(&self, _: Request<SealRequest>) -> Reply<SealReply> {
        self.run(|api| api.seal().map(|()| SealReply {})).await
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Reply<ShutdownReply> {
        self.run(|api| {
            api.shutdown();
            Ok(ShutdownReply {})
        })
        .await
    }

    async fn node_add(&self, request: Request<NodeAddRequest>) -> Reply<EnrolmentReply> {
        let request = request.into_inner();
        self.run(|api| api.node_add(request)).await
    }

    async fn node_list(&self, _: Request<NodeListRequest>) -> Reply<NodeListReply> {
        self.run(|api| api.node_list().map(|nodes| NodeListReply { nodes })).await
    }

    async fn node_show(&self, request: Request<NodeRequestByName>) -> Reply<NodeInfo> {
        let request = request.into_inner();
        self.run(move |api| api.node_show(&request.name)).await
    }

    async fn node_renew(&self, request: Request<NodeRequestByName>) -> Reply<EnrolmentReply> {
        let request = request.into_inner();
        self.run(move |api| api.node_renew(&request.name)).await
    }

    async fn node_revoke(&self, request: Request<NodeRevokeRequest>) -> Reply<NodeInfo> {
        let request = request.into_inner();
        self.run(move |api| api.node_revoke(&request)).await
    }

    async fn account_secrets(&self, request: Request<AccountSecretsRequest>) -> Reply<NodeInfo> {
        let request = request.into_inner();
        self.run(move |api| api.account_secrets(request)).await
    }

    async fn node_remove(&self, request: Request<NodeRemoveRequest>) -> Reply<NodeRemoveReply> {
        let request = request.into_inner();
        self.run(move |api| api.node_remove(&request).map(|()| NodeRemoveReply {})).await
    }

    async fn channel_list(&self, request: Request<ChannelListRequest>) -> Reply<ChannelListReply> {
        let node = request.into_inner().node;
        self.run(move |api| api.channel_list(&node).map(|channels| ChannelListReply { node, channels })).await
    }

    async fn channel_show(&self, request: Request<ChannelShowRequest>) -> Reply<ChannelInfo> {
        let ChannelShowRequest { node, channel } = request.into_inner();
        self.run(move |api| api.channel_show(&node, &channel)).await
    }

    async fn order(&self, request: Request<OrderRequest>) -> Reply<OrderReply> {
        let by = caller(&request);
        let request = request.into_inner();
        self.run(move |api| api.order(&request, by)).await
    }

    async fn lnd_adopt(&self, request: Request<LndAdoptRequest>) -> Reply<LndAdoptReply> {
        let by = caller(&request);
        let request = request.into_inner();
        self.run(move |api| api.lnd_adopt(request, by)).await
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Reply<DoctorReply> {
        let request = request.into_inner();
        self.run(move |api| api.doctor(&request)).await
    }

    async fn hardening(&self, _: Request<HardeningRequest>) -> Reply<HardeningReply> {
        self.run(|api| Ok(api.hardening())).await
    }

    async fn recover_channel(&self, request: Request<RecoverChannelRequest>) -> Reply<RecoveredChannel> {
        let request = request.into_inner();
        self.run(move |api| api.recover_channel(request)).await
    }

    async fn journal_tail(&self, request: Request<JournalTailRequest>) -> Reply<Self::JournalTailStream> {
        let JournalTailRequest { lines, follow, node } = request.into_inner();
        self.stream(move |api, sink| api.journal_tail(lines, follow, &node, sink))
    }

    async fn journal_verify(&self, _: Request<JournalVerifyRequest>) -> Reply<Self::JournalVerifyStream> {
        self.stream(|api, sink| api.journal_verify(sink))
    }

    async fn journal_export(&self, request: Request<JournalExportRequest>) -> Reply<Self::JournalExportStream> {
        let from = request.into_inner().from;
        self.stream(move |api, sink| api.journal_export(from, sink))
    }

    async fn rotate_data_key(&self, request: Request<RotateDataKeyRequest>) -> Reply<Self::RotateDataKeyStream> {
        let by = caller(&request);
        let key = Zeroizing::new(request.into_inner().data_key);
        let key = <&[u8; 32]>::try_from(&key[..]).ok().map(|key| Secret::init(|place| *place = *key));
        let key = key.ok_or_else(|| {
            let hint = "Use the `claviger rotate` of the same version.";
            status(AdminFailure::new(FailureKind::Invalid, "a data key has 32 bytes", hint))
        })?;
        self.stream(move |api, sink| api.rotate_data_key(key, &by, sink))
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Reply<Self::BackupStream> {
        let request = request.into_inner();
        self.stream(move |api, sink| api.backup(&request, sink))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Reply<DecisionRecord> {
        let request = request.into_inner();
        self.run(move |api| api.explain(&request.request)).await
    }

    async fn policy_status(&self, _: Request<PolicyStatusRequest>) -> Reply<PolicyInfo> {
        self.run(|api| api.policy_status()).await
    }

    async fn policy_bundle(&self, request: Request<PolicyBundleRequest>) -> Reply<PolicyFiles> {
        let request = request.into_inner();
        self.run(move |api| api.policy_bundle(&request.sha256)).await
    }

    async fn policy_apply(&self, request: Request<PolicyApplyRequest>) -> Reply<PolicyInfo> {
        let (by, request) = (caller(&request), request.into_inner());
        self.run(move |api| api.policy_apply(request, &by)).await
    }

    async fn policy_rollback(&self, request: Request<PolicyRollbackRequest>) -> Reply<PolicyInfo> {
        let (by, request) = (caller(&request), request.into_inner());
        self.run(move |api| api.policy_rollback(request, &by)).await
    }

    async fn policy_shadow(&self, request: Request<PolicyShadowRequest>) -> Reply<PolicyShadowReply> {
        let (by, request) = (caller(&request), request.into_inner());
        self.run(move |api| api.policy_shadow(request, &by)).await
    }

    async fn policy_history(&self, request: Request<PolicyHistoryRequest>) -> Reply<Self::PolicyHistoryStream> {
        let from_ms = request.into_inner().from_ms;
        self.stream(move |api, sink| api.policy_history(from_ms, sink))
    }

    async fn grant_list(&self, request: Request<GrantListRequest>) -> Reply<GrantListReply> {
        let request = request.into_inner();
        self.run(move |api| api.grant_list(&request).map(|grants| GrantListReply { grants })).await
    }

    async fn grant_ask(&self, request: Request<GrantAskRequest>) -> Reply<GrantInfo> {
        let by = caller(&request);
        let GrantAskRequest { text, signature } = request.into_inner();
        self.run(move |api| api.grant_ask(&text, &signature, &by)).await
    }

    async fn grant_approve(&self, request: Request<GrantApproveRequest>) -> Reply<GrantInfo> {
        let by = caller(&request);
        let GrantApproveRequest { grant, signature } = request.into_inner();
        self.run(move |api| api.grant_approve(&grant, &signature, &by)).await
    }

    async fn grant_revoke(&self, request: Request<GrantRevokeRequest>) -> Reply<GrantInfo> {
        let by = caller(&request);
        let GrantRevokeRequest { grant } = request.into_inner();
        self.run(move |api| api.grant_revoke(&grant, &by)).await
    }
}
