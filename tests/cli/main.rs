//! The command line, one file a subcommand.
#![expect(clippy::unwrap_used, reason = "a failed test is what it is for")]

mod bench;
mod index;
mod k8s;
mod plan;
mod profile;
mod profiles;
mod rig;
mod tools;
mod verify;
mod warm;
