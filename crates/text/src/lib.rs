//! The resumable scanner of inference request bodies.
