//! Grants: what a rule or budget forbids unless it is approved, approved by people with their own keys (four eyes).
//! docs/policy/grants.md
//!
//! ```text
//! intent.rs      what is asked
//! covers.rs      whether a request is within it
//! text.rs        its one text, which is what is signed
//! signers.rs     the people and their keys: an OpenSSH allowed_signers file
//! signature.rs   whether a signature of ssh-keygen is theirs
//! group.rs       [roles] and [approvals]: how many people of which role
//! standing.rs    one grant, its approvals and uses
//! ticket.rs      the intents that a refused request asks to be approved
//! uses.rs        what a grant lets pass, and what that takes of it
//! record.rs      entries of the journal
//! ```
//!
//! Time is the caller's, and never runs backwards (P7).

mod covers;
mod error;
mod group;
mod intent;
mod record;
mod signature;
mod signers;
mod standing;
mod text;
mod ticket;
mod uses;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::covers::Mismatch;
pub use self::error::{GrantError, MAX_GRANTS, MAX_WAITING};
pub use self::group::{Approvals, Group, GroupEntry, GroupError, GroupFault, Groups, MAX_LISTED, Roles};
pub use self::intent::{
    GrantId, GrantKind, Intent, IntentError, MAX_BREAK_GLASS_S, MAX_NAME, MAX_PIN, MAX_REASON, MAX_USES,
    MAX_VALIDITY_S, PINNED, REQUEST_NAMESPACE, Requester,
};
pub use self::record::{GrantsUnreadable, PREFIX};
pub use self::signature::{MAX_SIGNATURE, SignatureError, Signer};
pub use self::signers::{Approvers, MAX_FILE, MAX_KEYS, SignerError, SignerFault};
pub use self::standing::{Approval, Grant, Revocation, Standing};
pub use self::text::{FIRST_LINE, MAX_TEXT, TextError};
pub use self::ticket::{TICKET_S, Ticket, TicketError};

use crate::budget::Change;

/// The grants of one node, as its tenant of the journal keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    appliance: String,
    node: String,
    grants: BTreeMap<GrantId, Grant>,
}

/// What came of an operation: entries to record in the same commit, and what people have to be told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Changed entries of the node's tenant, and only those (P1).
    pub changes: Vec<Change>,
    /// Set whenever a break-glass grant is concerned.
    pub alarm: Option<Alarm>,
}

/// A break-glass grant was touched. To be logged, counted and told; never to be kept quiet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The grant.
    pub grant: GrantId,
    /// What happened to it.
    pub event: AlarmEvent,
}

/// What happened to a break-glass grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmEvent {
    /// Somebody asks for it.
    Asked,
    /// One more person approved it.
    Approved,
    /// It let a request pass.
    Used,
    /// It was taken back.
    Revoked,
}

impl AlarmEvent {
    /// As events and metrics name it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Asked => "break-glass-asked",
            Self::Approved => "break-glass-approved",
            Self::Used => "break-glass-used",
            Self::Revoked => "break-glass-revoked",
        }
    }
}

impl Grants {
    /// No grants, for the node `node` of the appliance with this id.
    pub fn new(appliance: &str, node: &str) -> Self {
        Self { appliance: appliance.to_owned(), node: node.to_owned(), grants: BTreeMap::new() }
    }

    /// All grants, asked, approved, used up and taken back, until their time is over.
    pub fn iter(&self) -> impl Iterator<Item = (GrantId, &Grant)> {
        self.grants.iter().map(|(id, grant)| (*id, grant))
    }

    /// The grant with this id.
    pub fn get(&self, id: GrantId) -> Option<&Grant> {
        self.grants.get(&id)
    }

    /// A person asks. `signature` is the requester's own, over the intent's text in [`REQUEST_NAMESPACE`]: nobody asks in
    /// somebody else's name to approve his own request. The same intent a second time changes nothing (P5).
    pub fn ask(
        &mut self,
        approvals: &Approvals,
        intent: Intent,
        signature: &str,
        now_ms: u64,
    ) -> Result<Effect, GrantError> {
        intent.check()?;
        let signer = approvals.approvers().verify(&intent.text(), REQUEST_NAMESPACE, signature, now_ms)?;
        match &intent.requester {
            Requester::Person(person) if *person == signer.person => {}
            Requester::Person(asks) | Requester::Node(asks) => {
                return Err(GrantError::NotTheRequester { asks: asks.clone(), signed: signer.person });
            }
        }
        if self.get(intent.id).is_some_and(|known| known.intent == intent) {
            return Ok(Effect::default());
        }
        self.check_new(approvals, &intent, now_ms)?;
        self.check_room(approvals, 1, now_ms)?;
        let mut effect = Effect { changes: self.tidy(now_ms), alarm: None };
        self.insert(intent, now_ms, &mut effect);
        Ok(effect)
    }

    /// One person approves, by a signature of `ssh-keygen -Y sign -n NAMESPACE` over the intent's text, where NAMESPACE is
    /// [`GrantKind::namespace`].
    pub fn approve(
        &mut self,
        approvals: &Approvals,
        id: GrantId,
        signature: &str,
        now_ms: u64,
    ) -> Result<Effect, GrantError> {
        let grant = self.grants.get_mut(&id).ok_or(GrantError::Unknown(id))?;
        let standing = grant.standing(approvals, now_ms);
        if matches!(standing, Standing::Ended | Standing::Revoked | Standing::GroupChanged | Standing::UsedUp) {
            return Err(GrantError::Standing(standing));
        }
        let namespace = grant.intent.kind.namespace();
        let signer = approvals.approvers().verify(&grant.intent.text(), namespace, signature, now_ms)?;
        if grant.is_asked_by(&signer.person) {
            return Err(GrantError::OwnRequest(signer.person));
        }
        let role = &grant.intent.role;
        if !approvals.people(role).any(|person| person == signer.person) {
            return Err(GrantError::NotInRole { person: signer.person, role: role.clone() });
        }
        let known = grant.approvals.get(&signer.person);
        if known.is_some_and(|known| approvals.still_counts(&grant.intent, &signer.person, known)) {
            return Err(GrantError::AlreadyApproved(signer.person));
        }
        let approval = Approval { fingerprint: signer.fingerprint, at_ms: now_ms, signature: signature.to_owned() };
        let changes = vec![record::approval(id, &signer.person, Some(&approval))];
        grant.approvals.insert(signer.person, approval);
        Ok(Effect { changes, alarm: grant.alarm(AlarmEvent::Approved) })
    }

    /// Takes a grant back; `by` is the caller. What it let pass before stays passed. A second time changes nothing.
    pub fn revoke(&mut self, id: GrantId, by: &str, now_ms: u64) -> Result<Effect, GrantError> {
        let grant = self.grants.get_mut(&id).ok_or(GrantError::Unknown(id))?;
        if grant.revoked.is_some() {
            return Ok(Effect::default());
        }
        grant.revoked = Some(Revocation { at_ms: now_ms, by: intent::shortened(by) });
        Ok(Effect { changes: vec![record::grant(grant)], alarm: grant.alarm(AlarmEvent::Revoked) })
    }

    /// Forgets what is over, so that its entries leave the journal's state. To be called now and then.
    pub fn tidy(&mut self, now_ms: u64) -> Vec<Change> {
        let ended = self.grants.extract_if(.., |_, grant| grant.intent.has_ended(now_ms));
        ended.flat_map(|(_, grant)| record::gone(&grant)).collect()
    }

    /// Whether `intent` may become a grant here.
    fn check_new(&self, approvals: &Approvals, intent: &Intent, now_ms: u64) -> Result<(), GrantError> {
        if intent.appliance != self.appliance {
            return Err(GrantError::OtherAppliance(intent.appliance.clone()));
        }
        if intent.node != self.node {
            return Err(GrantError::OtherNode(intent.node.clone()));
        }
        if intent.has_ended(now_ms) {
            return Err(GrantError::Standing(Standing::Ended));
        }
        if self.grants.contains_key(&intent.id) {
            return Err(GrantError::IdTaken(intent.id));
        }
        if !approvals.mean(intent) {
            return Err(GrantError::GroupChanged(intent.group.clone()));
        }
        let is_requester = |person: &str| matches!(&intent.requester, Requester::Person(known) if known == person);
        let people = approvals.people(&intent.role).filter(|person| !is_requester(person)).count();
        if people < intent.of as usize {
            return Err(GrantError::CannotBeMet { of: intent.of, role: intent.role.clone(), people });
        }
        Ok(())
    }

    /// Whether `more` grants that wait have room, without what is over.
    fn check_room(&self, approvals: &Approvals, more: usize, now_ms: u64) -> Result<(), GrantError> {
        let alive = self.grants.values().filter(|grant| !grant.intent.has_ended(now_ms));
        let (mut all, mut waiting) = (more, more);
        for grant in alive {
            all += 1;
            waiting += usize::from(matches!(grant.standing(approvals, now_ms), Standing::Waiting { .. }));
        }
        let full = all > MAX_GRANTS || waiting > MAX_WAITING;
        if more > 0 && full { Err(GrantError::Full) } else { Ok(()) }
    }

    fn insert(&mut self, intent: Intent, now_ms: u64, effect: &mut Effect) {
        let grant = Grant::new(intent, now_ms);
        effect.changes.push(record::grant(&grant));
        effect.alarm = effect.alarm.take().or(grant.alarm(AlarmEvent::Asked));
        self.grants.insert(grant.intent.id, grant);
    }
}

impl Grant {
    fn alarm(&self, event: AlarmEvent) -> Option<Alarm> {
        (self.intent.kind == GrantKind::BreakGlass).then_some(Alarm { grant: self.intent.id, event })
    }
}
