//! The administration socket: `claviger.v1.Admin` over a Unix socket that only its owner and root can use.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_proto::v1::admin_server::{Admin, AdminServer};
use claviger_proto::v1::*;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use zeroize::Zeroizing;

use super::api::{AdminApi, AdminFailure, FailureKind, Sink};
use crate::keys::memory::scrub_stack;
use crate::keys::passphrase::Passphrase;

/// Elements of a long answer that wait for a slow reader.
const READ_AHEAD: usize = 64;

/// The socket in the file system; removed when dropped.
pub struct AdminSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl AdminSocket {
    /// Makes the socket at `path` with mode 0600, in place of one that a killed daemon left. The caller holds the data
    /// directory's lock, so no living daemon's socket is replaced. Call it within a tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path: path.to_owned(), listener: Some(listener) })
    }

    /// Answers calls with `api` until `stop` is told.
    pub async fn serve(mut self, api: Arc<dyn AdminApi>, stop: oneshot::Receiver<()>) -> Result<(), tonic::transport::Error> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let (ready, connections) = mpsc::channel::<io::Result<UnixStream>>(1);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Err(caller) = allowed(&stream) {
                    tracing::warn!(caller, "admin: refused, the caller is neither the daemon's user nor root");
                } else if ready.send(Ok(stream)).await.is_err() {
                    return;
                }
            }
        });
        let stopped = async { stop.await.unwrap_or(()) };
        let service = AdminServer::new(Service { api });
        let result = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), stopped)
            .await;
        accepting.abort();
        result
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The file's mode keeps others out; the kernel's word on who is there keeps them out of a directory with wrong rights.
fn allowed(stream: &UnixStream) -> Result<(), u32> {
    let caller = stream.peer_cred().map_or(u32::MAX, |credentials| credentials.uid());
    let own = rustix::process::geteuid().as_raw();
    if caller == own || caller == 0 { Ok(()) } else { Err(caller) }
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
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = done.send(call(&*api));
            scrub_stack();
        });
        thread.map_err(|error| Status::internal(error.to_string()))?;
        match outcome.await {
            Ok(result) => result.map(Response::new).map_err(status),
            Err(_) => Err(status(AdminFailure::new(FailureKind::Fault, "the call failed inside", "Look at the daemon's log."))),
        }
    }

    /// The same for a long answer.
    fn stream<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn AdminApi, Sink<T>) -> Result<(), AdminFailure> + Send + 'static,
    ) -> Reply<ReceiverStream<Result<T, Status>>> {
        let api = Arc::clone(&self.api);
        let (elements, answer) = mpsc::channel(READ_AHEAD);
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let mut sink = |element| elements.blocking_send(Ok(element)).is_ok();
            if let Err(failure) = call(&*api, &mut sink) {
                let _ = elements.blocking_send(Err(status(failure)));
            }
        });
        thread.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ReceiverStream::new(answer)))
    }
}

fn status(failure: AdminFailure) -> Status {
    let code = match failure.kind {
        FailureKind::Invalid => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Exists => Code::AlreadyExists,
        FailureKind::Sealed | FailureKind::NotSealed => Code::FailedPrecondition,
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

    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusReply> {
        self.run(|api| Ok(api.status())).await
    }

    async fn unseal(&self, request: Request<UnsealRequest>) -> Reply<UnsealReply> {
        let passphrase = Zeroizing::new(request.into_inner().passphrase);
        self.run(move |api| {
            let passphrase = Passphrase::copy_from(&passphrase)
                .map_err(|error| AdminFailure::new(FailureKind::Passphrase, &error, error.hint()))?;
            api.unseal(&passphrase)
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

    async fn node_remove(&self, request: Request<NodeRemoveRequest>) -> Reply<NodeRemoveReply> {
        let request = request.into_inner();
        self.run(move |api| api.node_remove(&request).map(|()| NodeRemoveReply {})).await
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

    async fn explain(&self, request: Request<ExplainRequest>) -> Reply<DecisionRecord> {
        let request = request.into_inner();
        self.run(move |api| api.explain(&request.request)).await
    }
}
