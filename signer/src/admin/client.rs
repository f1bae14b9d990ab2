//! The command line's end of the administration socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger_proto::v1::admin_client::AdminClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::admin::api::{AdminError, AdminErrorKind};

/// Connects to the daemon whose socket is `path`. Its calls fail with a status; `AdminError::from` reads it.
pub async fn connect(path: &Path) -> Result<AdminClient<Channel>, AdminError> {
    // Tried first by itself, for its exact error.
    drop(UnixStream::connect(path).await.map_err(|error| explain(path, &error))?);
    let path: PathBuf = path.into();
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://daemon.claviger")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector(connector)
        .await;
    channel.map(AdminClient::new).map_err(|error| {
        AdminError::new(AdminErrorKind::Fault, format!("the daemon does not answer: {error}"), "Look at its log.")
    })
}

fn explain(path: &Path, error: &io::Error) -> AdminError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdminError::new(
            AdminErrorKind::NotRunning,
            format!("no daemon runs on this data directory ({path}: {error})"),
            "Start it with `claviger run`, or name its directory with --data-dir.",
        ),
        io::ErrorKind::PermissionDenied => AdminError::new(
            AdminErrorKind::Forbidden,
            format!("{path}: {error}"),
            "Run this command as the daemon's user, or as root.",
        ),
        _ => AdminError::new(AdminErrorKind::Fault, format!("{path}: {error}"), "Look at the daemon's log."),
    }
}
