//! What a grant lets pass, and what that takes of it.

use super::covers::Mismatch;
use super::group::Approvals;
use super::intent::{GrantId, GrantKind};
use super::standing::Grant;
use super::{AlarmEvent, Effect, GrantError, Grants, Standing, record};
use crate::budget::{Change, ReservationKey};
use crate::request::Request;

impl Grants {
    /// The grant that lifts for `request` what the approval group `group` may lift, if there is one. `key` is what the
    /// request is known by if it comes again: what a grant let pass before, it lets pass again (P5).
    ///
    /// Of several, the one that the request took a use of before; then normal ones before break-glass; then the one that
    /// ends first.
    pub fn find(
        &self,
        approvals: &Approvals,
        request: &Request,
        group: &str,
        key: &ReservationKey,
        now_ms: u64,
    ) -> Option<GrantId> {
        let lifts = |grant: &Grant| grant.intent.kind == GrantKind::BreakGlass || grant.intent.group == group;
        let usable = self.grants.values().filter(|grant| {
            lifts(grant)
                && grant.intent.covers(request).is_ok()
                && grant.is_usable(approvals, key, now_ms)
                && grant.takes_msat(request, key).is_some()
        });
        let first = usable.min_by_key(|grant| {
            let intent = &grant.intent;
            (!grant.uses.contains_key(key), intent.kind == GrantKind::BreakGlass, intent.valid_until_s, intent.id)
        });
        first.map(|grant| grant.intent.id)
    }

    /// Takes a use of the grant for a permitted `request`. A repeat under the same key takes nothing more, unless it comes
    /// with a larger amount, and then the difference of the total.
    pub fn consume(
        &mut self,
        approvals: &Approvals,
        id: GrantId,
        request: &Request,
        key: &ReservationKey,
        now_ms: u64,
    ) -> Result<Effect, GrantError> {
        let grant = self.grants.get_mut(&id).ok_or(GrantError::Unknown(id))?;
        grant.intent.covers(request)?;
        if !grant.is_usable(approvals, key, now_ms) {
            return Err(GrantError::Standing(grant.standing(approvals, now_ms)));
        }
        let takes_msat = grant.takes_msat(request, key).ok_or(GrantError::TotalExceeded)?;
        if grant.uses.insert(*key, takes_msat) == Some(takes_msat) {
            return Ok(Effect::default());
        }
        let changes: Vec<Change> = vec![record::taken(id, key, Some(takes_msat))];
        Ok(Effect { changes, alarm: grant.alarm(AlarmEvent::Used) })
    }

    /// For `explain`: grants of the request's action that are in force, and why each does not cover the request.
    pub fn near<'a>(
        &'a self,
        approvals: &'a Approvals,
        request: &'a Request,
        now_ms: u64,
    ) -> impl Iterator<Item = (GrantId, Mismatch)> + 'a {
        let in_force = move |grant: &&Grant| {
            grant.intent.actions.contains(&request.action) && grant.standing(approvals, now_ms) == Standing::InForce
        };
        let grants = self.grants.values().filter(in_force);
        grants.filter_map(|grant| Some((grant.intent.id, grant.intent.covers(request).err()?)))
    }
}
