//! The reason with which each attack is refused, in one place.

use claviger::reasons::Reason;

/// A closing transaction or a holder commitment was signed: its secret and all later ones stay.
pub(crate) const CLOSING: Reason = Reason::Validation;
/// A secret was released: what it revokes is not signed.
pub(crate) const REVOKED: Reason = Reason::Validation;
/// Value leaves the channel, and nothing explains it.
pub(crate) const CONSERVATION: Reason = Reason::Validation;
/// The bytes are not the message that they are said to be, or not about this channel and this node.
pub(crate) const NOT_WHAT_IT_SAYS: Reason = Reason::Validation;
/// A secret or an answer that nobody needs.
pub(crate) const ORACLE: Reason = Reason::Validation;
/// Another invoice has this hash.
pub(crate) const INVOICE_HASH: Reason = Reason::Validation;
/// An HTLC of no commitment that is known.
pub(crate) const HTLC_UNKNOWN: Reason = Reason::Validation;
