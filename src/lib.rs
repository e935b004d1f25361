//! `esgz`: profile what a container really reads, rewrite its image into eStargz laid out from that profile, and prove
//! what it gained.
//!
//! Priorities, in order; they settle arguments:
//! 1. never write, serve or report what was not verified or measured;
//! 2. same input and options, same output bytes, on any machine and thread count;
//! 3. time to the first served token;
//! 4. conversion throughput in bounded memory;
//! 5. size of the output;
//! 6. generality.
//!
//! The modules are listed from low to high: a module refers only to modules above it in this list. `tests/layers.rs`
//! holds the source to it.

pub mod digest;
pub mod deflate;
pub mod elf;
pub mod http;
pub mod image;
pub mod progress;
pub mod html;
pub mod python;
pub mod tar;
pub mod estargz;
pub mod profile;
pub mod store;
pub mod record;
pub mod k8s;
pub mod plan;
pub mod convert;
pub mod verify;
pub mod warm;
pub mod bytecode;
pub mod bench;
pub mod cli;
