//! The link breaks and comes back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use claviger::reasons::Reason;
use claviger_ldk::LinkError;
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::{PATIENCE, World, answer, client_options, connect, echo};

#[test]
fn an_unanswered_request_is_repeated_under_its_id_after_a_restart() {
    let mut world = World::new();
    let link = connect(&world.enrol("alice"));
    let caller = thread::spawn({
        let link = link.clone();
        move || link.call(None, b"hold".to_vec())
    });
    world.handler.wait_for(1);
    let first = world.handler.take().remove(0);
    world.stop(Reason::ShuttingDown);
    world.start();
    world.handler.wait_for(1);
    let again = world.handler.take().remove(0);
    assert_eq!(again.1.request_id, first.1.request_id);
    answer(again);
    assert_eq!(caller.join().unwrap(), Ok(echo(b"hold")));
}

#[test]
fn the_application_hears_of_every_change_and_may_call_the_signer_then() {
    let mut world = World::new();
    let link = connect(&world.enrol("alice"));
    let (heard, states) = mpsc::channel();
    let caller = link.clone();
    link.on_state(move |up| {
        let reply = up.then(|| caller.call(None, b"back".to_vec()));
        heard.send((up, reply)).unwrap();
    })
    .unwrap();
    let next = || states.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next(), (true, Some(Ok(echo(b"back")))));
    world.stop(Reason::Sealed);
    assert_eq!(next(), (false, None));
    world.start();
    assert_eq!(next(), (true, Some(Ok(echo(b"back")))));
}

#[test]
fn a_call_does_not_wait_for_a_signer_that_stays_away() {
    let mut world = World::new();
    let options = LinkOptions { down_patience: Duration::from_millis(50), ..client_options() };
    let link = Link::connect(&world.enrol("alice"), options, PATIENCE).unwrap();
    world.stop(Reason::Sealed);
    // PATIENCE is the reply timeout: only giving up on the link can end this call.
    let Err(error) = link.call(None, b"hello".to_vec()) else { panic!("answered") };
    assert!(matches!(error, LinkError::Down(_)) && error.retry());
    world.start();
    while link.call(None, b"hello".to_vec()) != Ok(echo(b"hello")) {
        thread::yield_now();
    }
}

/// Forwards TCP; `freeze` makes the open connections black holes, as a machine that lost its power.
struct Proxy {
    address: SocketAddr,
    open: Arc<Mutex<Vec<JoinHandle<()>>>>,
    frozen: Arc<Mutex<Vec<(TcpStream, TcpStream)>>>,
    freeze: Arc<tokio::sync::Notify>,
}

impl Proxy {
    fn new(world: &World) -> Self {
        let target = world.address;
        let listener = world.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, open: Arc::default(), frozen: Arc::default(), freeze: Arc::default() };
        let (open, frozen, freeze) = (proxy.open.clone(), proxy.frozen.clone(), proxy.freeze.clone());
        world.runtime.spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let Ok(mut outside) = TcpStream::connect(target).await else { continue };
                let (frozen, freeze) = (frozen.clone(), freeze.clone());
                let carry = tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        () = freeze.notified() => frozen.lock().unwrap().push((inside, outside)),
                    }
                });
                open.lock().unwrap().push(carry);
            }
        });
        proxy
    }

    /// The connections stay open and carry nothing any more.
    fn freeze(&self, world: &World) {
        self.freeze.notify_waiters();
        for carry in std::mem::take(&mut *self.open.lock().unwrap()) {
            world.runtime.block_on(carry).unwrap();
        }
        assert!(!self.frozen.lock().unwrap().is_empty());
    }
}

#[test]
fn a_process_whose_connection_died_takes_its_own_place_at_once() {
    // The server would not notice for an hour; the client does, and is the same process.
    let world = World::with(|options| options.keepalive = Duration::from_secs(3_600));
    let proxy = Proxy::new(&world);
    let bundle = Bundle { signer: proxy.address.to_string(), ..world.enrol("alice") };
    let options = LinkOptions { keepalive: Duration::from_millis(200), ..client_options() };
    let link = Link::connect(&bundle, options, PATIENCE).unwrap();
    proxy.freeze(&world);
    assert_eq!(link.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
    assert_eq!(world.server.as_ref().unwrap().connected().len(), 1);
}

#[test]
fn a_dead_process_makes_way_for_its_successor_once_it_is_noticed() {
    let world = World::with(|options| options.keepalive = Duration::from_millis(200));
    let proxy = Proxy::new(&world);
    let direct = world.enrol("alice");
    let bundle = Bundle { signer: proxy.address.to_string(), ..direct.clone() };
    let options = LinkOptions { keepalive: Duration::from_secs(3_600), ..client_options() };
    let _dead = Link::connect(&bundle, options, PATIENCE).unwrap();
    proxy.freeze(&world);
    assert_eq!(connect(&direct).call(None, b"hello".to_vec()), Ok(echo(b"hello")));
}
