//! The reason with which each attack is refused, in one place.

use claviger::reasons::Reason;

/// A closing transaction or a holder commitment was signed: its secret and all later ones stay.
pub(crate) const REVOKE_AFTER_CLOSE: Reason = Reason::RevokeAfterClose;
/// Nothing comes after it either.
pub(crate) const UPDATE_AFTER_CLOSE: Reason = Reason::UpdateAfterClose;
/// A secret was released: what it revokes is not signed.
pub(crate) const REVOKED: Reason = Reason::CommitmentRevoked;
/// Nothing replaces a commitment yet: its secret stays.
pub(crate) const NOT_REPLACED: Reason = Reason::Validation;
/// Value leaves the channel, and nothing explains it.
pub(crate) const NOT_CONSERVED: Reason = Reason::ValueNotConserved;
/// A payment that nobody approved.
pub(crate) const NOT_APPROVED: Reason = Reason::PaymentNotApproved;
/// More than was approved, over all parts and attempts.
pub(crate) const EXCEEDED: Reason = Reason::PaymentExceeded;
/// The peer takes a payment and shows no preimage.
pub(crate) const NO_PREIMAGE: Reason = Reason::PreimageMissing;
/// More goes out than comes in.
pub(crate) const NOT_COVERED: Reason = Reason::ForwardNotCovered;
/// What comes in ends before what goes out could be taken.
pub(crate) const TOO_LATE: Reason = Reason::ForwardCltv;
/// What comes in is given back although it was passed on.
pub(crate) const GIVEN_AWAY: Reason = Reason::ForwardUnclaimed;
/// The bytes are not the gossip that they are said to be.
pub(crate) const NO_GOSSIP: Reason = Reason::GossipUnreadable;
/// The bytes are no invoice.
pub(crate) const NO_INVOICE: Reason = Reason::InvoiceUnreadable;
/// Gossip that is not about this channel, this node or this chain.
pub(crate) const FOREIGN_GOSSIP: Reason = Reason::GossipForeign;
/// A tag that is none of BOLT 12's.
pub(crate) const NO_BOLT12: Reason = Reason::Bolt12Tag;
/// A secret or an answer that nobody needs.
pub(crate) const NO_PURPOSE: Reason = Reason::SecretPurpose;
/// Another invoice has this hash.
pub(crate) const INVOICE_HASH: Reason = Reason::Validation;
