//! An account's operations come over the same TLS as the link, and neither passes for the other.

use std::time::SystemTime;

use claviger::admin::ca::CLIENT_VALIDITY;
use claviger::lightning::lightspark::{MAX_OPERATION_BYTES, operation_request};
use claviger::names::NodeKind;
use claviger_ldk::link::Bundle;
use claviger_proto::v1::SignOperationRequest;
use claviger_proto::v1::operations_client::OperationsClient;
use tonic::Status;

use crate::world::{PATIENCE, World, connect, echo, try_connect};

fn sign(world: &World, bundle: &Bundle, body: &[u8]) -> Result<Vec<u8>, Status> {
    world.runtime.block_on(async {
        let mut client = OperationsClient::new(world.channel(bundle).await);
        let reply = client.sign(SignOperationRequest { body: body.to_vec(), clearance: vec![] }).await?;
        Ok(reply.into_inner().signature)
    })
}

#[test]
fn an_account_signs_operations_and_opens_no_link_and_a_node_the_other_way_round() {
    let world = World::new();
    let account = world.enrol_as(NodeKind::Lightspark, "acme", SystemTime::now(), CLIENT_VALIDITY);
    let node = world.enrol("alice");
    assert_eq!(sign(&world, &account, b"{}").unwrap(), echo(&operation_request(&[], b"{}")));
    assert!(try_connect(&account, PATIENCE).is_err());
    drop(connect(&node));
    let asked = world.handler.submitted();
    assert!(sign(&world, &node, b"{}").unwrap_err().message().starts_with("message-not-allowed"));
    world.revoke("acme");
    assert!(sign(&world, &account, b"{}").unwrap_err().message().starts_with("certificate-revoked"));
    assert_eq!(world.handler.submitted(), asked, "nobody was asked");
}

#[test]
fn a_body_that_is_too_long_is_not_read_and_the_longest_is() {
    let world = World::new();
    let account = world.enrol_as(NodeKind::Lightspark, "acme", SystemTime::now(), CLIENT_VALIDITY);
    assert!(sign(&world, &account, &vec![b' '; MAX_OPERATION_BYTES]).is_ok());
    assert!(sign(&world, &account, &vec![b' '; 2 * MAX_OPERATION_BYTES]).is_err());
}
