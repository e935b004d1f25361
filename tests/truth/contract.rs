//! What each recorder promises for each case. Change it together with docs/profile.md.

use crate::rig::{Kind, READ_AHEAD_KIB};

/// A promise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contract {
    /// Least share of the touched bytes that is reported.
    pub(crate) recall: f64,
    /// Most bytes on each side of a touched range that may be reported, too. Nothing further away may.
    pub(crate) slack: Option<u64>,
    /// The case must not be seen: if it is, the words about the recorder are wrong.
    pub(crate) blind: bool,
}

const EXACT: Contract = Contract { recall: 1.0, slack: Some(0), blind: false };
/// `fault_around_bytes`, whose window is aligned in memory, not in the file.
const FAULT_AROUND: u64 = 64 << 10;
/// The kernel reads the next window ahead while the last one is being read.
const READ_AHEAD: u64 = 2 * (READ_AHEAD_KIB << 10);

/// `filemap_get_pages` returns the pages that are there without its tracepoint when the next ones of the same read are still on their way
/// from the disk. Of single reads here and there what read-ahead for others had brought in is then missing; 99 % and more were seen.
const SILENT: f64 = 0.97;

/// The contract of a recorder for a case.
pub(crate) fn of(recorder: &str, case: &str, kind: Kind) -> Contract {
    let mapped = case.starts_with("mapped");
    let mut contract = match recorder {
        "filemap" if mapped => Contract { slack: Some(FAULT_AROUND), ..EXACT },
        "filemap" => Contract { recall: SILENT, ..EXACT },
        "seccomp" if case == "io_uring" => Contract { recall: 0.0, blind: true, ..EXACT },
        "seccomp" if mapped => Contract { slack: Some(FAULT_AROUND), ..EXACT },
        "seccomp" => EXACT,
        "page-cache" => Contract { slack: Some(READ_AHEAD), ..EXACT },
        // They look at what has the old path at the end.
        "residency" | "fanotify" if matches!(case, "truncated" | "renamed" | "deleted") => {
            Contract { recall: 0.0, slack: Some(READ_AHEAD), blind: false }
        }
        // The kernel may push out what no look has seen yet when it needs the memory.
        "residency" | "fanotify" if case == "5 GB" => Contract { recall: 0.9, ..EXACT },
        "residency" | "fanotify" => Contract { slack: Some(READ_AHEAD), ..EXACT },
        other => panic!("no contract for {other}"),
    };
    // To cut a file off or to rename it an overlay copies it up, which reads all of it.
    if kind.is_overlay() && matches!(case, "truncated" | "renamed") {
        contract.slack = None;
    }
    contract
}
