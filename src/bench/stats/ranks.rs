//! The signed-rank test of Wilcoxon, exact: every one of the 2^n ways to give signs to the ranks is counted, ties and all.

/// Most differences for which the ways are counted; the work grows with the third power.
const MOST: usize = 200;

/// Two-sided p value of the differences being around zero. Differences of zero are left out, equal ones share their mean
/// rank. None when nothing is left or too much is there.
pub fn p(differences: &[f64]) -> Option<f64> {
    let mut all: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0 && !d.is_nan()).collect();
    if all.is_empty() || all.len() > MOST {
        return None;
    }
    all.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the rank, so that a mean of two ranks is whole.
    let mut ranks = vec![0; all.len()];
    let mut from = 0;
    for group in all.chunk_by(|a, b| a.abs().total_cmp(&b.abs()).is_eq()) {
        let to = from + group.len();
        ranks[from..to].fill(from + 1 + to);
        from = to;
    }
    let positive: usize = all.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, r)| r).sum();
    // ways[s]: probability that the positive ranks add up to s.
    let mut ways = vec![0.0; ranks.iter().sum::<usize>() + 1];
    ways[0] = 1.0;
    let mut reach = 0;
    for rank in ranks {
        reach += rank;
        for s in (0..=reach).rev() {
            let with = if s >= rank { ways[s - rank] } else { 0.0 };
            ways[s] = f64::midpoint(ways[s], with);
        }
    }
    let below: f64 = ways[..=positive].iter().sum();
    let above: f64 = ways[positive..].iter().sum();
    Some((2.0 * below.min(above)).min(1.0))
}

/// Smallest p value that `n` differences can give.
pub fn least(n: usize) -> f64 {
    2.0 * 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts all signs one by one.
    fn slow(differences: &[f64]) -> f64 {
        let magnitudes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
        let rank = |m: f64| {
            let less = magnitudes.iter().filter(|o| **o < m).count();
            let same = magnitudes.iter().filter(|o| (**o - m).abs() == 0.0).count();
            2 * less + same + 1
        };
        let ranks: Vec<usize> = magnitudes.iter().map(|m| rank(*m)).collect();
        let sum =
            |signs: u32| ranks.iter().enumerate().filter(|(i, _)| signs >> i & 1 == 1).map(|(_, r)| r).sum::<usize>();
        let seen: usize = differences.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, r)| r).sum();
        let all = 1_u32 << ranks.len();
        let below = (0..all).filter(|s| sum(*s) <= seen).count();
        let above = (0..all).filter(|s| sum(*s) >= seen).count();
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        (2.0 * count(below.min(above)) / f64::from(all)).min(1.0)
    }

    #[test]
    fn known_values() {
        // scipy 1.17.1: scipy.stats.wilcoxon(d, method="exact").pvalue
        let depression = [-0.952, 0.147, -1.022, -0.430, -0.620, -0.590, -0.490, 0.080, -0.010];
        // Hollander and Wolfe, example 3.1 (Hamilton depression scale): R's manual gives p = 0.03906 for V = 5 or 40.
        assert!((p(&depression).unwrap_or(f64::NAN) - 0.039_062_5).abs() < 1e-15);
        assert_eq!(p(&[1.0, 2.0, 3.0, 4.0, 5.0]), Some(0.0625));
        assert_eq!(p(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Some(0.031_25));
        assert_eq!(p(&[1.0, -2.0, 3.0, -4.0, 5.0]), Some(0.8125));
        assert_eq!((p(&[]), p(&[0.0, 0.0]), p(&[f64::NAN])), (None, None, None));
        assert_eq!(p(&[0.0, 3.0]), Some(1.0));
        assert_eq!((least(5), least(6)), (0.0625, 0.031_25));
        assert_eq!(p(&vec![1.0; MOST + 1]), None);
        assert!(p(&vec![1.0; MOST]).is_some_and(|p| p < 1e-50));
    }

    proptest! {
        #[test]
        fn counting_fast_is_counting_slowly(whole in prop::collection::vec(prop_oneof![-6_i32..0, 1..7], 1..10)) {
            let d: Vec<f64> = whole.into_iter().map(f64::from).collect();
            prop_assert!((p(&d).expect("a p value") - slow(&d)).abs() < 1e-12);
        }

        #[test]
        fn swapping_the_arms_changes_nothing(d in prop::collection::vec(-1e3_f64..1e3, 1..30)) {
            let other: Vec<f64> = d.iter().map(|d| -d).collect();
            let (a, b) = (p(&d), p(&other));
            prop_assert!(a.zip(b).is_none_or(|(a, b)| (a - b).abs() < 1e-12));
            prop_assert!(a.is_none_or(|a| a >= least(d.len()) * 0.999_999 && a <= 1.0));
        }
    }
}
