//! Safety is not policy (P3): no file, flag or environment variable opens what the rules close.
