//! The administration socket: gRPC over a Unix socket that only the daemon's user and root can use.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claviger_proto::v1;
use claviger_proto::v1::admin_server::{Admin, AdminServer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::admin::api::{AdminApi, AdminError, AdminErrorKind, AdminStream, SeedImport};
use crate::admin::record::Which;
use crate::names::{NodeKind, NodeName};

/// The largest administration message: an imported seed file with room to spare.
const MAX_ADMIN_BYTES: usize = 1024 * 1024;

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

impl AdminSocket {
    /// Opens `path`, in a directory of mode 0700, and serves `api`. Call it within a tokio runtime, with the data
    /// directory locked: a socket that nobody answers is taken for a dead daemon's and replaced.
    pub fn start(path: &Path, api: Arc<dyn AdminApi>) -> Result<Self, SocketError> {
        let listener = bind(path)?;
        let (ready, callers) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept_loop(listener, ready));
        let service = AdminServer::new(Adapter(api)).max_decoding_message_size(MAX_ADMIN_BYTES);
        let router = Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            let incoming = ReceiverStream::new(callers).map(Ok::<_, io::Error>);
            let stopped = async { stopped.await.unwrap_or(()) };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "admin: the socket failed");
            }
        });
        Ok(Self { path: path.to_owned(), stop: Some(stop), accepting, serving })
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

fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let system = |error: io::Error| SocketError::System { path: path.into(), cause: error.to_string() };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket(path.into())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Err(SocketError::InUse(path.into())),
        Ok(_) => std::fs::remove_file(path).map_err(system)?,
    }
    let listener = UnixListener::bind(path).map_err(system)?;
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

/// gRPC on one side, [`AdminApi`] on the other: checks names, wipes secrets, turns errors into statuses.
struct Adapter(Arc<dyn AdminApi>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Adapter {
    type JournalTailStream = StatusStream<v1::DecisionRecord>;
    type JournalVerifyStream = StatusStream<v1::VerifyProgress>;
    type JournalExportStream = StatusStream<v1::ExportLine>;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusReply> {
        Ok(Response::new(self.0.status().await?))
    }

    async fn unseal(&self, request: Request<v1::UnsealRequest>) -> Answer<v1::UnsealReply> {
        let nodes = self.0.unseal(Zeroizing::new(request.into_inner().passphrase)).await?;
        Ok(Response::new(v1::UnsealReply { nodes }))
    }

    async fn seal(&self, _: Request<v1::SealRequest>) -> Answer<v1::SealReply> {
        self.0.seal().await?;
        Ok(Response::new(v1::SealReply {}))
    }

    async fn shutdown(&self, _: Request<v1::ShutdownRequest>) -> Answer<v1::ShutdownReply> {
        self.0.shutdown().await?;
        Ok(Response::new(v1::ShutdownReply {}))
    }

    async fn node_add(&self, request: Request<v1::NodeAddRequest>) -> Answer<v1::EnrolmentReply> {
        let v1::NodeAddRequest { name, kind, import } = request.into_inner();
        let import = import.map(|v1::SeedImport { format, secret, passphrase }| SeedImport {
            format,
            secret: Zeroizing::new(secret),
            passphrase: Zeroizing::new(passphrase),
        });
        enrolment(self.0.node_add(node_name(&name)?, node_kind(&kind)?, import).await?)
    }

    async fn node_list(&self, _: Request<v1::NodeListRequest>) -> Answer<v1::NodeListReply> {
        Ok(Response::new(v1::NodeListReply { nodes: self.0.node_list().await? }))
    }

    async fn node_show(&self, request: Request<v1::NodeRequestByName>) -> Answer<v1::NodeInfo> {
        Ok(Response::new(self.0.node_show(node_name(&request.into_inner().name)?).await?))
    }

    async fn node_renew(&self, request: Request<v1::NodeRequestByName>) -> Answer<v1::EnrolmentReply> {
        enrolment(self.0.node_renew(node_name(&request.into_inner().name)?).await?)
    }

    async fn node_revoke(&self, request: Request<v1::NodeRevokeRequest>) -> Answer<v1::NodeInfo> {
        let v1::NodeRevokeRequest { name, serial } = request.into_inner();
        let which = if serial.is_empty() { Which::All } else { Which::Serial(serial) };
        Ok(Response::new(self.0.node_revoke(node_name(&name)?, which).await?))
    }

    async fn node_remove(&self, request: Request<v1::NodeRemoveRequest>) -> Answer<v1::NodeRemoveReply> {
        let v1::NodeRemoveRequest { name, confirm } = request.into_inner();
        if name != confirm {
            let what = format!("removing '{name}' destroys its keys, and was not confirmed");
            return Err(AdminError::new(AdminErrorKind::Invalid, what, "Repeat the node's name to confirm.").into());
        }
        self.0.node_remove(node_name(&name)?).await?;
        Ok(Response::new(v1::NodeRemoveReply {}))
    }

    async fn journal_tail(&self, request: Request<v1::JournalTailRequest>) -> Answer<Self::JournalTailStream> {
        let v1::JournalTailRequest { lines, follow, node } = request.into_inner();
        let node = if node.is_empty() { None } else { Some(node_name(&node)?) };
        Ok(statuses(self.0.journal_tail(lines, follow, node).await?))
    }

    async fn journal_verify(&self, _: Request<v1::JournalVerifyRequest>) -> Answer<Self::JournalVerifyStream> {
        Ok(statuses(self.0.journal_verify().await?))
    }

    async fn journal_export(&self, request: Request<v1::JournalExportRequest>) -> Answer<Self::JournalExportStream> {
        Ok(statuses(self.0.journal_export(request.into_inner().from).await?))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::DecisionRecord> {
        Ok(Response::new(self.0.explain(request.into_inner().request).await?))
    }
}

type StatusStream<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

fn statuses<T: 'static>(stream: AdminStream<T>) -> Response<StatusStream<T>> {
    Response::new(Box::pin(stream.map(|item| item.map_err(Status::from))))
}

fn enrolment((node, bundle): (v1::NodeInfo, claviger_proto::bundle::Bundle)) -> Answer<v1::EnrolmentReply> {
    Ok(Response::new(v1::EnrolmentReply { node: Some(node), bundle: bundle.to_text().to_string() }))
}

fn node_name(text: &str) -> Result<NodeName, AdminError> {
    NodeName::new(text).map_err(|error| invalid(error.to_string()))
}

fn node_kind(text: &str) -> Result<NodeKind, AdminError> {
    text.parse().map_err(|error: crate::names::BadKind| invalid(error.to_string()))
}

fn invalid(what: String) -> AdminError {
    AdminError::new(AdminErrorKind::Invalid, what, "Correct it and try again.")
}
