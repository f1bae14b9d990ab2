//! `claviger run`.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use claviger_hsm::{Envelope, Tries};
use listenfd::ListenFd;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{CliError, PassphraseArgs, harden};
use crate::admin::api::{AdminApi, Brought};
use crate::admin::socket::{AdminListener, AdminSocket};
use crate::config::{Config, LogConfig, LogFormat, Wanted};
use crate::daemon::Daemon;
use crate::datadir::DataDir;
use crate::devices::{Devices, Known};
use crate::harden::{Confinement, Hardening, Reach, become_owner, refuse_build, refuse_environment, refuse_root};
use crate::keys::memory::{enclose_heap, on_secret_stack, secret_room_for};
use crate::reasons::Reason;
use crate::turns;

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

const SOCKET_HINT: &str = "Set ListenStream= of the socket unit and lnd.listen in claviger.toml to the same address.";

/// Fewer secret pages than this are too few for nodes with many channels.
const HEAP_ROOM: usize = 256 << 20;

/// Threads for sockets, at most, and a half of the cores: signing has its own, and what arrives at once is signed at once.
const IO_THREADS: usize = 2;

/// Runs the daemon until SIGINT or SIGTERM.
pub(super) fn run(data_dir: &Path, args: RunArgs) -> Result<(), CliError> {
    refuse_build().map_err(|error| CliError::new(error, error.hint()))?;
    let names = std::env::vars_os().map(|(name, _)| name);
    refuse_environment(names).map_err(|error| CliError::new(&error, error.hint()))?;
    let socket = handed_over()?;
    let descriptors: Vec<_> =
        args.passphrase.descriptors().into_iter().chain(socket.as_ref().map(AsRawFd::as_raw_fd)).collect();
    let mut hardening = harden(&descriptors)?;
    become_owner(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let lock = dir.lock().map_err(|error| CliError::new(&error, error.hint()))?;
    let config = Config::load(&dir.config()).map_err(|error| CliError::new(&error, error.hint()))?;
    refuse_root(config.signer.allow_root).map_err(|error| CliError::new(error, error.hint()))?;
    let lnd_socket = socket.map(|socket| for_lnd(socket, &config)).transpose()?;
    start_log(&config.log);
    let devices = start_devices(&dir, &config)?;
    let socket = AdminSocket::listen(&dir.admin_socket()).map_err(|error| CliError::new(&error, error.hint()))?;
    enclose(config.signer.secret_heap)?;
    confine(&mut hardening, &dir, &config)?;
    // A panic's message may quote what was in memory: only its place is told (P8).
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(place = ?panic.location().map(ToString::to_string), "panic"),
    ));

    if let Err(error) = turns::come_first() {
        tracing::info!(%error, hint = "Set LimitRTPRIO=2 (ulimit -r 2).", "on a busy machine answers wait for their turns");
    }

    // Secrets may come from here on.
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(1, IO_THREADS))
        .on_thread_start(turns::answers)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| CliError::new(error, "Check the limits on threads."))?;
    let daemon = Daemon::new(dir, lock, config, hardening, runtime.handle().clone());
    on_secret_stack(|| serve(daemon.with_lnd_socket(lnd_socket).with_devices(devices), socket, &runtime, &args))
}

/// The processes that ask the devices which the key slots and the configuration name. A key slot file that cannot be read is told
/// when somebody comes to unseal.
fn start_devices(dir: &DataDir, config: &Config) -> Result<Devices, CliError> {
    let known = Envelope::read(&dir.keyslots()).map(|envelope| Known::new(&envelope, config)).unwrap_or_default();
    let started = Devices::start(&known);
    started.map_err(|error| {
        CliError::new(format!("cannot start what asks the devices: {error}"), "Check the limits on processes.")
    })
}

/// From the sealed start to the end.
fn serve(daemon: Daemon, socket: AdminListener, runtime: &Runtime, args: &RunArgs) -> Result<(), CliError> {
    let daemon = Arc::new(daemon);
    let socket = runtime.block_on(async { AdminSocket::serve(socket, daemon.clone()) });
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

/// Puts the heap into secret pages, as `wanted`.
fn enclose(wanted: Wanted) -> Result<(), CliError> {
    const HINT: &str =
        "Set LimitMEMLOCK=infinity (ulimit -l unlimited) on Linux 6.5 or newer, or boot with secretmem.enable=1.";
    let roomy = secret_room_for(HEAP_ROOM);
    match wanted {
        Wanted::Off => tracing::warn!("signer.secret_heap is off: root can read what the signer keeps in memory"),
        Wanted::Required if !roomy || !enclose_heap() => {
            let error = format!(
                "signer.secret_heap is required, and {} MiB of secret pages are not to be had",
                HEAP_ROOM >> 20
            );
            return Err(CliError::new(error, HINT));
        }
        Wanted::Required => {}
        Wanted::Auto if !enclose_heap() => {
            tracing::warn!(hint = HINT, "no secret heap here: root can read what the signer keeps in memory");
        }
        Wanted::Auto if !roomy => tracing::warn!(hint = HINT, "little room for the secret heap"),
        Wanted::Auto => {}
    }
    Ok(())
}

/// Confines the process to what a running signer needs, as the configuration wants it.
fn confine(hardening: &mut Hardening, dir: &DataDir, config: &Config) -> Result<(), CliError> {
    const HINT: &str = "Run on Linux 6.12 or newer with Landlock and seccomp, or set signer.confinement = \"auto\".";
    if config.signer.confinement == Wanted::Off {
        hardening.confinement = Confinement::none("signer.confinement is off");
        tracing::warn!("signer.confinement is off: whoever takes the process over has all that its user has");
        return Ok(());
    }
    hardening.confine(&Reach::of(dir.path(), config));
    for (what, enforced) in hardening.confinement.missing() {
        if config.signer.confinement == Wanted::Required {
            return Err(CliError::new(format!("signer.confinement is required; {what}: {enforced}"), HINT));
        }
        tracing::warn!(hint = HINT, "{what}: {enforced}");
    }
    Ok(())
}

/// The socket that systemd hands over, if it does: call it while there is one thread, before inherited descriptors close.
fn handed_over() -> Result<Option<TcpListener>, CliError> {
    let mut handed = ListenFd::from_env();
    if handed.len() > 1 {
        let hint = "Leave one ListenStream= in the socket unit: that of lnd's door.";
        return Err(CliError::new(format!("{} sockets are handed over", handed.len()), hint));
    }
    let socket = if handed.len() == 1 { handed.take_tcp_listener(0) } else { Ok(None) };
    socket.map_err(|error| {
        CliError::new(format!("the socket that is handed over is no TCP listener: {error}"), SOCKET_HINT)
    })
}

/// The same socket, if it is where lnd's door is.
fn for_lnd(socket: TcpListener, config: &Config) -> Result<TcpListener, CliError> {
    let address = socket.local_addr().map_err(|error| CliError::new(error, SOCKET_HINT))?;
    if config.lnd.listen == Some(address) {
        return Ok(socket);
    }
    let listen = config.lnd.listen.map_or_else(|| "not set".to_owned(), |listen| listen.to_string());
    Err(CliError::new(format!("the socket that is handed over is {address}, lnd.listen is {listen}"), SOCKET_HINT))
}

/// Waits for a reason to end. SIGUSR1 seals: for whoever has to act before asking.
async fn end(daemon: &Arc<Daemon>) {
    let ending = daemon.ending();
    let asked = ending.notified();
    let signals = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::user_defined1());
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut panic)) =
        (signal(signals.0), signal(signals.1), signal(signals.2))
    else {
        return asked.await;
    };
    tokio::pin!(asked);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return,
            _ = terminate.recv() => return,
            () = &mut asked => return,
            Some(()) = panic.recv() => {
                let daemon = Arc::clone(daemon);
                let sealed = tokio::task::spawn_blocking(move || daemon.seal()).await;
                if let Ok(Err(failure)) = sealed {
                    tracing::info!(%failure, "SIGUSR1: nothing to seal");
                }
            }
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use super::*;

    #[test]
    fn a_socket_that_is_handed_over_is_taken_where_lnds_door_is_and_nowhere_else() {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::new(bitcoin::Network::Regtest);
        assert!(for_lnd(socket(), &config).unwrap_err().error.contains("lnd.listen is not set"));
        let (mine, other) = (socket(), socket());
        config.lnd.listen = Some(mine.local_addr().unwrap());
        assert!(for_lnd(mine, &config).is_ok());
        assert_eq!(for_lnd(other, &config).unwrap_err().hint, SOCKET_HINT);
    }
}
