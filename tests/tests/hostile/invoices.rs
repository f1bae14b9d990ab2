//! One hash, one invoice, for ever: of two invoices, the cheaper one would be paid and the dearer one proved.

use claviger::lightning::driver::{invoice_to_sign, invoice_to_sign_within};
use std::time::Duration;

use crate::reasons::INVOICE_HASH;
use crate::thief::Scene;

#[test]
fn hostile_a_second_invoice_for_a_hash_is_not_signed() {
    let mut scene = Scene::new("ldk");
    scene.thief.send(None, invoice_to_sign(1, 1_000)).expect("the first");
    scene.thief.refused_bytes(INVOICE_HASH, None, invoice_to_sign(1, 2_000));
    scene.restart();
    scene.thief.refused_bytes(INVOICE_HASH, None, invoice_to_sign(1, 2_000));
}

#[test]
fn hostile_a_hash_is_not_free_again_when_its_invoice_has_expired() {
    let mut scene = Scene::new("ldk");
    scene.thief.send(None, invoice_to_sign_within(1, 1_000, Duration::from_secs(1))).expect("the first");
    std::thread::sleep(Duration::from_secs(2));
    scene.restart();
    scene.thief.refused_bytes(INVOICE_HASH, None, invoice_to_sign(1, 2_000));
}

#[test]
fn honest_an_invoice_is_signed_again_and_again_with_the_same_signature() {
    let mut scene = Scene::new("ldk");
    let invoice = invoice_to_sign(1, 1_000);
    let first = scene.thief.send(None, invoice.clone()).expect("the first");
    assert_eq!(scene.thief.send(None, invoice.clone()).expect("asked again"), first);
    scene.restart();
    assert_eq!(scene.thief.send(None, invoice).expect("after a restart"), first);
    scene.thief.send(None, invoice_to_sign(2, 1_000)).expect("for another hash");
}
