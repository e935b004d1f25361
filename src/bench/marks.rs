//! Marks: the moments between the phases of a run, with the counters read at them, and the phases that follow from them.

use std::time::Instant;

use super::result::{CpuUse, Phases, Start, Traffic};

/// A moment between two phases.
pub(super) struct Mark {
    pub(super) at: Instant,
    pub(super) link: Traffic,
    pub(super) cpu: CpuUse,
}

/// What went over the link between two marks.
pub(super) fn over(from: &Mark, to: &Mark) -> Traffic {
    Traffic { requests: to.link.requests - from.link.requests, bytes: to.link.bytes - from.link.bytes }
}

/// Marks become whole milliseconds first and differences then, so that the sum is exact.
pub(super) fn phases(start: Start, at: [Instant; 5]) -> Phases {
    let ms = |t: Instant| u64::try_from((t - at[0]).as_millis()).unwrap_or(u64::MAX);
    // A warm run begins where the pull would have ended.
    let begin = if start == Start::Cold { 0 } else { ms(at[1]) };
    Phases {
        pull_ms: (start == Start::Cold).then(|| ms(at[1])),
        create_ms: ms(at[2]) - ms(at[1]),
        ready_ms: ms(at[3]) - ms(at[2]),
        chat_ms: ms(at[4]) - ms(at[3]),
        total_ms: ms(at[4]) - begin,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn phases_add_up_whatever_the_rounding() {
        let zero = Instant::now();
        let at = [0, 1999, 3500, 9999, 12_700].map(|us| zero + Duration::from_micros(us));
        let cold = phases(Start::Cold, at);
        assert_eq!(cold, Phases { pull_ms: Some(1), create_ms: 2, ready_ms: 6, chat_ms: 3, total_ms: 12 });
        let warm = phases(Start::Warm, at);
        assert_eq!(warm.create_ms + warm.ready_ms + warm.chat_ms, warm.total_ms);
        assert_eq!(warm.pull_ms, None);
    }
}
