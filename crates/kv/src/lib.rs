//! KV-cache events of inference engines and the keys of prefix blocks.

#![forbid(unsafe_code)]
