//! The Cedar schema, made from the tables of actions and facts.

use std::fmt::Write;

use crate::actions::{Action, Group};
use crate::facts::FactId;

/// The entity type of who asks: `principal == Node::"alice"`.
pub const NODE: &str = "Node";
/// The entity type of what is asked for. There is one, [`FLEET_ID`]: rules leave `resource` open.
pub const FLEET: &str = "Fleet";
/// The only fleet.
pub const FLEET_ID: &str = "claviger";

/// The schema as text, in Cedar's syntax. Facts that not every request carries are optional: strict validation refuses
/// a rule that reads one without `context has` before it.
pub fn text() -> String {
    let mut text = format!("entity {NODE};\nentity {FLEET};\n");
    for group in Group::ALL {
        let _ = writeln!(text, "action {};", group.id());
    }
    for action in Action::ALL {
        let _ = writeln!(text, "\n// {}", action.doc());
        let _ = writeln!(text, "action {} in [{}] appliesTo {{", action.id(), action.group().id());
        let _ = writeln!(text, "    principal: [{NODE}],\n    resource: [{FLEET}],\n    context: {{");
        for fact in FactId::of(*action) {
            let optional = if fact.always(*action) { "" } else { "?" };
            let _ = writeln!(text, "        {}{optional}: {},", fact.id(), fact.kind().cedar());
        }
        text.push_str("    },\n};\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_one_that_cedar_takes() {
        let (schema, warnings) = cedar_policy::Schema::from_cedarschema_str(&text()).expect("valid");
        assert_eq!(warnings.count(), 0);
        assert_eq!(schema.actions().count(), Action::ALL.len() + Group::ALL.len());
    }
}
