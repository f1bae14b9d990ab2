//! What can be wrong with the text of a rule, where it stands, and what to do.

use serde::Serialize;

use super::bounds::{MAX_DEPTH, MAX_OPERATORS, MAX_RULE_BYTES, MAX_RULES, MAX_TEXT};
use crate::place::Place;

/// A rule that cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{file}:{place}: {fault}")]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong.
    pub fault: RuleFault,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleFault {
    /// Cedar cannot read it.
    #[error("{0}")]
    Syntax(String),
    /// It names what does not exist, compares what cannot be compared, or reads a fact that may be absent.
    #[error("{0}")]
    Schema(String),
    /// It can never apply, or is written so that it reads as something else.
    #[error("{0}")]
    Suspect(String),
    /// It has no `@id`.
    #[error("the rule has no @id")]
    IdMissing,
    /// Its `@id` is no name.
    #[error("{0:?} cannot be the id of a rule")]
    IdShape(String),
    /// Another rule has the same `@id`.
    #[error("the id {id:?} is taken by the rule at {file}:{place}")]
    IdTwice {
        /// Both rules' id.
        id: String,
        /// The file of the first.
        file: String,
        /// Where the first is.
        place: Place,
    },
    /// An annotation that means nothing.
    #[error("@{0} means nothing")]
    Annotation(String),
    /// `@unless_approved` does not name an approval group.
    #[error("{0:?} cannot be the name of an approval group")]
    GroupShape(String),
    /// `@unless_approved` on a `permit`.
    #[error("@unless_approved on a permit: only a forbid can be lifted")]
    GroupOnPermit,
    /// A template: it has slots.
    #[error("rules have no slots such as ?principal")]
    Template,
    /// Too many rules.
    #[error("there are more than {MAX_RULES} rules")]
    TooMany,
    /// Too much text.
    #[error("the rules are longer than {MAX_TEXT} bytes together")]
    TooMuch,
    /// One rule is too long.
    #[error("the rule is longer than {MAX_RULE_BYTES} bytes")]
    TooLong,
    /// One rule is too deep or too wide.
    #[error(
        "the rule nests deeper than {MAX_DEPTH} brackets, or has more than {MAX_OPERATORS} characters of operators"
    )]
    TooDeep,
}

impl RuleFault {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Syntax(_) => "Rules are written in Cedar: permit or forbid (principal, action, resource) when { … };".into(),
            Self::Schema(_) => "docs/policy/facts.md lists the actions and the facts that each carries; a fact that is not always there is read after `context has`.".into(),
            Self::Suspect(_) => "Look at the actions and conditions again: as it stands, the rule does not do what it seems to.".into(),
            Self::IdMissing => "Write @id(\"name\") before it.".into(),
            Self::IdShape(_) => "Use 1 to 64 of a-z, 0-9 and -, starting with a letter.".into(),
            Self::IdTwice { .. } => "Give one of them another name; ids tell rules apart in every verdict.".into(),
            Self::Annotation(_) => "Annotations are @id, @doc and @unless_approved.".into(),
            Self::GroupShape(_) => "Use the name of a group in [approvals]: 1 to 32 of a-z, 0-9 and -.".into(),
            Self::GroupOnPermit => "Forbid what needs approval, and put @unless_approved on that forbid.".into(),
            Self::Template => "Name the node: principal == Node::\"alice\".".into(),
            Self::TooMany | Self::TooMuch => "Put addresses, payees and peers into lists, and ask for the list in one rule.".into(),
            Self::TooLong | Self::TooDeep => "Split the rule; long enumerations belong into lists.".into(),
        }
    }
}
