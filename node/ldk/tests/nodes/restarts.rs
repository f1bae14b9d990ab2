//! The node, its signer and the link between them stop and come back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use claviger_demo::node::payment_hash;

use crate::world::{CHANNEL, World, connect, pay, usable, wait};

#[test]
fn a_node_restarted_before_its_channel_confirmed_still_opens_it() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    connect(&signed, &plain);
    signed.open_channel(&plain.id(), CHANNEL, 0).unwrap();
    wait("our funding transaction", &[&signed, &plain], || world.waiting().len() == 1);
    plain.open_channel(&signed.id(), CHANNEL, 0).unwrap();
    wait("their funding transaction", &[&signed, &plain], || world.waiting().len() == 2);

    let signed = world.signed_with(signed.stop());
    connect(&signed, &plain);
    world.mine(6, &[&signed, &plain]);
    wait("both channels", &[&signed, &plain], || {
        signed.channels().iter().filter(|channel| channel.is_usable).count() == 2
    });
    pay(&signed, &plain, 10_000_000);
    pay(&plain, &signed, 10_000_000);
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_channel_opens_although_every_reply_is_lost_once() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    connect(&signed, &plain);
    let lossy = || {
        if world.signer.lose_replies.load(Ordering::SeqCst) == 0
            && world.signer.requests.load(Ordering::SeqCst).is_multiple_of(2)
        {
            world.signer.lose_replies.store(1, Ordering::SeqCst);
        }
    };
    signed.open_channel(&plain.id(), CHANNEL, 0).unwrap();
    wait("the funding transaction", &[&signed, &plain], || {
        lossy();
        !world.chain.mempool().is_empty()
    });
    world.mine(6, &[&signed, &plain]);
    wait("the channel", &[&signed, &plain], || {
        lossy();
        usable(&signed, &plain) && usable(&plain, &signed)
    });
    let invoice = plain.invoice(100_000_000, "lossy").unwrap();
    wait("an approved payment", &[&signed, &plain], || signed.pay(&invoice).is_ok());
    let hash = payment_hash(&invoice);
    wait("the payment", &[&signed, &plain], || {
        lossy();
        signed.history().payments.contains_key(&hash)
    });
}

#[test]
fn a_close_that_the_signer_missed_happens_when_it_is_back() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    let channel = world.channel(&signed, &plain, 0);
    pay(&signed, &plain, 100_000_000);
    signed.disconnect(&plain.id());
    world.signer.away.store(true, Ordering::SeqCst);
    std::thread::scope(|threads| {
        // Waits: LDK announces the end of the channel, and would panic if that could not be signed.
        threads.spawn(|| signed.force_close(&channel).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(world.waiting(), []);
        world.signer.away.store(false, Ordering::SeqCst);
    });
    wait("our commitment", &[&signed], || !world.chain.mempool().is_empty());
}
