//! Running totals a few times a second, from a task of its own, so that a report can show when bytes came and who was busy.
//!
//! A sample reads the link's counters and `/proc/*/stat`. That is this process's CPU time, and so within `bench_ms`; docs/bench.md says
//! how much it is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::link::Meter;
use super::marks::Mark;
use super::observe::{self, Who};
use super::result::{Sample, Traffic};

/// Between two samples, at first.
const PERIOD: Duration = Duration::from_millis(200);
/// Of more samples every other one goes, and the period doubles.
const MOST: usize = 2000;

/// A running sampler; it stops when dropped.
pub(super) struct Sampler {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// The workload's first process; 0 while it is not known.
    workload: AtomicU32,
    samples: Mutex<Vec<Sample>>,
}

impl Sampler {
    /// Samples from `first` on.
    pub(super) fn start(first: &Mark, who: Who, link: Meter) -> Self {
        Self::every(PERIOD, first, who, link)
    }

    fn every(period: Duration, first: &Mark, who: Who, link: Meter) -> Self {
        let shared = Arc::new(Shared::default());
        let (at, traffic, cpu, told) = (first.at, first.link, first.cpu, Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let mut period = period;
            loop {
                tokio::time::sleep(period).await;
                let workload = Some(told.workload.load(Ordering::Relaxed)).filter(|pid| *pid > 0);
                let used = observe::used(cpu, observe::cpu(Who { workload: workload.or(who.workload), ..who }));
                let now = link.traffic();
                let sample = Sample {
                    at_ms: u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
                    link: Traffic { requests: now.requests - traffic.requests, bytes: now.bytes - traffic.bytes },
                    cpu: used,
                };
                let mut all = told.samples.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(sample);
                if all.len() >= MOST {
                    thin(&mut all);
                    period *= 2;
                }
            }
        });
        Self { shared, task }
    }

    /// From now on the workload's processes count.
    pub(super) fn workload(&self, pid: u32) {
        self.shared.workload.store(pid, Ordering::Relaxed);
    }

    /// All samples.
    pub(super) fn end(self) -> Vec<Sample> {
        self.task.abort();
        std::mem::take(&mut *self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps every other one, the last one among them.
fn thin(all: &mut Vec<Sample>) {
    let odd = all.len() % 2;
    let mut i = 0;
    all.retain(|_| {
        i += 1;
        i % 2 == odd
    });
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use std::time::Instant;

    use super::super::link::{Link, Shape};
    use super::*;

    #[tokio::test]
    async fn totals_grow_and_the_workload_counts_once_it_is_known() {
        let shape = Shape { latency: Duration::ZERO, bytes_per_second: 0, connection_bytes_per_second: 0 };
        let link = Link::start("127.0.0.1:0", "127.0.0.1:1", shape).await.unwrap();
        let first = Mark { at: Instant::now(), link: link.traffic(), cpu: observe::cpu(Who::default()) };
        let sampler = Sampler::every(Duration::from_millis(10), &first, Who::default(), link.meter());
        tokio::time::sleep(Duration::from_millis(100)).await;
        // A process that has used some time and uses more.
        let mut busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        sampler.workload(busy.id());
        while sampler.shared.samples.lock().unwrap().last().is_none_or(|s| s.cpu.workload_ms == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        let all = sampler.end();
        assert!(all.is_sorted_by_key(|s| s.at_ms), "{all:?}");
        assert_eq!(all[0].cpu.workload_ms, 0);
        assert_eq!(all[0].link, Traffic::default());
    }

    #[test]
    fn thinning_keeps_the_last() {
        for n in [1, 2, 5, 6] {
            let mut all: Vec<_> = (1..=n).map(|at_ms| Sample { at_ms, ..Sample::default() }).collect();
            thin(&mut all);
            assert_eq!(all.last().map(|s| s.at_ms), Some(n));
            assert_eq!(all.len(), usize::try_from(n.div_ceil(2)).unwrap());
        }
    }
}
