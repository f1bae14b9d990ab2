//! Compiles the .proto files with protox, so that no protoc has to be installed.

/// Messages whose bytes are secret or release secrets: `src/redact.rs` writes their Debug by hand.
const REDACTED: &[&str] = &[
    ".claviger.v1.NodeRequest",
    ".claviger.v1.NodeReply",
    ".claviger.v1.UnsealRequest",
    ".claviger.v1.RotateDataKeyRequest",
    ".claviger.v1.NodeAddRequest",
    ".claviger.v1.AccountSecretsRequest",
    ".claviger.v1.SeedImport",
    ".claviger.v1.EnrolmentReply",
    ".claviger.v1.BundleFile",
    ".signrpc.SharedKeyResponse",
    ".signrpc.MuSig2SessionRequest",
    ".lnrpc.InitWalletRequest",
    ".lnrpc.InitWalletResponse",
];

/// What `claviger … --json` prints.
const PRINTED: &[&str] = &[
    ".claviger.v1.StatusReply",
    ".claviger.v1.ChainStatus",
    ".claviger.v1.JournalStatus",
    ".claviger.v1.MemoryStatus",
    ".claviger.v1.SharesProgress",
    ".claviger.v1.RotationProgress",
    ".claviger.v1.PolicyInfo",
    ".claviger.v1.PolicyVersion",
    ".claviger.v1.BudgetInfo",
    ".claviger.v1.ShadowInfo",
    ".claviger.v1.PolicyShadowReply",
    ".claviger.v1.ShadowDifference",
    ".claviger.v1.GrantListReply",
    ".claviger.v1.GrantInfo",
    ".claviger.v1.MetricsReply",
    ".claviger.v1.Metric",
    ".claviger.v1.Sample",
    ".claviger.v1.NodeInfo",
    ".claviger.v1.CertificateInfo",
    ".claviger.v1.NodeListReply",
    ".claviger.v1.FreezeInfo",
    ".claviger.v1.ExemptionInfo",
    ".claviger.v1.ChannelListReply",
    ".claviger.v1.ChannelInfo",
    ".claviger.v1.CommitmentsInfo",
    ".claviger.v1.BalanceInfo",
    ".claviger.v1.HtlcInfo",
    ".claviger.v1.ClaimInfo",
    ".claviger.v1.BookInfo",
    ".claviger.v1.PaymentInfo",
    ".claviger.v1.OrderReply",
    ".claviger.v1.LndAdoptReply",
    ".claviger.v1.NotAdopted",
    ".claviger.v1.DoctorReply",
    ".claviger.v1.HardeningReply",
    ".claviger.v1.CheckInfo",
    ".claviger.v1.ChannelCheck",
    ".claviger.v1.Fact",
    ".claviger.v1.DecisionRecord",
    ".claviger.v1.SignedCheckpoint",
    ".claviger.v1.VerifyProgress",
    ".claviger.v1.BadRecord",
    ".claviger.v1.RecoveredChannel",
    ".claviger.v1.RecoveredTransaction",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=claviger");
    println!("cargo:rerun-if-changed=lnd");
    let files = protox::compile(
        [
            "claviger/v1/link.proto",
            "claviger/v1/operations.proto",
            "claviger/v1/admin.proto",
            "lnd/signrpc.proto",
            "lnd/walletrpc.proto",
            "lnd/walletunlocker.proto",
        ],
        ["."],
    )?;
    let mut builder = tonic_prost_build::configure().skip_debug(REDACTED);
    for message in PRINTED {
        builder = builder.type_attribute(message, "#[derive(serde::Serialize)]");
    }
    builder.compile_fds(files)?;
    Ok(())
}
