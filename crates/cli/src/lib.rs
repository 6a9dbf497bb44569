//! The inlane command.
