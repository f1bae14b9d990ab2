//! How messages are laid out on the wire, walked before anything is decoded.
//!
//! The decoders of vls and of the bitcoin crate trust lengths for a moment: they set memory aside for as many elements
//! as a count promises, and see later that the bytes are not there. Here every count and length is held against the
//! bytes that follow it, without setting anything aside. What passes can make the decoders allocate no more than a small
//! multiple of the message, in time linear in its length; and nothing trails, neither behind the message nor inside the
//! transactions and PSBTs in it.

mod transactions;

use crate::facts::{Fact, Unit};

/// One field of a message. Integers are big endian, as Core Lightning's wire format has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// So many bytes.
    Bytes(usize),
    /// A byte that is 0 or 1.
    Bool,
    /// A length in two bytes, and so many bytes.
    Octets,
    /// Bytes up to a zero.
    Text,
    /// A count in two bytes, and so many times these fields.
    List(&'static [Field]),
    /// A [`Field::Bool`], and these fields if it is 1.
    Optional(&'static [Field]),
    /// A length in four bytes, and so many bytes that are a transaction in consensus encoding.
    Tx,
    /// A length in four bytes, and so many bytes that are a PSBT (BIP 174).
    Psbt,
}

/// Why bytes are not laid out as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    /// The field with this index, counted from 0, does not fit into what is left, or is not what it should be.
    #[error("field {0} does not fit")]
    Field(usize),
    /// So many bytes follow the last field.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

impl Misfit {
    /// The same as data.
    pub(super) fn fact(self) -> Fact {
        match self {
            Self::Field(index) => Fact::count("field", index as u64),
            Self::Trailing(bytes) => Fact::number("trailing", bytes as u64, Unit::Bytes).at_most(0),
        }
    }
}

/// Whether `body`, a message without its number, consists of these fields and nothing else.
pub(super) fn check(fields: &[Field], mut body: &[u8]) -> Result<(), Misfit> {
    for (index, field) in fields.iter().enumerate() {
        skip(field, &mut body).ok_or(Misfit::Field(index))?;
    }
    if body.is_empty() { Ok(()) } else { Err(Misfit::Trailing(body.len())) }
}

/// Takes the field off the front. Fields nest as deep as the table writes them, not as deep as a message wants.
fn skip(field: &Field, bytes: &mut &[u8]) -> Option<()> {
    match field {
        Field::Bytes(len) => drop(take(bytes, *len)?),
        Field::Bool => drop(boolean(bytes)?),
        Field::Octets => {
            let len = u16::from_be_bytes(array(bytes)?);
            take(bytes, len.into())?;
        }
        Field::Text => {
            let len = bytes.iter().position(|byte| *byte == 0)?;
            take(bytes, len + 1)?;
        }
        Field::List(fields) => {
            for _ in 0..u16::from_be_bytes(array(bytes)?) {
                fields.iter().try_for_each(|field| skip(field, bytes))?;
            }
        }
        Field::Optional(fields) => {
            if boolean(bytes)? {
                fields.iter().try_for_each(|field| skip(field, bytes))?;
            }
        }
        Field::Tx => transactions::transaction(sized(bytes)?)?,
        Field::Psbt => transactions::psbt(sized(bytes)?)?,
    }
    Some(())
}

pub(super) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

pub(super) fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(*head)
}

fn boolean(bytes: &mut &[u8]) -> Option<bool> {
    match array(bytes)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// The bytes behind a length in four bytes.
fn sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_be_bytes(array(bytes)?);
    take(bytes, usize::try_from(len).ok()?)
}

#[cfg(test)]
mod tests;
