//! What the page cache holds while we record, as far as its own events tell, and what that says about events that tell too much or too
//! little.
//!
//! On a fault the kernel first maps whatever the cache has of the 64 KiB around (`mm_filemap_map_pages` names the whole window). Only
//! pages that were in the cache then can have been touched without another event: the others would have to fault again.
//!
//! A `read(2)` whose first pages are there and whose last one is still coming is told from that last one on only
//! (`filemap_get_pages` leaves before its tracepoint): what it took before that is found from where the thread's read before it
//! ended, or from where the read-ahead that it set off begins.

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
    /// What each thread did last on each file.
    threads: HashMap<(u32, Key), Thread>,
    /// First pages of 2 MiB folios, of which one touch maps all.
    huge: HashSet<(u32, u64, u64)>,
}

/// A thread's latest steps on one file.
#[derive(Debug, Default)]
struct Thread {
    /// Behind the last page that it read.
    read: Option<u64>,
    /// Pages that it has brought in since: one run.
    added: Option<(u64, u64)>,
}

/// A gap between two reads that is larger is a seek: the kernel takes 31 folios in one go, of 128 KiB at most where read-ahead has its
/// usual size.
const LARGEST_GAP: u64 = 31 * 32;
/// Pages in a folio that one entry of the page tables maps.
const HUGE: u64 = 512;

impl Cache {
    /// Knows of files that have pages in the cache already.
    pub(super) fn with_warm(warm: HashSet<(u32, u64)>) -> Self {
        Self { warm, ..Self::default() }
    }

    fn add(&mut self, e: &Event) {
        for word in e.start / 64..=(e.end - 1) / 64 {
            let first = e.start.max(word * 64) - word * 64;
            let behind = e.end.min(word * 64 + 64) - word * 64;
            let bits = (!0 << first) & (!0 >> (64 - behind));
            *self.words.entry((e.dev, e.ino, word)).or_default() |= bits;
        }
        if e.end - e.start >= HUGE {
            self.huge.insert((e.dev, e.ino, e.start));
        }
    }

    /// Follows what a thread brings in.
    fn note_added(&mut self, e: &Event) {
        let thread = self.thread(e);
        thread.added = match thread.added {
            Some((start, end)) if end == e.start => Some((start, e.end)),
            _ => Some((e.start, e.end)),
        };
    }

    fn thread(&mut self, e: &Event) -> &mut Thread {
        self.threads.entry((e.thread, (e.dev, e.ino))).or_default()
    }

    /// A read with the pages in front that its event does not tell of.
    fn whole(&mut self, e: &Event) -> Event {
        let key = (e.dev, e.ino);
        let thread = self.thread(e);
        let (before, added) = (thread.read, thread.added.take());
        thread.read = Some(e.end);
        let from_added = added.filter(|(start, end)| *start < e.start && e.start <= *end).map(|(start, _)| start);
        let from_read = before.filter(|end| *end < e.start && e.start - end <= LARGEST_GAP);
        let held = |start: &u64| (*start..e.start).all(|p| self.holds(key, p));
        let start = from_read.filter(held).or_else(|| from_added.filter(held));
        Event { start: start.unwrap_or(e.start), ..*e }
    }

    /// A fault with the pages that come with it.
    fn mapped(&self, e: &Event) -> Event {
        let start = e.start / HUGE * HUGE;
        if self.huge.contains(&(e.dev, e.ino, start)) { Event { start, end: start + HUGE, ..*e } } else { *e }
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
                What::Added => {
                    self.add(e);
                    self.note_added(e);
                }
                What::Around => {
                    if self.huge.contains(&(e.dev, e.ino, e.start / HUGE * HUGE)) {
                        out.push(self.mapped(e));
                    }
                    let pages: Vec<u64> = (e.start..e.end).filter(|p| self.holds((e.dev, e.ino), *p)).collect();
                    if pages.is_empty() && !missed {
                        // Something was mapped that we do not know of.
                        self.warm.insert((e.dev, e.ino));
                    }
                    windows.push((*e, pages));
                }
                What::Read => out.push(self.whole(e)),
                What::Fault => out.push(self.mapped(e)),
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
        Event { what, thread, process: 1, dev: 1, ino: 2, start, end, at: 0 }
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
    fn a_read_whose_first_pages_were_there_is_made_whole() {
        // Sync read-ahead of 0..32, and only the last page asked for was still coming.
        let first = [event(What::Added, 7, 0, 16), event(What::Added, 7, 16, 32), event(What::Read, 7, 24, 25)];
        assert_eq!(pages(&first), (0..25).collect::<Vec<_>>());
        // The next read goes on where this one ended; one of another thread has no such beginning.
        let next = [&first[..], &[event(What::Read, 7, 30, 31)]].concat();
        assert_eq!(pages(&next), (0..31).collect::<Vec<_>>());
        let other = [&first[..], &[event(What::Read, 8, 30, 31)]].concat();
        assert_eq!(pages(&other), (0..25).chain([30]).collect::<Vec<_>>());
        // Pages that are not in the cache were not read.
        let far = [&first[..], &[event(What::Read, 7, 40, 41)]].concat();
        assert_eq!(pages(&far), (0..25).chain([40]).collect::<Vec<_>>());
    }

    #[test]
    fn a_huge_folio_is_mapped_whole_and_a_file_that_is_known_to_be_cached_counts_whole() {
        let huge =
            [event(What::Added, 7, 512, 1024), event(What::Around, 7, 600, 616), event(What::Fault, 7, 600, 601)];
        assert_eq!(pages(&huge), (512..1024).collect::<Vec<_>>());
        let window = [event(What::Added, 7, 0, 1), event(What::Around, 7, 0, 16)];
        let mut cache = Cache::with_warm([(1, 2)].into());
        assert_eq!(cache.narrow(&window).iter().map(|e| e.end - e.start).sum::<u64>(), 16);
    }

    #[test]
    fn another_files_pages_do_not_break_a_read_in_pieces() {
        let other = Event { ino: 9, ..event(What::Added, 7, 0, 8) };
        let seen = [event(What::Added, 7, 0, 64), event(What::Read, 7, 0, 10), other, event(What::Read, 7, 24, 25)];
        assert_eq!(pages(&seen), (0..25).collect::<Vec<_>>());
        // A seek whose own read-ahead tells where it began.
        let seek = [
            event(What::Added, 7, 0, 8),
            event(What::Read, 7, 0, 8),
            event(What::Added, 7, 100, 132),
            event(What::Read, 7, 110, 140),
        ];
        assert_eq!(pages(&seek), (0..8).chain(100..140).collect::<Vec<_>>());
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
