//! Calls to the running daemon over its socket.

use std::io;
use std::path::Path;

use claviger_policy::tooling::MAX_LINE_BYTES;
use claviger_proto::v1::AdminError;
use claviger_proto::v1::admin_client::AdminClient;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status, Streaming};

use super::CliError;
use crate::datadir::DataDir;

/// The running daemon.
pub(super) struct Daemon {
    runtime: Runtime,
    client: AdminClient<Channel>,
}

/// Connects to the daemon that runs on `data_dir`.
pub(super) fn connect(data_dir: &Path) -> Result<Daemon, CliError> {
    let dir = DataDir::open_to_connect(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let socket = dir.admin_socket();
    // Tried first by itself, for its exact error.
    std::os::unix::net::UnixStream::connect(&socket).map_err(|error| unreachable(data_dir, &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(error, "Try again."))?;
    let channel = runtime.block_on(async {
        // The address is only a label: the connector decides.
        let endpoint = Endpoint::from_static("http://claviger");
        let connect = move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        };
        endpoint.connect_with_connector(tower::service_fn(connect)).await
    });
    let channel = channel.map_err(|error| {
        CliError::new(format!("the daemon does not answer: {error}"), "Look at the daemon's log.")
            .with_id("unreachable")
    })?;
    let client = AdminClient::new(channel).max_decoding_message_size(MAX_LINE_BYTES);
    Ok(Daemon { runtime, client })
}

impl Daemon {
    /// Makes one call.
    pub(super) fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut AdminClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let mut client = self.client.clone();
        self.runtime.block_on(call(&mut client)).map(Response::into_inner).map_err(error)
    }

    /// Makes one call and hands on each element of the answer.
    pub(super) fn stream<T>(
        &self,
        call: impl AsyncFnOnce(&mut AdminClient<Channel>) -> Result<Response<Streaming<T>>, Status>,
        mut each: impl FnMut(T),
    ) -> Result<(), CliError> {
        self.stream_while(call, |element| {
            each(element);
            true
        })
    }

    /// The same until `each` returns false.
    pub(super) fn stream_while<T>(
        &self,
        call: impl AsyncFnOnce(&mut AdminClient<Channel>) -> Result<Response<Streaming<T>>, Status>,
        mut each: impl FnMut(T) -> bool,
    ) -> Result<(), CliError> {
        let mut client = self.client.clone();
        self.runtime.block_on(async {
            let mut elements = call(&mut client).await.map_err(error)?.into_inner();
            while let Some(element) = elements.message().await.map_err(error)? {
                if !each(element) {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn unreachable(data_dir: &Path, error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            CliError::new(format!("the daemon's socket: {error}"), "Run this command as the daemon's user, or as root.")
        }
        _ => CliError::new(
            format!("no daemon runs on {}", data_dir.display()),
            "Start it with `claviger run`, or name its directory with --data-dir.",
        )
        .with_id("unreachable"),
    }
}

fn error(status: Status) -> CliError {
    match AdminError::decode(status.details()) {
        Ok(AdminError { id, what, hint }) if !what.is_empty() => CliError::new(what, hint).with_id(id),
        _ => CliError::new(format!("the daemon did not answer: {}", status.message()), "Look at the daemon's log.")
            .with_id("unreachable"),
    }
}
