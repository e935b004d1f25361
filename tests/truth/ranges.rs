//! Arithmetic on sets of bytes.

/// First byte, and the byte behind the last one.
pub(crate) type Bytes = (u64, u64);

/// Sorted, without overlaps.
pub(crate) fn union(mut all: Vec<Bytes>) -> Vec<Bytes> {
    all.retain(|r| r.0 < r.1);
    all.sort_unstable();
    let mut out: Vec<Bytes> = Vec::new();
    for r in all {
        match out.last_mut() {
            Some(last) if r.0 <= last.1 => last.1 = last.1.max(r.1),
            _ => out.push(r),
        }
    }
    out
}

/// Bytes in a union.
pub(crate) fn len(set: &[Bytes]) -> u64 {
    set.iter().map(|r| r.1 - r.0).sum()
}

/// Bytes that two unions share.
pub(crate) fn shared(a: &[Bytes], b: &[Bytes]) -> u64 {
    a.iter().flat_map(|x| b.iter().map(move |y| x.1.min(y.1).saturating_sub(x.0.max(y.0)))).sum()
}

/// Every range made wider on both sides, cut at `size`.
pub(crate) fn widen(set: &[Bytes], by: u64, size: u64) -> Vec<Bytes> {
    union(set.iter().map(|r| (r.0.saturating_sub(by), r.1.saturating_add(by).min(size))).collect())
}

/// Rounded outwards to pages, cut at `size`.
pub(crate) fn pages(set: &[Bytes], size: u64) -> Vec<Bytes> {
    union(set.iter().map(|r| (r.0 / 4096 * 4096, r.1.next_multiple_of(4096).min(size))).collect())
}
