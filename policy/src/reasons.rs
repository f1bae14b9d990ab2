//! Every reason for which policy refuses, in one table (P11).

use serde::{Deserialize, Serialize};

/// Declares the table: variant, stable id, whether the same request may succeed later by itself, meaning, next step.
macro_rules! reasons {
    ($( $variant:ident $id:literal retry=$retry:literal $meaning:literal $hint:literal; )*) => {
        /// Why policy refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason { $( #[doc = $meaning] #[serde(rename = $id)] $variant, )* }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The stable id: what tests, metrics and scripts compare. Forever.
            pub const fn id(self) -> &'static str { match self { $( Reason::$variant => $id, )* } }

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
    Forbidden "policy-forbidden" retry=false
        "A rule forbids it." "Look at the rule: `claviger policy show`. If the payment is wanted, change the rule's number and test it with `claviger policy simulate`.";
    NothingPermits "policy-nothing-permits" retry=false
        "No rule permits it." "What no rule permits is refused. Compare the facts with the rules that are closest.";
    BudgetExceeded "policy-budget-exceeded" retry=true
        "It takes more than is left of a budget." "Wait until the budget has refilled, or raise its limit.";
    BudgetUnmeasured "policy-budget-unmeasured" retry=false
        "A budget counts by a fact that the request does not carry." "Give the budget actions that always carry its fact and its scope.";
    BudgetCrowded "policy-budget-crowded" retry=true
        "A budget is counted for as many keys as it can hold." "Wait until old ones have left the window, or count by a wider scope.";
    ApprovalNeeded "policy-approval-needed" retry=true
        "It needs the approval of others first." "Approvers sign the ticket: `claviger grant approve`. Then the node asks again.";
    Fault "policy-fault" retry=false
        "The request could not be judged; that is never a permit." "Look at the detail: the rule that fails, or the fact that is missing. Report it if no rule is at fault.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_say_that_policy_refused() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert!(reason.id().starts_with("policy-"), "{}", reason.id());
            assert!(Reason::ALL[..at].iter().all(|other| other.id() != reason.id()), "{}", reason.id());
        }
    }
}
