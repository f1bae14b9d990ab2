//! `claviger channel`.

use std::fmt::Write;
use std::path::Path;

use clap::Subcommand;
use claviger_proto::v1::{
    BalanceInfo, ChannelInfo, ChannelListRequest, ChannelShowRequest, ClaimInfo, CommitmentsInfo, ExemptionInfo,
    FreezeInfo, HtlcInfo, OrderRequest, PaymentInfo,
};

use super::{CliError, Output, admin, time};

const CHANNEL: &str = "A channel is called by `peer:number`, by its number alone, or by its funding output `txid:vout`, which is \
                       the only name of an lnd's channels. One of a Lightspark account has an id there, too.";

#[derive(Debug, Subcommand)]
pub(super) enum ChannelCommand {
    /// All channels of a node: state, commitment numbers, balance, and whether node and signer are in step.
    List {
        /// The node.
        node: String,
    },
    /// One channel: what the signer knows, beside what the node last asked.
    #[command(after_help = CHANNEL)]
    Show {
        /// The node.
        node: String,
        /// The channel.
        channel: String,
    },
    /// Sign no new state of this channel until it is thawed. Closing and punishing go on.
    #[command(after_help = CHANNEL)]
    Freeze {
        /// The node.
        node: String,
        /// The channel.
        channel: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// Take a channel's freeze back.
    #[command(after_help = CHANNEL)]
    Thaw {
        /// The node.
        node: String,
        /// The channel.
        channel: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
}

/// Runs one `claviger channel` command.
pub(super) fn channel(data_dir: &Path, command: ChannelCommand, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    match command {
        ChannelCommand::List { node } => {
            let reply = daemon.call(async |client| client.channel_list(ChannelListRequest { node }).await)?;
            output.result(&reply, || match reply.channels.is_empty() {
                true => format!("node {} has no channels", reply.node),
                false => reply.channels.iter().map(line).collect::<Vec<_>>().join("\n"),
            });
            Ok(())
        }
        ChannelCommand::Show { node, channel } => {
            let request = ChannelShowRequest { node, channel };
            let channel = daemon.call(async |client| client.channel_show(request).await)?;
            output.result(&channel, || details(&channel));
            Ok(())
        }
        ChannelCommand::Freeze { node, channel, why } => order(
            &daemon,
            OrderRequest { node, channel, order: "freeze".to_owned(), why, ..OrderRequest::default() },
            output,
        ),
        ChannelCommand::Thaw { node, channel, why } => order(
            &daemon,
            OrderRequest { node, channel, order: "thaw".to_owned(), why, ..OrderRequest::default() },
            output,
        ),
    }
}

/// Gives an order and says under which id it is recorded.
pub(super) fn order(daemon: &admin::Daemon, request: OrderRequest, output: &Output) -> Result<(), CliError> {
    let what = match request.channel.as_str() {
        "" => format!("{} node {}", request.order, request.node),
        channel => format!("{} channel {channel} of node {}", request.order, request.node),
    };
    let reply = daemon.call(async |client| client.order(request).await)?;
    output.result(&reply, || format!("{what}: done, recorded as {}", reply.request));
    Ok(())
}

/// One channel in one line.
fn line(channel: &ChannelInfo) -> String {
    let numbers = |side: &Option<CommitmentsInfo>| side.as_ref().map_or("-".to_owned(), numbers);
    let balances =
        [&channel.holder, &channel.counterparty].into_iter().flatten().filter_map(|side| side.balance.as_ref());
    let ours = balances.map(|balance| balance.ours_sat).next().unwrap_or_default();
    let frozen = if channel.frozen.is_some() { ", FROZEN" } else { "" };
    let exempt = if channel.exemptions.is_empty() { "" } else { ", exempted" };
    let unproven = channel.unproven_states.map(|states| format!("  {states} unproven states")).unwrap_or_default();
    format!(
        "{}  {}{frozen}{exempt}, {}  ours {ours} of {} sat  commitments {} / {}{unproven}",
        channel.channel,
        channel.state,
        channel.standing,
        channel.capacity_sat,
        numbers(&channel.holder),
        numbers(&channel.counterparty)
    )
}

/// `7`, or `7+8` where both are out.
fn numbers(side: &CommitmentsInfo) -> String {
    side.next.map_or_else(|| side.current.to_string(), |next| format!("{}+{next}", side.current))
}

fn details(channel: &ChannelInfo) -> String {
    let mut text = format!("{}\n", channel.channel);
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    for alias in &channel.aliases {
        row("also", alias.clone());
    }
    row("state", channel.state.clone());
    if !channel.funding.is_empty() && channel.kind.is_empty() {
        row("funding", format!("{} sat", channel.capacity_sat));
    } else if !channel.funding.is_empty() {
        let by = if channel.funded_by_us { "us" } else { "the peer" };
        let depth = channel.funding_depth;
        row("funding", format!("{} ({} sat, by {by}, {depth} confirmations)", channel.funding, channel.capacity_sat));
        row("kind", channel.kind.clone());
    }
    if !channel.peer.is_empty() {
        row("peer", format!("{}, as the node says", channel.peer));
    }
    if channel.closing_depth > 0 {
        row("closed", format!("{} confirmations", channel.closing_depth));
    }
    for (name, side) in [("ours", &channel.holder), ("theirs", &channel.counterparty)] {
        let Some(side) = side else { continue };
        let revoked =
            side.revoked.map_or("none known to be revoked".to_owned(), |revoked| format!("revoked up to {revoked}"));
        row(name, format!("commitment {}, {revoked}", numbers(side)));
        if let Some(balance) = &side.balance {
            row("", balance_text(balance));
            for htlc in &balance.htlcs {
                let HtlcInfo { payment_hash, payment_hash160, cltv_expiry: at, .. } = htlc;
                let hash =
                    if payment_hash.is_empty() { format!("hash160 {payment_hash160}") } else { payment_hash.clone() };
                row("", format!("  {:<3} {} sat until {at}, {hash}", htlc.direction, htlc.amount_sat));
            }
        }
    }
    if let Some(unproven) = channel.unproven_states {
        row("unproven", format!("{unproven} states that were replaced are not proven to be revoked"));
    }
    if let Some(book) = &channel.book {
        let balances = book.settled_msat.zip(book.dust_lost_msat);
        let balances = balances.map(|(ours, lost)| format!("at least {ours} msat ours, {lost} msat lost in dust"));
        row("book", balances.unwrap_or_else(|| "payments".to_owned()));
        for payment in &book.payments {
            row("", payment_text(payment));
        }
    }
    for claim in &channel.claims {
        row("node asked", claim_text(claim));
    }
    row("standing", format!("{}: {}", channel.standing, channel.standing_detail));
    if !channel.fix.is_empty() {
        row("fix", channel.fix.clone());
    }
    if let Some(frozen) = &channel.frozen {
        row("FROZEN", freeze_text(frozen));
    }
    for exemption in &channel.exemptions {
        row("exempt", exemption_text(exemption));
    }
    text
}

fn balance_text(balance: &BalanceInfo) -> String {
    let BalanceInfo { ours_sat, theirs_sat, feerate_per_kw, untold_htlcs, .. } = balance;
    let feerate = if *feerate_per_kw > 0 { format!(", {feerate_per_kw} sat/kw") } else { String::new() };
    let untold = if *untold_htlcs > 0 { format!(" with {untold_htlcs} HTLCs or more") } else { String::new() };
    let (incoming, outgoing) = (balance.incoming_sat, balance.outgoing_sat);
    let (ins, outs) = (balance.incoming_htlcs, balance.outgoing_htlcs);
    format!(
        "ours {ours_sat} sat, theirs {theirs_sat} sat{untold}, in {ins} HTLCs of {incoming} sat, out {outs} of {outgoing} sat\
         {feerate}"
    )
}

fn payment_text(payment: &PaymentInfo) -> String {
    let PaymentInfo { payment_hash, approved_msat, out_msat, in_msat, preimage_known, .. } = payment;
    let preimage = if *preimage_known { ", preimage known" } else { "" };
    format!("  out {out_msat} msat, in {in_msat} msat, approved {approved_msat} msat, {payment_hash}{preimage}")
}

fn claim_text(claim: &ClaimInfo) -> String {
    let outcome = if claim.refused.is_empty() { "answered".to_owned() } else { format!("refused ({})", claim.refused) };
    let state = claim.balance.as_ref().map(|balance| format!("; {}", balance_text(balance))).unwrap_or_default();
    format!("to {} {} at {}: {outcome}{state}", claim.action, claim.number, time::date_time(claim.at_ms))
}

/// Who froze something.
pub(super) fn freeze_text(frozen: &FreezeInfo) -> String {
    let FreezeInfo { at_ms, by, why } = frozen;
    format!("by {by}, {}{}", time::date_time(*at_ms), because(why))
}

/// Who exempted a channel, from what, until when.
pub(super) fn exemption_text(exemption: &ExemptionInfo) -> String {
    let ExemptionInfo { reason, until_ms, by, why, .. } = exemption;
    format!("from '{reason}' until {}, by {by}{}", time::date_time(*until_ms), because(why))
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An lnd's channel with an HTLC that lnd told, and one that it did not.
    fn of_an_lnd() -> ChannelInfo {
        let funding = format!("{}:1", "f0".repeat(32));
        let htlc = HtlcInfo {
            direction: "out".to_owned(),
            amount_sat: 20_000,
            cltv_expiry: 800_100,
            payment_hash160: "05".repeat(20),
            ..HtlcInfo::default()
        };
        let balance = BalanceInfo {
            ours_sat: 600_000,
            theirs_sat: 378_000,
            outgoing_sat: 20_000,
            outgoing_htlcs: 1,
            htlcs: vec![htlc],
            untold_htlcs: 1,
            ..BalanceInfo::default()
        };
        let claim = ClaimInfo { action: "sign the peer's commitment".to_owned(), number: 7, ..ClaimInfo::default() };
        ChannelInfo {
            channel: funding.clone(),
            state: "ready".to_owned(),
            funding,
            capacity_sat: 1_000_000,
            counterparty: Some(CommitmentsInfo { current: 7, next: None, revoked: Some(5), balance: Some(balance) }),
            claims: vec![claim],
            standing: "in-step".to_owned(),
            standing_detail: "last asked to sign the peer's commitment 7, answered".to_owned(),
            frozen: Some(FreezeInfo { by: "uid 0".to_owned(), ..FreezeInfo::default() }),
            peer: "02ab".to_owned(),
            unproven_states: Some(1),
            ..ChannelInfo::default()
        }
    }

    #[test]
    fn an_lnds_channel_is_printed_with_what_is_known_of_it_and_nothing_else() {
        let channel = of_an_lnd();
        let name = &channel.channel;
        let expected =
            format!("{name}  ready, FROZEN, in-step  ours 600000 of 1000000 sat  commitments - / 7  1 unproven states");
        assert_eq!(line(&channel), expected);
        let expected = format!(
            "{name}\n\
             state      ready\n\
             funding    1000000 sat\n\
             peer       02ab, as the node says\n\
             theirs     commitment 7, revoked up to 5\n           \
             ours 600000 sat, theirs 378000 sat with 1 HTLCs or more, in 0 HTLCs of 0 sat, out 1 of 20000 sat\n             \
             out 20000 sat until 800100, hash160 {}\n\
             unproven   1 states that were replaced are not proven to be revoked\n\
             node asked to sign the peer's commitment 7 at 1970-01-01 00:00:00.000: answered\n\
             standing   in-step: last asked to sign the peer's commitment 7, answered\n\
             FROZEN     by uid 0, 1970-01-01 00:00:00.000\n",
            "05".repeat(20)
        );
        assert_eq!(details(&channel), expected);
    }
}
