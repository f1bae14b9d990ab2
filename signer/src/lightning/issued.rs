//! Invoices this node signed: one payment hash, one invoice, for ever.
//!
//! vls forgets an invoice a day after it expired. Whoever then gets the hash signed again for another invoice has payers pay
//! for a preimage that is out. So each hash keeps an entry, with the digest of what was signed and the answer, for as long
//! as the journal lives: the same request gets the same answer (P5), any other is refused.
//!
//! There are more of them than memory should hold. The entries are [`COLD`]: a node that starts does not load them, they are
//! looked up one by one. Only what may not be in the journal yet is remembered here.
//!
//! | entry | value |
//! |---|---|
//! | `cold/issued/<payment hash>` | version 1, digest of the invoice, reply |

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use lightning_signer::lightning::types::payment::PaymentHash;
use sha2::{Digest, Sha256};
use vls_protocol::msgs::Message;

use crate::facts::Fact;
use crate::journal::{COLD, Put};
use crate::reasons::{Reason, Refusal};

/// How many of the latest are remembered. What is not yet recorded is among them: a node has no more requests unanswered
/// than `signer.queue_requests`, which is this at most.
const REMEMBERED: usize = 65_536;

/// Entries of one node's tenant, looked up one at a time.
pub trait Archive: Send + Sync {
    /// The entry's value as of the last commit that is recorded.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal>;
}

/// The invoices one node signed.
pub(super) struct Issued {
    archive: Arc<dyn Archive>,
    latest: HashMap<PaymentHash, Invoice>,
    /// The keys of `latest`, oldest first.
    order: VecDeque<PaymentHash>,
    /// Not yet in the journal.
    put: Option<Put>,
}

/// One invoice to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    hash: PaymentHash,
    digest: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Invoice {
    digest: [u8; 32],
    reply: Box<[u8]>,
}

/// What `message` asks to be signed, if that is an invoice for `hash`.
pub(super) fn asked(message: &Message, hash: Option<PaymentHash>) -> Option<Asked> {
    let mut digest = Sha256::new();
    match message {
        Message::SignInvoice(m) => {
            digest.update([11]);
            digest.update((m.hrp.len() as u64).to_be_bytes());
            digest.update(&*m.hrp);
            digest.update(&*m.u5bytes);
        }
        Message::SignBolt12Invoice(m) => {
            digest.update([12]);
            digest.update(&*m.invoice_bytes);
        }
        _ => return None,
    }
    Some(Asked { hash: hash?, digest: digest.finalize().into() })
}

impl Issued {
    pub(super) fn new(archive: Arc<dyn Archive>) -> Self {
        Self { archive, latest: HashMap::new(), order: VecDeque::new(), put: None }
    }

    /// The answer that was given for this invoice, or none if nothing was signed for its hash.
    ///
    /// Refuses with `invoice-reused` if that was another invoice.
    pub(super) fn recall(&self, asked: &Asked) -> Result<Option<Vec<u8>>, Refusal> {
        let known = match self.latest.get(&asked.hash) {
            Some(invoice) => Some(invoice.clone()),
            None => match self.archive.get(&key(&asked.hash))? {
                Some(value) => Some(Invoice::decode(&value).ok_or_else(|| {
                    Refusal::new(Reason::Fault, format!("entry {} is not an invoice", key(&asked.hash)))
                })?),
                None => None,
            },
        };
        match known {
            Some(invoice) if invoice.digest != asked.digest => {
                let hash = hex::encode(asked.hash.0);
                let detail = format!("a different invoice was signed for {hash}");
                Err(Refusal::new(Reason::InvoiceReused, detail).with_fact(Fact::text("payment_hash", hash)))
            }
            known => Ok(known.map(|invoice| invoice.reply.into_vec())),
        }
    }

    /// Remembers what was signed.
    pub(super) fn remember(&mut self, asked: &Asked, reply: &[u8]) {
        let invoice = Invoice { digest: asked.digest, reply: reply.into() };
        self.put = Some(Put { key: key(&asked.hash), value: Some(invoice.encode()) });
        self.latest.insert(asked.hash, invoice);
        self.order.push_back(asked.hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.latest.remove(&oldest);
        }
    }

    /// The entry that makes durable what was remembered since the last call.
    pub(super) fn take_put(&mut self) -> Option<Put> {
        self.put.take()
    }
}

fn key(hash: &PaymentHash) -> String {
    format!("{COLD}issued/{}", hex::encode(hash.0))
}

impl Invoice {
    fn encode(&self) -> Vec<u8> {
        [&[1u8][..], &self.digest, &self.reply].concat()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (&[1], rest) = value.split_first_chunk()? else { return None };
        let (digest, reply) = rest.split_first_chunk()?;
        Some(Self { digest: *digest, reply: reply.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// An archive that is filled by hand.
    #[derive(Default)]
    struct Shelf(Mutex<BTreeMap<String, Vec<u8>>>);

    impl Archive for Shelf {
        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
            Ok(self.0.lock().expect("not poisoned").get(key).cloned())
        }
    }

    fn invoice(n: u64, what: u8) -> Asked {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        Asked { hash: PaymentHash(hash), digest: [what; 32] }
    }

    #[test]
    fn memory_is_bounded_and_what_left_it_is_found_in_the_archive() {
        let shelf = Arc::new(Shelf::default());
        let mut issued = Issued::new(shelf.clone());
        let first = invoice(0, 1);
        for n in 0..REMEMBERED as u64 + 10 {
            issued.remember(&invoice(n, 1), &n.to_be_bytes());
            let Put { key, value } = issued.take_put().expect("something new");
            assert!(key.starts_with(COLD));
            if n == 0 {
                shelf.0.lock().expect("not poisoned").insert(key, value.expect("never deleted"));
            }
        }
        assert_eq!((issued.latest.len(), issued.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!issued.latest.contains_key(&first.hash));
        assert_eq!(issued.recall(&first), Ok(Some(0u64.to_be_bytes().to_vec())));
        assert_eq!(issued.recall(&invoice(0, 2)).map_err(|r| r.reason), Err(Reason::InvoiceReused));
        assert_eq!(
            issued.recall(&invoice(20, 2)).map_err(|r| r.reason),
            Err(Reason::InvoiceReused),
            "not yet archived"
        );
        assert_eq!(issued.recall(&invoice(u64::MAX, 2)), Ok(None));
    }
}
