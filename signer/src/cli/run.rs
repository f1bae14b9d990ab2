//! `claviger run`.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use claviger_hsm::Tries;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{CliError, PassphraseArgs, harden};
use crate::admin::api::Brought;
use crate::admin::socket::AdminSocket;
use crate::config::{Config, LogConfig, LogFormat};
use crate::daemon::Daemon;
use crate::datadir::DataDir;
use crate::harden::{refuse_build, refuse_environment};
use crate::reasons::Reason;

/// What `run` is told.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Unseal at once with this slot, and the PIN or passphrase from the source if it wants one. If it does not open, stay
    /// sealed.
    #[arg(long, value_name = "N")]
    slot: Option<u16>,
    /// Unseal at once with the passphrase from this source.
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Threads for sockets; signing has its own.
const IO_THREADS: usize = 2;

/// Runs the daemon until SIGINT or SIGTERM.
pub(super) fn run(data_dir: &Path, args: RunArgs) -> Result<(), CliError> {
    refuse_build().map_err(|error| CliError::new(error, error.hint()))?;
    let names = std::env::vars_os().map(|(name, _)| name);
    refuse_environment(names).map_err(|error| CliError::new(&error, error.hint()))?;
    let hardening = harden(&args.passphrase.descriptors())?;
    let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let lock = dir.lock().map_err(|error| CliError::new(&error, error.hint()))?;
    let config = Config::load(&dir.config()).map_err(|error| CliError::new(&error, error.hint()))?;
    start_log(&config.log);
    // A panic's message may quote what was in memory: only its place is told (P8).
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(place = ?panic.location().map(ToString::to_string), "panic"),
    ));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(IO_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(error, "Check the limits on threads."))?;
    let socket_path = dir.admin_socket();
    let daemon = Arc::new(Daemon::new(dir, lock, config, hardening, runtime.handle().clone()));
    let socket = runtime.block_on(async { AdminSocket::start(&socket_path, daemon.clone()) });
    let socket = socket.map_err(|error| CliError::new(&error, error.hint()))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started, sealed");
    let opened = if args.slot.is_some() {
        let secret = args.passphrase.is_given().then(|| args.passphrase.read()).transpose()?;
        daemon.open_by(Brought { secret, slot: args.slot, tries: Tries::Automatic }).map(drop)
    } else if args.passphrase.is_given() {
        let passphrase = args.passphrase.read()?;
        daemon.open(&passphrase).map_err(|failure| CliError::new(&failure, failure.hint.clone()))?;
        Ok(())
    } else {
        daemon.open_unattended()
    };
    if let Err(failure) = opened {
        // Somebody may still come with a passphrase.
        tracing::warn!(%failure, hint = %failure.hint, "still sealed");
    }
    runtime.block_on(end(&daemon));
    daemon.close(Reason::ShuttingDown);
    runtime.block_on(socket.shutdown());
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a reason to end.
async fn end(daemon: &Daemon) {
    let ending = daemon.ending();
    let asked = ending.notified();
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = asked => {}
        },
        _ => asked.await,
    }
}

/// Logs on stderr. The crates that see whole messages and key material never log, at whatever level (P8).
fn start_log(config: &LogConfig) {
    const SILENT: &str = "lightning_signer=off,vls_protocol=off,vls_protocol_signer=off,txoo=off,h2=off,rustls=off";
    let filter = EnvFilter::new(format!("{},{SILENT}", config.level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
