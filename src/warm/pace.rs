//! How many reads may be in flight. The cost of a read on a lazy file system sits in the snapshotter, where niceness does not reach:
//! many reads hide the registry's latency, and take the CPUs from the workload where those are what is short.

/// As few as that, so that one slow answer does not stop everything.
const LEAST: usize = 4;
/// To begin with: at 30 ms a request and 2 MiB a chunk, 500 MB/s.
const FIRST: usize = 8;
/// Share of CPU time that is idle, in thousandths, above which more reads cost nobody anything.
const IDLE: u64 = 200;
/// Below this share the CPUs are what is short.
const BUSY: u64 = 50;

/// The number of reads in flight over time.
#[derive(Debug)]
pub(super) struct Pace {
    limit: usize,
    most: usize,
    last: Option<Cpu>,
}

/// CPU time of the whole machine since boot, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cpu {
    /// Nothing to do, or waiting for a disk.
    pub idle: u64,
    /// All of it.
    pub total: u64,
}

impl Cpu {
    /// Reads the first line of `/proc/stat` (`proc_stat(5)`); `None` where there is no such file, as in some sandboxes.
    pub(super) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Share of idle time since then, in thousandths; `None` when no tick has passed.
    pub(super) fn idle_since(self, then: Self) -> Option<u64> {
        let total = self.total.saturating_sub(then.total);
        self.idle.saturating_sub(then.idle).saturating_mul(1000).checked_div(total)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.lines().next()?.split_ascii_whitespace();
        (words.next() == Some("cpu")).then_some(())?;
        // user nice system idle iowait irq softirq steal; what guests use is part of the first two.
        let ticks: Vec<u64> = words.take(8).map_while(|w| w.parse().ok()).collect();
        let idle = ticks.get(3)?.saturating_add(*ticks.get(4)?);
        Some(Self { idle, total: ticks.iter().fold(0, |sum, t| sum.saturating_add(*t)) })
    }
}

impl Pace {
    /// At most that many.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { limit: FIRST.min(most), most, last: None }
    }

    /// Reads that may be in flight now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes another look at the machine; where it cannot be seen the number stays.
    pub(super) fn look(&mut self, now: Option<Cpu>) {
        let last = std::mem::replace(&mut self.last, now);
        let (Some(last), Some(now)) = (last, now) else { return };
        let Some(idle) = now.idle_since(last) else { return };
        if idle >= IDLE {
            self.limit = (self.limit + self.limit.div_ceil(2)).min(self.most);
        } else if idle < BUSY {
            self.limit = (self.limit - self.limit / 4).max(LEAST.min(self.most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit after each of these shares of idle time, in thousandths.
    fn limits(most: usize, idle: &[u64]) -> Vec<usize> {
        let (mut pace, mut at) = (Pace::new(most), Cpu { idle: 0, total: 0 });
        pace.look(Some(at));
        let step = |share: &u64| {
            at = Cpu { idle: at.idle + share, total: at.total + 1000 };
            pace.look(Some(at));
            pace.limit()
        };
        idle.iter().map(step).collect()
    }

    #[test]
    fn an_idle_machine_gets_more_reads_and_a_busy_one_fewer() {
        assert_eq!(limits(32, &[500, 500, 500, 500, 500]), [12, 18, 27, 32, 32]);
        assert_eq!(limits(32, &[0, 0, 0, 0]), [6, 5, 4, 4]);
        assert_eq!(limits(32, &[100, 199, 50]), [8, 8, 8]);
        assert_eq!(limits(32, &[0, 900, 0]), [6, 9, 7]);
    }

    #[test]
    fn the_bound_holds_and_an_unseen_machine_changes_nothing() {
        assert_eq!(limits(2, &[900, 0, 0]), [2, 2, 2]);
        assert_eq!(limits(0, &[900]), [1]);
        let mut pace = Pace::new(16);
        for _ in 0..3 {
            pace.look(None);
        }
        assert_eq!(pace.limit(), 8);
    }

    #[test]
    fn the_line_of_the_whole_machine_is_read() {
        let text = "cpu  100 5 50 800 40 1 2 3 7 0\ncpu0 1 2 3 4\n";
        assert_eq!(Cpu::parse(text), Some(Cpu { idle: 840, total: 1001 }));
        for bad in ["", "cpu 1 2", "intr 1 2 3 4 5", "cpu a b c d e"] {
            assert_eq!(Cpu::parse(bad), None, "{bad}");
        }
        assert!(Cpu::now().is_some_and(|c| c.total > c.idle));
    }
}
