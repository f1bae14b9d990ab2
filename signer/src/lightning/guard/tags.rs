//! Signatures under a tag: what is signed cannot be anything without the tag.

use vls_protocol::msgs::Message;

use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// The longest text that is signed, in bytes. vls puts "Lightning Signed Message:" in front and signs the double SHA-256
/// with the node key. The first two bytes, read as BOLT 7 reads them, announce 19,561 bytes of features: with less than
/// that behind them no text goes on as an announcement, whoever reads it.
pub const MAX_SIGNED_MESSAGE_BYTES: usize = 16_384;

/// BOLT 12: the messages that are signed by their author. The tag is `lightning`, this name and the field's name.
const BOLT12_MESSAGES: [&[u8]; 2] = [b"invoice", b"invoice_request"];
const BOLT12_FIELD: &[u8] = b"signature";
/// The only key that Core Lightning has derived for signing under an alias.
const BOLT12_INFO: &[u8] = b"node-alias-base";

/// Refuses with `signed-message-too-long` or `bolt12-tag`.
pub(super) fn judge(message: &Message) -> Result<(), Refusal> {
    match message {
        Message::SignMessage(m) if m.message.len() > MAX_SIGNED_MESSAGE_BYTES => {
            let detail =
                format!("the text has {} bytes; at most {MAX_SIGNED_MESSAGE_BYTES} are signed", m.message.len());
            let (bytes, most) = (m.message.len() as u64, MAX_SIGNED_MESSAGE_BYTES as u64);
            let fact = Fact::number("text", bytes, Unit::Bytes).at_most(most);
            Err(Refusal::new(Reason::SignedMessageTooLong, detail).with_fact(fact))
        }
        Message::SignBolt12(m) => bolt12(&m.message_name.0, &m.field_name.0),
        Message::SignBolt12V2(m) => {
            bolt12(&m.message_name.0, &m.field_name.0)?;
            if m.public_tweak.is_empty() || m.info.0 == BOLT12_INFO {
                return Ok(());
            }
            let info = text(&m.info);
            let refusal = Refusal::new(Reason::Bolt12Tag, format!("no key signs for {info:?}"));
            Err(refusal.with_fact(Fact::text("info", info).exactly(text(BOLT12_INFO))))
        }
        _ => Ok(()),
    }
}

fn bolt12(message: &[u8], field: &[u8]) -> Result<(), Refusal> {
    if BOLT12_MESSAGES.contains(&message) && field == BOLT12_FIELD {
        return Ok(());
    }
    let (field, message) = (text(field), text(message));
    Err(Refusal::new(Reason::Bolt12Tag, format!("{field:?} of {message:?} is not signed"))
        .with_fact(Fact::text("bolt12_message", message))
        .with_fact(Fact::text("bolt12_field", field).exactly(text(BOLT12_FIELD))))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
