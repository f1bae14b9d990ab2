//! Every reason for which Claviger refuses, in one table (P11). Docs, link replies and logs are worded from here.

use crate::facts::Fact;

/// Declares the table: variant, stable id, whether the same request may succeed later by itself, meaning, next step.
macro_rules! reasons {
    ($( $variant:ident $id:literal retry=$retry:literal $meaning:literal $hint:literal; )*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( #[doc = $meaning] $variant, )* }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The stable id: what tests, metrics and scripts compare.
            pub const fn id(self) -> &'static str { match self { $( Reason::$variant => $id, )* } }

            /// The reason with this id.
            pub fn by_id(id: &str) -> Option<Self> { Self::ALL.iter().copied().find(|known| known.id() == id) }

            /// Whether the same request may succeed later without anybody's help.
            pub const fn retry(self) -> bool { match self { $( Reason::$variant => $retry, )* } }

            /// What the reason means.
            pub const fn meaning(self) -> &'static str { match self { $( Reason::$variant => $meaning, )* } }

            /// What to do about it.
            pub const fn hint(self) -> &'static str { match self { $( Reason::$variant => $hint, )* } }
        }
    };
}

reasons! {
    Malformed "malformed" retry=false
        "The message could not be decoded." "Check that node and signer versions match.";
    MessageUnknown "message-unknown" retry=false
        "The message number is not known for this kind of node." "Check that node and signer versions match.";
    NotAllowed "message-not-allowed" retry=false
        "This kind of caller may not send this message." "Nothing to do for an honest node; look at who uses its certificate.";
    MessageScope "message-scope" retry=false
        "The message is the node's and came for a channel, or is a channel's and names none." "Check that node and signer versions match; look at who uses the node's certificate.";
    GossipUnreadable "gossip-unreadable" retry=false
        "The bytes to be signed are not the BOLT 7 message that the request signs." "Check that node and signer versions match; an honest node does not see this.";
    GossipForeign "gossip-foreign" retry=false
        "The announcement or update is not this node's, this channel's or this chain's." "Compare the keys in the detail with the node's channel; an honest node does not see this.";
    InvoiceUnreadable "invoice-unreadable" retry=false
        "What is to be signed is not an invoice as BOLT 11 or BOLT 12 writes it." "Check that node and signer versions match.";
    InvoiceForeign "invoice-foreign" retry=false
        "The invoice names another payee or another chain." "Check the network of node and signer.";
    SignedMessageTooLong "signed-message-too-long" retry=false
        "The text to be signed is so long that it could pass for something else." "Sign a digest of the text instead.";
    Bolt12Tag "bolt12-tag" retry=false
        "The name, field or key is none that BOLT 12 has a node sign with." "Check that node and signer versions match.";
    SecretPurpose "secret-purpose" retry=false
        "The secret, or the answer about one, has no purpose that the signer knows." "If a plugin asks for it, the plugin cannot be used with a signer.";
    RevokeAfterClose "revoke-after-close" retry=false
        "A commitment that was signed to close the channel, or a later one, would be revoked." "The channel is closing; let it confirm. Its peer could take everything otherwise.";
    UpdateAfterClose "update-after-close" retry=false
        "The channel is closing and takes no new commitment." "Let the close confirm.";
    CommitmentRevoked "commitment-revoked" retry=false
        "A commitment that was revoked would be signed." "The node's state is old: do not restore a node from a backup, and close with the signer's state.";
    ChannelUnknown "channel-unknown" retry=false
        "The channel does not exist in the signer." "Compare `claviger node show` with the node's channels.";
    ChannelNotReady "channel-not-ready" retry=false
        "The channel was not set up yet." "Send SetupChannel first.";
    Validation "validation" retry=false
        "The request breaks a Lightning safety rule." "Look at the detail; an honest node in step with its signer does not see this.";
    Limit "limit" retry=false
        "The request exceeds a limit in claviger.toml." "Raise the limit named in the detail if the payment is wanted.";
    FundingMismatch "funding-mismatch" retry=false
        "The chain does not fund the channel as the signer was told." "Close the channel with this peer; look at who uses the node's certificate.";
    HtlcUnknown "htlc-not-in-commitment" retry=false
        "A second-level transaction does not claim an HTLC of a commitment in force." "An honest node in step with its signer does not see this; compare the two.";
    HtlcTransaction "htlc-transaction" retry=false
        "A second-level transaction is not the one that BOLT 3 prescribes for its HTLC." "Check that node and signer versions match.";
    CoinAmount "coin-amount" retry=false
        "The amount of a spent output is not what the chain shows." "Look at who uses the node's certificate.";
    CoinUnproven "coin-unproven" retry=false
        "Several coins are spent and the amounts of more than one are not proven." "Send the coins' transactions in the PSBT (non_witness_utxo), or spend the coins one by one.";
    SweepFee "sweep-fee" retry=false
        "A sweep burns more than any feerate explains, or pays more than it spends." "Lower the node's feerate for sweeps.";
    CloseValue "close-value" retry=false
        "A mutual close pays this node less than the last commitments owe it." "Do not agree to this close; close by force if the peer insists.";
    KeyPurpose "key-purpose" retry=false
        "The key does not sign what it is asked to sign." "An honest lnd does not see this; an application that signs with keys of its own needs keys of its own.";
    TransactionUnknown "transaction-unknown" retry=false
        "The transaction is none that this node's channels or wallet make with this key." "An honest lnd does not see this; if you signed a PSBT by hand, look at the detail.";
    OutputForeign "output-foreign" retry=false
        "What the channels claim would be paid to somebody else." "Pay to the node's own wallet, or add the address to limits.allow in claviger.toml.";
    NonceForeign "nonce-foreign" retry=false
        "The caller brings the secret nonce for a signature: whoever knows it learns the key." "Simple taproot channels cannot be used with a signer: switch protocol.simple-taproot-chans off.";
    BlindDigest "blind-digest" retry=false
        "A digest would be signed without showing what it stands for." "Applications that sign with MuSig2 cannot be used with this signer yet.";
    PathNotCanonical "path-not-canonical" retry=false
        "A derivation path is not written in its one canonical form." "An honest platform does not write paths so; look at who holds the webhook secret.";
    TweakUnproven "tweak-unproven" retry=false
        "A key's tweak does not follow from what the signer knows." "A channel that was open before the signer knew it cannot be taken over; else look at who holds the webhook secret.";
    DigestMismatch "digest-mismatch" retry=false
        "The digest to be signed is not that of the transaction, script and amount shown with it." "An honest platform does not see this; look at who holds the webhook secret.";
    SecretOrder "secret-order" retry=false
        "A per-commitment point or secret is not the next in its order." "Compare the channel's history with `claviger journal tail`; a channel that was open before cannot be taken over.";
    PreimageNonce "preimage-nonce" retry=false
        "The nonce is not the one that the invoice's payment hash was given with." "An invoice from before the account moved here cannot be claimed here; let such invoices end first.";
    NetworkForeign "network-foreign" retry=false
        "The event is for another network than the account." "Compare the account's network with the signer's.";
    EventStale "event-stale" retry=false
        "The event is too old, or of the future." "Compare the clocks; an old event that comes again was replayed.";
    EventReused "event-reused" retry=false
        "Another event had the same id." "An honest platform does not see this; look at who holds the webhook secret.";
    OperationReused "operation-reused" retry=false
        "Another operation had the same idempotency key." "Use a new key for each operation, and the same one only to repeat it.";
    OperationExpiry "operation-expiry" retry=false
        "The operation has ended, or ends too late." "Compare the clocks; Lightspark's SDKs let an operation end after one hour.";
    ClearanceMissing "clearance-missing" retry=false
        "A screening service is configured, and the operation comes without its clearance." "Have the payment screened first, and send the clearance with the call: docs/lightspark.md.";
    ClearanceInvalid "clearance-invalid" retry=false
        "The clearance is not the screening service's, or not for this account, payee, amount and time." "Have this very payment screened; look at limits.screening_key if every clearance is refused.";
    InvoiceReused "invoice-reused" retry=false
        "The payment hash was signed for another invoice before." "Use a new payment hash for every invoice.";
    ValueNotConserved "value-not-conserved" retry=false
        "The commitment leaves the node with less than its channel and its payments account for." "Look at the detail and at `claviger channel show`; an honest node in step with its signer does not see this.";
    CommitmentFee "commitment-fee" retry=false
        "The commitment's feerate, which we pay, is above the bound." "Check the node's fee estimates.";
    CommitmentOrder "commitment-out-of-order" retry=false
        "The commitment neither repeats one that is valid nor follows it." "Compare the node's channel with `claviger channel show`.";
    PaymentNotApproved "payment-not-approved" retry=false
        "A payment leaves that was not approved." "Approve the invoice or the keysend before paying.";
    PaymentExceeded "payment-exceeded" retry=false
        "A payment takes more out than was approved, over all its parts and attempts." "Approve a payment under a new hash; the same one is not paid twice.";
    PreimageMissing "preimage-missing" retry=false
        "The peer took an outgoing payment, and its preimage is not known." "Nothing to do for an honest node; look at who uses its certificate.";
    ForwardNotCovered "forward-not-covered" retry=false
        "A forward takes more out than comes in for it." "Check the node's routing fees; an honest node does not see this.";
    ForwardCltv "forward-cltv" retry=false
        "A forward's incoming HTLC ends too soon after its outgoing one." "Raise the node's CLTV delta.";
    ForwardUnclaimed "forward-unclaimed" retry=false
        "An incoming HTLC is given up although its payment left or may still leave." "Claim the HTLC with the preimage of the outgoing one.";
    DustExceeded "dust-exceeded" retry=true
        "More left through HTLCs too small for an output than came back." "The bound frees itself within a day. Check the node's limit on dust exposure.";
    ChainStale "chain-view-stale" retry=true
        "The signer's view of the chain is missing or behind." "Check the [chain] section and that the chain backend answers: `claviger status`.";
    ChainPending "chain-pending" retry=true
        "The chain has not confirmed what this request needs." "Wait for the next block.";
    FundingSpent "funding-spent" retry=false
        "A transaction on the chain closes the channel; it takes no new commitment." "Nothing to do: the node learns of the same block, and gives the channel up.";
    JournalUnavailable "journal-unavailable" retry=true
        "The journal cannot be written; nothing may be signed." "Free disk space or repair the disk; signing resumes by itself.";
    NodeRestarting "node-restarting" retry=true
        "The node's state is being rebuilt from the journal." "The client repeats the request by itself.";
    NodeBusy "node-busy" retry=true
        "Too many requests of this node are waiting." "The client repeats the request by itself.";
    Frozen "frozen" retry=true
        "An operator froze the node or the channel: no new state is signed, closing and punishing are." "Look at `claviger node show`; when the matter is settled: `claviger node thaw`, or `claviger channel thaw`.";
    Quarantined "quarantined" retry=true
        "The signer's state may be an old copy, a second one, or of a wrong clock: no new state is signed, closing and punishing are." "Look at `claviger node show` for what was noticed. Put the latest state back, or close the channels; if the state is the latest: `claviger restore`.";
    Sealed "sealed" retry=true
        "The signer is sealed." "Run `claviger unseal`.";
    LinkInUse "link-in-use" retry=true
        "Another process is connected with this node's bundle." "Stop the other process, or give each node its own bundle.";
    CertificateUnknown "certificate-unknown" retry=false
        "The certificate belongs to no node of this signer." "Write a new bundle: `claviger node renew`, or `claviger node add` if the node was removed.";
    CertificateRevoked "certificate-revoked" retry=false
        "The node's certificate was revoked." "Write a new bundle: `claviger node renew`.";
    CertificateExpired "certificate-expired" retry=false
        "The node's certificate has ended." "Write a new bundle: `claviger node renew`.";
    LinkProtocol "link-protocol" retry=false
        "The caller does not follow the link's protocol." "Check that node and signer versions match.";
    FrameTooLarge "frame-too-large" retry=false
        "A frame is larger than the link carries." "Check that node and signer versions match.";
    ShuttingDown "shutting-down" retry=true
        "The signer is stopping." "Start it again: `claviger run`. The client connects by itself.";
    LeftOut "refusals-left-out" retry=false
        "Refusals of this node were counted here instead of being recorded one by one." "Look at the refusals recorded before: something sends the same kind of refused request over and over.";
    PolicyForbidden "policy-forbidden" retry=false
        "A rule of the spending policy forbids it." "Look at the rule: `claviger policy show`. If it is wanted, change the rule and test it with `claviger policy simulate`.";
    PolicyNothingPermits "policy-nothing-permits" retry=false
        "No rule of the spending policy permits it." "What no rule permits is refused. `claviger explain` shows the rules that are closest.";
    PolicyBudgetExceeded "policy-budget-exceeded" retry=true
        "It takes more than is left of a budget." "Wait until the budget has refilled, or raise its limit.";
    PolicyBudgetUnmeasured "policy-budget-unmeasured" retry=false
        "A budget counts by a fact that the request does not carry." "Give the budget actions that always carry its fact and its scope.";
    PolicyBudgetCrowded "policy-budget-crowded" retry=true
        "A budget is counted for as many keys as it can hold." "Wait until old ones have left the window, or count by a wider scope.";
    PolicyApprovalNeeded "policy-approval-needed" retry=true
        "It needs the approval of others first." "Approvers sign the ticket: `claviger grant approve`. Then the node asks again.";
    PolicyFault "policy-fault" retry=false
        "The policy could not judge the request; that is never a permit." "Look at the detail: the rule that fails, or the fact that is missing.";
    Fault "fault" retry=false
        "The signer failed while handling the request; nothing was signed." "Look at the daemon's log; report the request id.";
}

impl Reason {
    /// The reason for which the spending policy refused: the same ids stand in both tables.
    pub fn of_policy(reason: claviger_policy::reasons::Reason) -> Self {
        Self::by_id(reason.id()).unwrap_or(Self::PolicyFault)
    }
}

/// A refusal: the reason and what was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule refused.
    pub reason: Reason,
    /// What was compared, in words and numbers. Never holds a secret.
    pub detail: String,
    /// The same as data.
    pub facts: Vec<Fact>,
}

impl Refusal {
    /// The longest detail, in characters. What a caller sends may be quoted in it, and it is stored (P6).
    pub const MAX_DETAIL: usize = 1_000;

    /// A refusal for `reason` with its detail, of which at most [`Self::MAX_DETAIL`] characters are kept.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(Self::MAX_DETAIL) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { reason, detail, facts: Vec::new() }
    }

    /// The same with one more fact that was compared.
    #[must_use]
    pub fn with_fact(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }
}
