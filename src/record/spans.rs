//! Sets of pages as sorted spans: what is new in a look at a file, compared with what was known of it.

/// First page, and the page behind the last one.
pub(super) type Span = (u64, u64);

/// Ascending spans that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    /// Adds a span that begins at or behind the end of the last one.
    pub(super) fn append(&mut self, (start, end): Span) {
        match self.0.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ if start < end => self.0.push((start, end)),
            _ => {}
        }
    }

    /// Number of pages.
    pub(super) fn pages(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Span> {
        self.0.iter().copied()
    }

    /// Whether all of `span` is in here.
    pub(super) fn covers(&self, span: Span) -> bool {
        let at = self.0.partition_point(|s| s.1 <= span.0);
        self.0.get(at).is_some_and(|s| s.0 <= span.0 && span.1 <= s.1)
    }

    /// What is in here but not in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut out = Self::default();
        let mut rest = other.0.as_slice();
        for &(mut start, end) in &self.0 {
            while let Some(first) = rest.first().filter(|o| o.1 <= start) {
                debug_assert!(first.0 < first.1, "an empty span");
                rest = &rest[1..];
            }
            for o in rest.iter().take_while(|o| o.0 < end) {
                if start < o.0 {
                    out.append((start, o.0));
                }
                start = o.1;
            }
            if start < end {
                out.append((start, end));
            }
        }
        out
    }

    /// What is in one of the two.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all: Vec<Span> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        all.into_iter().collect()
    }
}

impl FromIterator<Span> for Spans {
    /// From spans in the order of their start.
    fn from_iter<T: IntoIterator<Item = Span>>(spans: T) -> Self {
        let mut out = Self::default();
        for span in spans {
            out.append(span);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(pages: &BTreeSet<u64>) -> Spans {
        pages.iter().map(|&p| (p, p + 1)).collect()
    }

    fn pages(spans: &Spans) -> BTreeSet<u64> {
        spans.iter().flat_map(|(start, end)| start..end).collect()
    }

    proptest! {
        #[test]
        fn spans_are_sets(a in proptest::collection::btree_set(0..40_u64, 0..40), b in proptest::collection::btree_set(0..40_u64, 0..40), from in 0..40_u64, len in 1..5_u64) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(pages(&x.union(&y)), a.union(&b).copied().collect());
            prop_assert_eq!(pages(&x.without(&y)), a.difference(&b).copied().collect());
            prop_assert_eq!(x.pages(), a.len() as u64);
            prop_assert_eq!(x.covers((from, from + len)), (from..from + len).all(|p| a.contains(&p)));
            prop_assert!(x.union(&y).0.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
