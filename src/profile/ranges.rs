//! Arithmetic on touched ranges. All give ranges that are ascending, disjoint and not adjacent, and all but [`union`] take only such.

use super::Range;

/// Which of several runs' times counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The earliest.
    Earliest,
    /// The median, the lower one of two: the same whichever run is named first, and not moved by one slow run.
    Median,
}

impl When {
    /// Picks one of the times, in any order; 0 of none.
    pub fn pick(self, mut times: Vec<u64>) -> u64 {
        times.sort_unstable();
        let at = match self {
            Self::Earliest => 0,
            Self::Median => times.len().saturating_sub(1) / 2,
        };
        times.get(at).copied().unwrap_or(0)
    }
}

/// Of ranges in any order: ascending, disjoint, not adjacent; joined ranges keep the earliest touch. Empty ones are left out.
pub fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable_by_key(|r| (r.0, r.1));
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for r in ranges.into_iter().filter(|r| r.1 > 0) {
        match out.last_mut() {
            Some(last) if r.0 <= end(*last) => {
                *last = Range(last.0, end(*last).max(end(r)) - last.0, last.2.min(r.2));
            }
            _ => out.push(r),
        }
    }
    out
}

/// The bytes that at least `need` of the runs touched. A byte's time is picked from those runs that touched it; joined bytes have
/// the earliest of theirs.
pub fn at_least(runs: &[&[Range]], need: usize, when: When) -> Vec<Range> {
    // Where a run's range begins (with its time) or ends.
    let mut edges: Vec<(u64, usize, Option<u64>)> = Vec::new();
    for (run, ranges) in runs.iter().enumerate() {
        for r in ranges.iter().filter(|r| r.1 > 0) {
            edges.push((r.0, run, Some(r.2)));
            edges.push((end(*r), run, None));
        }
    }
    edges.sort_unstable();
    let mut active: Vec<Option<u64>> = vec![None; runs.len()];
    let mut out: Vec<Range> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((at, run, time)) = edges.next() {
        active[run] = time;
        let Some(&(next, ..)) = edges.peek() else { break };
        let times: Vec<u64> = active.iter().flatten().copied().collect();
        if next > at && times.len() >= need.max(1) {
            let time = when.pick(times);
            match out.last_mut() {
                Some(last) if end(*last) == at => *last = Range(last.0, next - last.0, last.2.min(time)),
                _ => out.push(Range(at, next - at, time)),
            }
        }
    }
    out
}

/// Bytes that both have.
pub fn shared(a: &[Range], b: &[Range]) -> u64 {
    bytes(&at_least(&[a, b], 2, When::Earliest))
}

/// Bytes of `a` that `b` has not, with the times of `a`.
pub fn without(a: &[Range], b: &[Range]) -> Vec<Range> {
    let mut out = Vec::new();
    let mut rest = b;
    for r in a {
        let mut at = r.0;
        while let [first, more @ ..] = rest
            && end(*first) <= at
        {
            rest = more;
        }
        for cut in rest.iter().take_while(|cut| cut.0 < end(*r)) {
            if at < cut.0 {
                out.push(Range(at, cut.0 - at, r.2));
            }
            at = at.max(end(*cut));
        }
        if at < end(*r) {
            out.push(Range(at, end(*r) - at, r.2));
        }
    }
    out
}

/// Bytes in ranges.
pub fn bytes(ranges: &[Range]) -> u64 {
    ranges.iter().map(|r| r.1).fold(0, u64::saturating_add)
}

fn end(r: Range) -> u64 {
    r.0.saturating_add(r.1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any run of a file of 64 bytes.
    pub(crate) fn run() -> impl Strategy<Value = Vec<Range>> {
        proptest::collection::vec((0..60_u64, 1..5_u64, 0..50_u64), 0..12)
            .prop_map(|v| union(v.into_iter().map(|(at, len, time)| Range(at, len, time)).collect()))
    }

    /// The time of every byte that is touched.
    pub(crate) fn model(ranges: &[Range]) -> Vec<Option<u64>> {
        (0..64).map(|at| ranges.iter().find(|r| r.0 <= at && at < r.0 + r.1).map(|r| r.2)).collect()
    }

    proptest! {
        #[test]
        fn a_byte_is_in_when_enough_runs_have_it(
            runs in proptest::collection::vec(run(), 1..6), need in 1..6_usize, median in any::<bool>(),
        ) {
            let when = if median { When::Median } else { When::Earliest };
            let lists: Vec<&[Range]> = runs.iter().map(Vec::as_slice).collect();
            let got = at_least(&lists, need, when);
            let models: Vec<_> = runs.iter().map(|r| model(r)).collect();
            let times: Vec<Vec<u64>> = (0..64).map(|at| models.iter().filter_map(|m| m[at]).collect()).collect();
            let shown = model(&got);
            for at in 0..64 {
                prop_assert_eq!(shown[at].is_some(), times[at].len() >= need, "byte {}", at);
            }
            for r in &got {
                let own = (r.0..r.0 + r.1).filter_map(|at| usize::try_from(at).ok()).map(|at| when.pick(times[at].clone()));
                prop_assert_eq!(Some(r.2), own.min());
            }
            prop_assert!(got.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "disjoint and not adjacent: {:?}", got);
        }

        #[test]
        fn one_run_is_enough_for_a_union(a in run(), b in run()) {
            let all = union(a.iter().chain(&b).copied().collect());
            prop_assert_eq!(at_least(&[&a, &b], 1, When::Earliest), all);
        }

        #[test]
        fn what_one_has_without_the_other_is_the_rest_of_it(a in run(), b in run()) {
            let rest = without(&a, &b);
            let of = |ranges: &[Range]| model(ranges);
            for (at, left) in of(&rest).into_iter().enumerate() {
                prop_assert_eq!(left, of(&a)[at].filter(|_| of(&b)[at].is_none()), "byte {}", at);
            }
            prop_assert!(rest.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "disjoint and not adjacent: {:?}", rest);
            prop_assert_eq!(bytes(&rest) + shared(&a, &b), bytes(&a));
        }

        #[test]
        fn shared_bytes_are_counted_once(a in run(), b in run()) {
            let both = model(&a).into_iter().zip(model(&b)).filter(|(a, b)| a.is_some() && b.is_some()).count();
            prop_assert_eq!(shared(&a, &b), both as u64);
        }
    }

    #[test]
    fn ranges_join_where_they_touch() {
        let r = union(vec![Range(8, 4, 1), Range(0, 4, 9), Range(4, 2, 3), Range(20, 0, 0), Range(9, 1, 0)]);
        assert_eq!(r, [Range(0, 6, 3), Range(8, 4, 0)]);
    }

    #[test]
    fn the_median_of_two_is_the_lower() {
        assert_eq!([vec![], vec![9, 3], vec![5, 1, 3], vec![4, 1, 3, 9]].map(|t| When::Median.pick(t)), [0, 3, 3, 3]);
    }

    #[test]
    fn ranges_at_the_end_of_the_number_line_do_not_wrap() {
        let r = [Range(u64::MAX - 4, 4, 7)];
        assert_eq!(at_least(&[&r, &r], 2, When::Earliest), r);
    }
}
