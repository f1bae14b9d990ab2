//! The presets, in tables: parts with their rules, numbers and budgets, and which preset has which parts.

use super::{Number, Part, PartBudget, Preset};
use crate::actions::Action;
use crate::facts::FactId;

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// 1,000 sat, in msat.
const K_SAT: u64 = 1_000_000;
/// 1,000,000 sat, in msat.
const M_SAT: u64 = 1_000 * K_SAT;

/// What every node does, and what costs nothing but chain fees: money comes home.
static HOME: Part = Part {
    doc: "Channels are updated and closed, and what they leave is swept to the node's own wallet.",
    rules: r#"@id("preset-channels") @doc("Channels are updated, and closed by force.")
permit (principal, action in [Action::"UpdateChannel", Action::"SignHtlc", Action::"ForceClose"], resource);

@id("preset-home") @doc("Closes and sweeps that pay the node itself, or listed destinations.")
permit (principal, action in [Action::"CloseChannel", Action::"Sweep"], resource)
when { context.amount_msat == 0 || context.unknown_destinations == 0 };

@id("preset-bump") @doc("Fees of waiting transactions are raised.")
permit (principal, action == Action::"BumpFee", resource);

@id("preset-chain-fee") @doc("No transaction costs more in fees.")
forbid (principal, action in [Action::"Withdraw", Action::"BumpFee", Action::"Sweep", Action::"CloseChannel", Action::"OpenChannel"], resource)
when { context has fee_msat && context.fee_msat > {max_chain_fee_msat} };

@id("preset-talk") @doc("The node announces itself and speaks with its peers.")
permit (principal, action in [Action::"Gossip", Action::"Ecdh"], resource);
"#,
    numbers: &[
        Number { name: "max_chain_fee_msat", doc: "The highest fee of one transaction on the chain." },
        Number { name: "daily_bump_fees_msat", doc: "Raised fees of a node within 24 hours." },
    ],
    budgets: &[PartBudget {
        name: "preset-bump-fees",
        actions: &[Action::BumpFee],
        fact: FactId::FeeMsat,
        window_s: DAY_S,
        limit: "daily_bump_fees_msat",
    }],
};

/// Invoices are issued.
static RECEIVE: Part = Part {
    doc: "Invoices and offers are signed, for any amount.",
    rules: r#"@id("preset-receive") @doc("Invoices and offers to be paid.")
permit (principal, action == Action::"IssueInvoice", resource);
"#,
    numbers: &[],
    budgets: &[],
};

/// Payments leave over Lightning.
static PAY: Part = Part {
    doc: "Invoices and keysends are paid within the numbers.",
    rules: r#"@id("preset-pay") @doc("Payments up to the limit.")
permit (principal, action in [Action::"PayInvoice", Action::"Keysend"], resource)
when { context.amount_msat <= {max_payment_msat} };
"#,
    numbers: &[
        Number { name: "max_payment_msat", doc: "The largest payment, without routing fees." },
        Number { name: "hourly_payments_msat", doc: "Payments of a node within an hour." },
        Number { name: "daily_payments_msat", doc: "Payments of a node within 24 hours." },
    ],
    budgets: &[
        PartBudget {
            name: "preset-hourly-payments",
            actions: &[Action::PayInvoice, Action::Keysend],
            fact: FactId::AmountMsat,
            window_s: HOUR_S,
            limit: "hourly_payments_msat",
        },
        PartBudget {
            name: "preset-daily-payments",
            actions: &[Action::PayInvoice, Action::Keysend],
            fact: FactId::AmountMsat,
            window_s: DAY_S,
            limit: "daily_payments_msat",
        },
    ],
};

/// Payments of others pass.
static ROUTE: Part = Part {
    doc: "Payments of others are forwarded. That no forward costs money is a safety rule.",
    rules: r#"@id("preset-forward") @doc("Payments of others pass, up to the limit.")
permit (principal, action == Action::"Forward", resource)
when { context.amount_msat <= {max_forward_msat} };
"#,
    numbers: &[Number { name: "max_forward_msat", doc: "The largest payment that passes." }],
    budgets: &[],
};

/// Channels are funded.
static FUND: Part = Part {
    doc: "Channels are opened, and nothing is given to the peer at once.",
    rules: r#"@id("preset-open") @doc("Channels up to the limit, without a gift to the peer.")
permit (principal, action == Action::"OpenChannel", resource)
when { context.amount_msat <= {max_channel_msat} && context.push_msat == 0 };
"#,
    numbers: &[
        Number { name: "max_channel_msat", doc: "What the node puts into one channel." },
        Number { name: "daily_channels_msat", doc: "What a node puts into channels within 24 hours." },
    ],
    budgets: &[PartBudget {
        name: "preset-daily-channels",
        actions: &[Action::OpenChannel],
        fact: FactId::AmountMsat,
        window_s: DAY_S,
        limit: "daily_channels_msat",
    }],
};

/// The wallet pays destinations on lists.
static WITHDRAW: Part = Part {
    doc: "The on-chain wallet pays destinations on the allow-lists (`lists/*.toml`), and no others.",
    rules: r#"@id("preset-withdraw") @doc("Withdrawals to listed destinations, up to the limit.")
permit (principal, action == Action::"Withdraw", resource)
when { context.amount_msat <= {max_withdrawal_msat} && context.unknown_destinations == 0 };
"#,
    numbers: &[
        Number { name: "max_withdrawal_msat", doc: "The largest withdrawal, without its fee." },
        Number { name: "daily_withdrawals_msat", doc: "Withdrawals of a node within 24 hours." },
    ],
    budgets: &[PartBudget {
        name: "preset-daily-withdrawals",
        actions: &[Action::Withdraw],
        fact: FactId::AmountMsat,
        window_s: DAY_S,
        limit: "daily_withdrawals_msat",
    }],
};

/// All presets, each with a value for every number of its parts.
pub(super) static PRESETS: &[Preset] = &[
    Preset {
        name: "routing-node",
        doc: "A node that forwards payments of others, balances its channels, and sends its earnings to listed destinations.",
        parts: &[&HOME, &RECEIVE, &PAY, &ROUTE, &FUND, &WITHDRAW],
        defaults: &[
            ("max_chain_fee_msat", 50 * K_SAT),
            ("daily_bump_fees_msat", 200 * K_SAT),
            ("max_payment_msat", 200 * K_SAT),
            ("hourly_payments_msat", M_SAT),
            ("daily_payments_msat", 5 * M_SAT),
            ("max_forward_msat", 10 * M_SAT),
            ("max_channel_msat", 5 * M_SAT),
            ("daily_channels_msat", 10 * M_SAT),
            ("max_withdrawal_msat", 5 * M_SAT),
            ("daily_withdrawals_msat", 5 * M_SAT),
        ],
    },
    Preset {
        name: "merchant",
        doc: "A shop: it is paid, gives small refunds, opens channels, and sends its takings to listed destinations.",
        parts: &[&HOME, &RECEIVE, &PAY, &FUND, &WITHDRAW],
        defaults: &[
            ("max_chain_fee_msat", 50 * K_SAT),
            ("daily_bump_fees_msat", 100 * K_SAT),
            ("max_payment_msat", 50 * K_SAT),
            ("hourly_payments_msat", 200 * K_SAT),
            ("daily_payments_msat", 500 * K_SAT),
            ("max_channel_msat", 2 * M_SAT),
            ("daily_channels_msat", 4 * M_SAT),
            ("max_withdrawal_msat", 10 * M_SAT),
            ("daily_withdrawals_msat", 20 * M_SAT),
        ],
    },
    Preset {
        name: "receive-only",
        doc: "A node that is paid and never pays: what it holds leaves by closing channels to its own wallet, and no further.",
        parts: &[&HOME, &RECEIVE],
        defaults: &[("max_chain_fee_msat", 50 * K_SAT), ("daily_bump_fees_msat", 100 * K_SAT)],
    },
    Preset {
        name: "lsp",
        doc: "A provider of liquidity: many channels a day, large forwards, and payments for swaps.",
        parts: &[&HOME, &RECEIVE, &PAY, &ROUTE, &FUND, &WITHDRAW],
        defaults: &[
            ("max_chain_fee_msat", 200 * K_SAT),
            ("daily_bump_fees_msat", 2 * M_SAT),
            ("max_payment_msat", 2 * M_SAT),
            ("hourly_payments_msat", 10 * M_SAT),
            ("daily_payments_msat", 50 * M_SAT),
            ("max_forward_msat", 50 * M_SAT),
            ("max_channel_msat", 20 * M_SAT),
            ("daily_channels_msat", 500 * M_SAT),
            ("max_withdrawal_msat", 50 * M_SAT),
            ("daily_withdrawals_msat", 100 * M_SAT),
        ],
    },
    Preset {
        name: "treasury",
        doc: "A store of value: it is paid, opens few channels, pays little over Lightning, and withdraws to listed destinations.",
        parts: &[&HOME, &RECEIVE, &PAY, &FUND, &WITHDRAW],
        defaults: &[
            ("max_chain_fee_msat", 100 * K_SAT),
            ("daily_bump_fees_msat", 200 * K_SAT),
            ("max_payment_msat", 100 * K_SAT),
            ("hourly_payments_msat", 100 * K_SAT),
            ("daily_payments_msat", 500 * K_SAT),
            ("max_channel_msat", 20 * M_SAT),
            ("daily_channels_msat", 20 * M_SAT),
            ("max_withdrawal_msat", 100 * M_SAT),
            ("daily_withdrawals_msat", 100 * M_SAT),
        ],
    },
    Preset {
        name: "agent-wallet",
        doc: "The purse of a program: small payments within tight budgets; no channels of its own, no withdrawals.",
        parts: &[&HOME, &RECEIVE, &PAY],
        defaults: &[
            ("max_chain_fee_msat", 20 * K_SAT),
            ("daily_bump_fees_msat", 40 * K_SAT),
            ("max_payment_msat", K_SAT),
            ("hourly_payments_msat", 5 * K_SAT),
            ("daily_payments_msat", 20 * K_SAT),
        ],
    },
];
