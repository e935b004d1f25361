//! Merging the profiles of several runs: what any of them touched, at the earliest time any of them did.

use std::collections::{HashMap, HashSet};

use super::Profile;
use super::ranges::union;

impl Profile {
    /// Adds another run. The header stays that of the first; lost events add up, since either makes the result incomplete.
    pub fn merge(&mut self, other: Self) {
        self.header.events = self.header.events.saturating_add(other.header.events);
        self.header.lost_events = self.header.lost_events.saturating_add(other.header.lost_events);
        let place: HashMap<String, usize> = self.files.iter().enumerate().map(|(i, f)| (f.path.clone(), i)).collect();
        for file in other.files {
            let Some(&i) = place.get(&file.path) else {
                self.files.push(file);
                continue;
            };
            let mine = &mut self.files[i];
            mine.first_touch_ms = mine.first_touch_ms.min(file.first_touch_ms);
            mine.kinds.extend(file.kinds);
            mine.kinds.sort_unstable();
            mine.kinds.dedup();
            if mine.size == file.size && (mine.digest == file.digest || mine.digest.is_none() || file.digest.is_none())
            {
                mine.digest = mine.digest.or(file.digest);
                let ranges = std::mem::take(&mut mine.ranges);
                mine.ranges = union(ranges.into_iter().chain(file.ranges).collect());
            }
        }
        self.files.sort_by(|a, b| (a.first_touch_ms, &a.path).cmp(&(b.first_touch_ms, &b.path)));
        let mut written: HashSet<String> = self.writes.iter().map(|w| w.path.clone()).collect();
        self.writes.extend(other.writes.into_iter().filter(|w| written.insert(w.path.clone())));
        self.writes.sort_by(|a, b| a.path.cmp(&b.path));
    }
}
