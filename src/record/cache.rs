//! What the page cache holds while we record, as far as its own events tell, and what that says about the kernel's fault-around.
//!
//! On a fault the kernel first maps whatever the cache has of the 64 KiB around (`mm_filemap_map_pages` names the whole window). Only
//! pages that were in the cache then can have been touched without another event: the others would have to fault again.

use std::collections::{HashMap, HashSet};

use super::touch::{Event, What};

/// Device and inode of a real file.
type Key = (u32, u64);

/// Pages that came into the cache since it was dropped.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// 64 pages a word.
    words: HashMap<(u32, u64, u64), u64>,
    /// Files that had pages in it before.
    warm: HashSet<Key>,
}

impl Cache {
    fn add(&mut self, e: &Event) {
        for word in e.start / 64..=(e.end - 1) / 64 {
            let first = e.start.max(word * 64) - word * 64;
            let behind = e.end.min(word * 64 + 64) - word * 64;
            let bits = (!0 << first) & (!0 >> (64 - behind));
            *self.words.entry((e.dev, e.ino, word)).or_default() |= bits;
        }
    }

    fn holds(&self, key: Key, page: u64) -> bool {
        self.words.get(&(key.0, key.1, page / 64)).is_some_and(|w| w >> (page % 64) & 1 == 1)
    }

    /// Narrows the windows among events in the order of time to what may have been touched; the other events are left alone, those of
    /// pages that came into the cache are taken out.
    pub(super) fn narrow(&mut self, events: &[Event]) -> Vec<Event> {
        let missed = missed(events);
        let mut out = Vec::new();
        let mut windows = Vec::new();
        for (e, missed) in events.iter().zip(missed) {
            match e.what {
                What::Added => self.add(e),
                What::Around => {
                    let pages: Vec<u64> = (e.start..e.end).filter(|p| self.holds((e.dev, e.ino), *p)).collect();
                    if pages.is_empty() && !missed {
                        // Something was mapped that we do not know of.
                        self.warm.insert((e.dev, e.ino));
                    }
                    windows.push((*e, pages));
                }
                What::Read | What::Fault => out.push(*e),
            }
        }
        for (window, pages) in windows {
            if self.warm.contains(&(window.dev, window.ino)) {
                out.push(window);
            } else {
                out.extend(pages.into_iter().map(|p| Event { start: p, end: p + 1, ..window }));
            }
        }
        out
    }
}

/// Which windows did not have the page that was asked for: the same thread's next event is the fault on it.
fn missed(events: &[Event]) -> Vec<bool> {
    let mut next: HashMap<u32, &Event> = HashMap::new();
    let mut out = vec![false; events.len()];
    for (i, e) in events.iter().enumerate().rev() {
        if e.what == What::Around {
            out[i] = next.get(&e.thread).is_some_and(|n| {
                n.what == What::Fault && (n.dev, n.ino) == (e.dev, e.ino) && (e.start..e.end).contains(&n.start)
            });
        }
        // What another comes to read is brought in by whoever asks: that is no step of the fault.
        next.insert(e.thread, e);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What, thread: u32, start: u64, end: u64) -> Event {
        Event { what, thread, dev: 1, ino: 2, start, end, at: 0 }
    }

    fn pages(events: &[Event]) -> Vec<u64> {
        let mut all: Vec<u64> = Cache::default().narrow(events).iter().flat_map(|e| e.start..e.end).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn a_cold_window_is_its_fault_and_a_later_one_what_read_ahead_had_brought() {
        let cold = [event(What::Around, 7, 96, 112), event(What::Fault, 7, 100, 101), event(What::Added, 7, 90, 106)];
        assert_eq!(pages(&cold), [100]);
        let again = [&cold[..], &[event(What::Around, 8, 100, 116)]].concat();
        assert_eq!(pages(&again), (100..106).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_was_cached_before_counts_with_its_whole_windows() {
        let warm = [event(What::Around, 7, 0, 16), event(What::Around, 7, 32, 48), event(What::Fault, 7, 40, 41)];
        assert_eq!(pages(&warm).len(), 32);
    }

    #[test]
    fn another_threads_fault_says_nothing_about_a_window() {
        let two = [event(What::Around, 7, 0, 4), event(What::Fault, 8, 2, 3)];
        assert_eq!(pages(&two), [0, 1, 2, 3], "thread 7 got its page");
    }

    #[test]
    fn pages_are_kept_across_words() {
        let mut cache = Cache::default();
        cache.add(&event(What::Added, 1, 60, 200));
        let held: Vec<u64> = (0..300).filter(|p| cache.holds((1, 2), *p)).collect();
        assert_eq!(held, (60..200).collect::<Vec<_>>());
    }
}
