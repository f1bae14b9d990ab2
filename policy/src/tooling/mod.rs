//! What people do with policies beside obeying them: check, test, compare, replay, simulate, explain. Each is one pure function
//! with a report that is data (JSON) and text (`Display`); `claviger policy …` prints it.

mod case;
mod check;
mod diff;
mod explain;
mod history;
mod lint;
mod record;
mod replay;
mod shape;
mod show;
mod simulate;
mod suite;
#[cfg(test)]
mod tests;

pub use self::case::{Case, CaseError, CaseFault, Expected, MAX_CASES};
pub use self::check::{CheckReport, check};
pub use self::diff::{Change, PolicyDiff, Subject, diff};
pub use self::explain::{ExplainedBudget, ExplainedFact, Explanation, NearGrant, explain};
pub use self::history::{History, HistoryError, MAX_BUNDLES, MAX_LINE_BYTES};
pub use self::lint::{Finding, Lint, MAX_FINDINGS, lint};
pub use self::record::{Event, Record};
pub use self::replay::{Irreproducible, MAX_LISTED, ReplayReport, replay};
pub use self::show::{ShowReport, ShownRule, show};
pub use self::simulate::{Candidate, Differing, SimulationReport, simulate};
pub use self::suite::{Difference, Failure, SuiteReport, test};

pub(crate) use self::suite::read;
