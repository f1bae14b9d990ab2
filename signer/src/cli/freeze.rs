//! `claviger freeze` and `claviger unfreeze`: every node at once.

use std::path::Path;

use clap::Args;
use claviger_proto::v1::{NodeListRequest, OrderRequest};
use serde::Serialize;

use super::{CliError, Output, admin};

/// Which nodes, and why.
#[derive(Debug, Args)]
pub(super) struct FreezeArgs {
    /// All nodes; for one of them: claviger node freeze NAME, claviger node thaw NAME.
    #[arg(long, required = true)]
    all: bool,
    /// Why, for the journal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

/// What became of one node.
#[derive(Serialize)]
struct Ordered {
    node: String,
    /// The journal's name for it, which `claviger explain` takes; `None` if it was not carried out.
    request: Option<String>,
    /// Why not, and what to do.
    error: Option<CliError>,
}

/// Gives the order `freeze` or `thaw` to every node. One that does not take it keeps no other from it.
pub(super) fn all(data_dir: &Path, order: &str, args: &FreezeArgs, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    let nodes = daemon.call(async |client| client.node_list(NodeListRequest {}).await)?.nodes;
    let ordered: Vec<_> = nodes
        .into_iter()
        .map(|node| {
            let (order, why) = (order.to_owned(), args.why.clone());
            let request = OrderRequest { node: node.name.clone(), order, why, ..OrderRequest::default() };
            match daemon.call(async |client| client.order(request).await) {
                Ok(reply) => Ordered { node: node.name, request: Some(reply.request), error: None },
                Err(error) => Ordered { node: node.name, request: None, error: Some(error) },
            }
        })
        .collect();
    output.result(&ordered, || ordered.iter().map(|node| line(order, node)).collect::<Vec<_>>().join("\n"));
    let missed: Vec<_> = ordered.iter().filter(|node| node.error.is_some()).map(|node| node.node.as_str()).collect();
    if missed.is_empty() {
        return Ok(());
    }
    let hint = "Each says what to do. A node that does not run signs nothing; give the order again when it does.";
    Err(CliError::new(format!("not done for {}", missed.join(", ")), hint))
}

fn line(order: &str, Ordered { node, request, error }: &Ordered) -> String {
    match (request, error) {
        (_, Some(CliError { error, hint, .. })) => format!("{order} node {node}: NOT DONE: {error}\n  hint: {hint}"),
        (request, None) => {
            format!("{order} node {node}: done, recorded as {}", request.as_deref().unwrap_or_default())
        }
    }
}
