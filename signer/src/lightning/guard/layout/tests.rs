//! Bytes are made from the table's layouts: the walk and vls's decoders must agree on all of them.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::psbt::raw;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fastrand::Rng;

use super::super::{Judge, Row, TABLE, decode, row};
use super::*;
use crate::lightning::preimages;
use crate::names::NodeKind;

/// Messages that look random and are the same in every run.
struct Numbers(Rng);

impl Numbers {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.0.u8(..)).collect()
    }

    fn transaction(&mut self, is_signed: bool) -> Transaction {
        let input = (0..1 + self.0.usize(..3)).map(|_| TxIn {
            previous_output: bitcoin::consensus::deserialize(&self.bytes(36)).expect("36 bytes"),
            script_sig: ScriptBuf::new(),
            sequence: Sequence(self.0.u32(..)),
            witness: match is_signed {
                true => Witness::from_slice(&[self.bytes(64), self.bytes(300), Vec::new()]),
                false => Witness::new(),
            },
        });
        let input = input.collect();
        let output = (0..self.0.usize(..4)).map(|_| {
            let len = self.0.usize(..300);
            TxOut { value: Amount::from_sat(self.0.u64(..)), script_pubkey: ScriptBuf::from(self.bytes(len)) }
        });
        let output = output.collect();
        Transaction { version: Version(self.0.i32(..)), lock_time: LockTime::from_consensus(7), input, output }
    }

    fn psbt(&mut self) -> Psbt {
        let mut psbt = Psbt::from_unsigned_tx(self.transaction(false)).expect("unsigned");
        for input in &mut psbt.inputs {
            input.witness_utxo =
                Some(TxOut { value: Amount::from_sat(7), script_pubkey: ScriptBuf::from(vec![0; 34]) });
            input.final_script_witness = Some(Witness::from_slice(&[self.bytes(70), self.bytes(33)]));
            input.unknown.insert(raw::Key { type_value: 0x77, key: self.bytes(5) }, self.bytes(260));
        }
        for output in &mut psbt.outputs {
            output.witness_script = Some(ScriptBuf::from(self.bytes(71)));
        }
        psbt
    }

    fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        match field {
            Field::Bytes(len) => out.extend(self.bytes(*len)),
            Field::Bool => out.push(self.0.usize(..2) as u8),
            Field::Octets => {
                let len = self.0.usize(..300);
                out.extend((len as u16).to_be_bytes());
                out.extend(self.bytes(len));
            }
            Field::Text => {
                let len = self.0.usize(..20);
                out.extend(self.bytes(len).iter().map(|byte| byte % 95 + 32));
                out.push(0);
            }
            Field::List(fields) => {
                let count = self.0.usize(..4);
                out.extend((count as u16).to_be_bytes());
                (0..count).for_each(|_| fields.iter().for_each(|field| self.field(field, out)));
            }
            Field::Optional(fields) => {
                let there = self.0.usize(..2);
                out.push(there as u8);
                (0..there).for_each(|_| fields.iter().for_each(|field| self.field(field, out)));
            }
            Field::Tx => {
                let is_signed = self.0.usize(..2) == 1;
                let transaction = serialize(&self.transaction(is_signed));
                self.sized(&transaction, out);
            }
            Field::Psbt => {
                let psbt = self.psbt().serialize();
                self.sized(&psbt, out);
            }
        }
    }

    fn sized(&self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
    }

    fn message(&mut self, number: u16, layout: &[Field]) -> Vec<u8> {
        let mut message = number.to_be_bytes().to_vec();
        layout.iter().for_each(|field| self.field(field, &mut message));
        message
    }
}

/// The rows that somebody may send.
fn rows() -> impl Iterator<Item = &'static Row> {
    let known =
        |row: &&Row| [NodeKind::Ldk, NodeKind::Cln].iter().any(|kind| row_of(*kind, row.number) == Some(row.name));
    TABLE.iter().filter(known)
}

fn row_of(kind: NodeKind, number: u16) -> Option<&'static str> {
    row(kind, &number.to_be_bytes()).ok().map(|row| row.name)
}

#[test]
fn honest_messages_of_every_row_fit_and_decode_to_themselves() {
    let mut numbers = Numbers(Rng::with_seed(1));
    assert!(rows().count() > 50);
    for row in rows() {
        for _ in 0..30 {
            let message = numbers.message(row.number, row.layout);
            assert_eq!(check(row.layout, &message[2..]), Ok(()), "{}", row.name);
            if row.judge == Judge::Book {
                let preimages = preimages::decode(&message).expect("few");
                assert_eq!(preimages.concat(), message[4..]);
                continue;
            }
            let decoded = decode(row, &message).unwrap_or_else(|refusal| panic!("{refusal:?}"));
            assert_eq!(hex::encode(decoded.inner().as_vec()), hex::encode(&message), "{}", row.name);
        }
    }
}

#[test]
fn hostile_messages_that_end_early_or_late_are_refused_before_they_are_decoded() {
    let mut numbers = Numbers(Rng::with_seed(2));
    for row in rows() {
        let message = numbers.message(row.number, row.layout);
        let body = &message[2..];
        for len in 0..body.len() {
            assert!(check(row.layout, &body[..len]).is_err(), "{} of {} bytes of {}", len, body.len(), row.name);
        }
        assert_eq!(check(row.layout, &[body, &[0]].concat()), Err(Misfit::Trailing(1)), "{}", row.name);
    }
}

/// The counts and lengths that the decoders would set memory aside for.
#[test]
fn hostile_counts_are_held_against_the_bytes_that_follow() {
    let refused = |fields: &'static [Field], body: &[u8]| {
        assert_eq!(check(fields, body), Err(Misfit::Field(0)), "{fields:?} {}", hex::encode(body));
    };
    refused(&[Field::Octets], &[0xff, 0xff, 1]);
    refused(&[Field::List(&[Field::Bytes(45)])], &[&[0xff, 0xff][..], &[0; 90]].concat());
    refused(&[Field::Text], b"no end");
    refused(&[Field::Bool], &[2]);
    refused(&[Field::Tx], &[0xff, 0xff, 0xff, 0xff, 1]);

    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let many = [0xfe, 0, 9, 61, 0]; // 4,000,000, which is MAX_VEC_SIZE of the bitcoin crate
    let version = [2, 0, 0, 0];
    // Inputs; outputs; elements of a witness.
    refused(&[Field::Tx], &sized(&[&version[..], &many, &[0; 41]].concat()));
    refused(&[Field::Tx], &sized(&[&version[..], &[1], &[0; 41], &many].concat()));
    refused(&[Field::Tx], &sized(&[&version[..], &[0, 1, 1], &[0; 41], &[0], &many, &[0; 4]].concat()));

    // A key; a value; a witness in an input; leaf hashes.
    let unsigned = [&version[..], &[1], &[0; 41], &[0], &[0; 4]].concat();
    let global = [b"psbt\xff", &[1, 0, unsigned.len() as u8][..], &unsigned, &[0]].concat();
    let honest = sized(&[&global[..], &[0]].concat());
    assert_eq!(check(&[Field::Psbt], &honest), Ok(()));
    refused(&[Field::Psbt], &sized(&[b"psbt\xff", &many[..]].concat()));
    refused(&[Field::Psbt], &sized(&[b"psbt\xff\x01\x00", &many[..]].concat()));
    refused(&[Field::Psbt], &sized(&[&global[..], &[1, 0x08, 5], &many, &[0]].concat()));
    refused(&[Field::Psbt], &sized(&[&global[..], &[1, 0x16, 5], &many, &[0]].concat()));
    refused(&[Field::Psbt], &sized(&[&global[..], &[0, 0]].concat())); // one map too many
    refused(&[Field::Psbt], &sized(b"psbt\xff\x00")); // without a transaction
}

/// What a PSBT's maps hold under the keys of BIP 174 and BIP 371 that have counts in them.
#[test]
fn hostile_counts_in_the_maps_of_a_psbt_are_refused_and_honest_values_pass() {
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let unsigned = [&[2, 0, 0, 0, 1][..], &[0; 41], &[1], &[0; 9], &[0; 4]].concat();
    let with = |in_input: bool, key: u8, value: &[u8]| {
        let pair = [&[1, key, value.len() as u8][..], value].concat();
        let (input, output) = if in_input { (&pair[..], &[][..]) } else { (&[][..], &pair[..]) };
        let global = [b"psbt\xff", &[1, 0, unsigned.len() as u8][..], &unsigned, &[0]].concat();
        check(&[Field::Psbt], &sized(&[&global, input, &[0], output, &[0]].concat()))
    };
    let leaves = [&[1][..], &[7; 32]].concat();
    let signed = [&[2, 0, 0, 0, 0, 1, 1][..], &[0; 41], &[1], &[0; 9], &[1, 1, 7], &[0; 4]].concat();
    let values: [(bool, u8, &[u8], &[u8]); 8] = [
        (true, 0x00, &unsigned, &unsigned[1..]),
        (true, 0x00, &signed, &signed[..signed.len() - 1]),
        (true, 0x01, &[0; 9], &[0, 0, 0, 0, 0, 0, 0, 0, 0xfd]),
        (true, 0x01, &[0; 9], &[0; 10]),
        (true, 0x08, &[1, 2, 7, 7], &[2, 2, 7, 7]),
        (true, 0x16, &leaves, &leaves[..32]),
        (false, 0x06, &[0, 0xc0, 1, 7, 1, 0xc0, 0], &[0, 0xc0, 2, 7]),
        (false, 0x07, &leaves, &leaves[..32]),
    ];
    for (in_input, key, honest, hostile) in values {
        assert_eq!(with(in_input, key, honest), Ok(()), "{key:#x}");
        assert_eq!(with(in_input, key, hostile), Err(Misfit::Field(0)), "{key:#x}");
    }
}

#[test]
fn number_twenty_follows_the_dialect() {
    let [ldk, cln] = [NodeKind::Ldk, NodeKind::Cln].map(|kind| row(kind, &20u16.to_be_bytes()).expect("known"));
    let message = Numbers(Rng::with_seed(3)).message(20, ldk.layout);
    assert_eq!((ldk.name, cln.name), ("SignLocalHtlcTx2", "SignRemoteHtlcTx"));
    assert!(matches!(decode(ldk, &message), Ok(vls_protocol::msgs::Message::SignLocalHtlcTx2(_))));
    assert_eq!(decode(cln, &message).expect_err("the other shape").reason, crate::reasons::Reason::Malformed);
}
