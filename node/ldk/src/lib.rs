//! LDK signer traits over the node link.
