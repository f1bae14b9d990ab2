//! The messages Claviger speaks: generated from the `.proto` files beside this crate.

/// The node link.
#[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("claviger.v1");
}

/// No frame on the link is larger: an hsmd message is at most 128 KiB, the envelope adds a few bytes.
pub const MAX_FRAME_BYTES: usize = 132 * 1024;
