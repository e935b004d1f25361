//! In what order the arms of a round run: a permutation that a seed decides.
//!
//! A rotation lets every arm be first in turn, but each keeps the same neighbours: what an arm leaves behind (dirty pages, a
//! throttled CPU) always hits the same one. A permutation drawn anew for each round spreads that too; the seed makes it repeatable.

use crate::digest::Digest;

/// The arms of a round (from 1). The same on every machine and in every version: it follows from SHA-256 alone.
pub fn order(arms: usize, round: u32, seed: u32) -> Vec<usize> {
    let mut all: Vec<usize> = (0..arms).collect();
    all.sort_by_cached_key(|arm| Digest::of(format!("{seed} {round} {arm}").as_bytes()));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_round_is_a_permutation_that_seed_and_round_decide() {
        for round in 1..20 {
            let mut sorted = order(5, round, 7);
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert_eq!(order(4, 3, 7), order(4, 3, 7));
        assert_eq!(order(0, 1, 7), Vec::<usize>::new());
        // Every order of three arms comes up, over rounds as over seeds: 60 draws of 6 miss one with a chance of 1 in 10,000, always
        // the same draws.
        let rounds: BTreeSet<_> = (1..=60).map(|round| order(3, round, 7)).collect();
        let seeds: BTreeSet<_> = (1..=60).map(|seed| order(3, 1, seed)).collect();
        assert_eq!((rounds.len(), seeds.len()), (6, 6));
    }
}
