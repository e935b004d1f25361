//! A profile against the truth.

use std::fmt;

use esgz::profile::Profile;

use crate::contract::Contract;
use crate::ranges::{len, pages, shared, union, widen};
use crate::workload::Touched;

/// The result of one case.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) case: String,
    /// Of the touched bytes (whole pages) the share that was reported; nothing where nothing was touched.
    recall: Option<f64>,
    /// Of the reported bytes the share that was touched; nothing where nothing was reported.
    precision: Option<f64>,
    /// Why the contract is broken.
    pub(crate) wrong: Option<String>,
}

#[expect(clippy::cast_precision_loss, reason = "shares of files of a few gigabytes")]
fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// One file of the workload.
pub(crate) fn judge(touched: &Touched, profile: &Profile, contract: Contract) -> Verdict {
    let truth = pages(&touched.ranges, touched.size);
    let got = union(
        profile
            .files
            .iter()
            .filter(|f| f.path == touched.path || f.links.contains(&touched.path))
            .flat_map(|f| f.ranges.iter().map(|r| (r.0, r.0 + r.1)))
            .collect(),
    );
    let hit = shared(&truth, &got);
    let (recall, precision) = (share(hit, len(&truth)), share(hit, len(&got)));
    let near = contract.slack.map_or_else(|| got.clone(), |slack| widen(&truth, slack, touched.size));
    let far = len(&got) - shared(&got, &near);
    let wrong = if recall.is_some_and(|r| r < contract.recall) {
        Some(format!("recall below {:.2}: touched {truth:?}, reported {got:?}", contract.recall))
    } else if contract.blind && hit > 0 {
        Some(format!("seen, though the recorder is said to be blind here: {got:?}"))
    } else if truth.is_empty() && !got.is_empty() {
        Some(format!("never touched, reported {got:?}"))
    } else if far > 0 {
        let slack = contract.slack.unwrap_or_default();
        Some(format!("{far} bytes further than {slack} from a touch: touched {truth:?}, reported {got:?}"))
    } else {
        None
    };
    Verdict { case: touched.case.clone(), recall, precision, wrong }
}

/// Whether the recorder says that all events came through.
pub(crate) fn lost(profile: &Profile) -> Verdict {
    let header = &profile.header;
    let lost = header.lost_events;
    // The one recorder that cannot follow io_uring must say so, in figures and in words.
    let wrong = if header.recorder.name == "seccomp" {
        let said = header.notes.iter().any(|n| n.contains("io_uring"));
        (lost != 1 || !said).then(|| format!("{lost} events lost and {:?} said: expected io_uring alone", header.notes))
    } else {
        (lost > 0).then(|| format!("{lost} events lost"))
    };
    Verdict { case: "no event lost".into(), recall: None, precision: None, wrong }
}

impl Verdict {
    /// For the table.
    pub(crate) fn cell(&self) -> String {
        let percent = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |s| format!("{:.0}", s * 100.0));
        let mark = if self.wrong.is_some() { " **wrong**" } else { "" };
        format!("{} / {}{mark}", percent(self.recall), percent(self.precision))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.wrong.as_deref().map_or_else(|| "ok".to_owned(), |w| format!("FAILED: {w}"));
        write!(f, "{:<14} {:>9}  {words}", self.case, self.cell().replace(" **wrong**", ""))
    }
}
