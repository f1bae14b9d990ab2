//! Ctrl-C: what waits gives up, so that nodes, signer and files are left in order.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP do not end the process: [`asked`] tells of them.
pub fn watch() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            ASKED.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

/// Whether somebody wants this to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
