//! Known values, and what must hold for any totals.

use proptest::prelude::*;

use super::*;
use crate::bench::report::tests::{failed, run};

fn runs(of: &[(&str, &[u64])]) -> Vec<Run> {
    let each = |(row, totals): &(&str, &[u64])| {
        let row = (*row).to_owned();
        totals.iter().zip(1..).map(move |(ms, round)| run(&row, round, *ms, &[])).collect::<Vec<_>>()
    };
    of.iter().flat_map(each).collect()
}

fn near(got: f64, want: f64) -> bool {
    (got - want).abs() < 1e-9
}

#[test]
fn the_method_gives_what_scipy_gives() {
    // scipy 1.17.1: d = log(a / b); t.interval(0.95, 4, d.mean(), sem(d)), ttest_1samp(d, 0), wilcoxon(d, method="exact")
    let a = [27_000, 26_100, 29_800, 25_400, 28_200];
    let b = [30_900, 31_400, 30_200, 33_000, 30_100];
    let all = compare(&runs(&[("original warm", &b), ("hot", &a)]), &["original warm", "hot"], &["original warm"]);
    assert_eq!(all.len(), 1);
    let c = &all[0];
    assert_eq!((c.row.as_str(), c.baseline.as_str(), c.n), ("hot", "original warm", 5));
    let (low, high) = c.interval.expect("an interval");
    assert!(near(c.ratio, 0.876_325_745_370_185_7) && near(low, 0.776_208_756_638_688_6), "{c:?}");
    assert!(near(high, 0.989_356_027_525_565_7) && near(c.p.unwrap_or(2.0), 0.039_111_372_476_900_06), "{c:?}");
    assert_eq!((c.p_rank, c.p_rank_holm, c.p_holm), (Some(0.0625), Some(0.0625), c.p));
    assert_eq!((c.difference_ms, c.difference_range_ms), (-3900.0, (-7600.0, -400.0)));
    assert_eq!(c.verdict, Verdict::Faster);
}

#[test]
fn pairs_are_within_a_round() {
    // The machine is twice as slow in round 2, and the ratio does not see it. Round 3 has no partner that counts.
    let mut all = runs(&[("original cold", &[1000, 2000]), ("hot", &[500, 1000, 10])]);
    all.extend([run("original cold", 3, 900, &["no"]), failed("original cold", 4), run("hot", 4, 1, &[])]);
    let found = compare(&all, &["original cold", "hot"], &["original cold", "gone"]);
    assert_eq!(found.len(), 1);
    assert!(near(found[0].ratio, 0.5));
    assert_eq!((found[0].n, found[0].interval, found[0].p, found[0].verdict), (2, None, None, Verdict::TooFew));
}

#[test]
fn ratios_that_do_not_vary_claim_nothing() {
    let found = compare(&runs(&[("b", &[1000, 2000, 4000]), ("a", &[500, 1000, 2000])]), &["a", "b"], &["b"]);
    assert_eq!((found[0].interval, found[0].p, found[0].verdict), (None, None, Verdict::NoSpread));
    let same = compare(&runs(&[("b", &[7, 7, 7]), ("a", &[7, 7, 7])]), &["a", "b"], &["b"]);
    assert_eq!((same[0].p_rank, same[0].verdict), (None, Verdict::NoSpread));
}

#[test]
fn many_comparisons_make_one_of_them_say_less() {
    let base: &[u64] = &[1000, 1010, 990, 1000, 1005];
    let good: &[u64] = &[980, 970, 985, 990, 960];
    let alone = compare(&runs(&[("b", base), ("good", good)]), &["b", "good"], &["b"]);
    assert_eq!(alone[0].verdict, Verdict::Faster);
    let p = alone[0].p.expect("a p value");
    let noise: Vec<String> = (0..40).map(|i| format!("noise{i}")).collect();
    let wild: Vec<[u64; 5]> = (0..40).map(|i| [900 + i, 1100 - i, 1000 + i, 950, 1060]).collect();
    let mut of: Vec<(&str, &[u64])> = vec![("b", base), ("good", good)];
    of.extend(noise.iter().map(String::as_str).zip(wild.iter().map(|w| &w[..])));
    let rows: Vec<&str> = of.iter().map(|(name, _)| *name).collect();
    let among = compare(&runs(&of), &rows, &["b"]);
    let found = among.iter().find(|c| c.row == "good").expect("it");
    assert!(near(found.p_holm.unwrap_or(0.0), (p * 41.0).min(1.0)), "{found:?}");
    assert_eq!(found.verdict, Verdict::NotAlone);
    assert!(among.iter().filter(|c| c.row != "good").all(|c| c.verdict == Verdict::Undecided));
}

#[test]
fn each_pair_of_baselines_is_one_comparison() {
    let all = runs(&[("c", &[9, 8, 9]), ("w", &[3, 4, 3]), ("d", &[2, 3, 3]), ("x", &[5, 5, 6])]);
    let found = compare(&all, &["c", "w", "x", "d"], &["c", "w", "d"]);
    let pairs: Vec<_> = found.iter().map(|c| (c.row.as_str(), c.baseline.as_str())).collect();
    assert_eq!(pairs, [("w", "c"), ("x", "c"), ("d", "c"), ("x", "w"), ("d", "w"), ("x", "d")]);
}

#[test]
fn holm_is_as_in_the_textbook() {
    // R 4.3: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02.
    let got = holm(&[Some(0.01), Some(0.04), None, Some(0.03), Some(0.005)]);
    let want = [Some(0.03), Some(0.06), None, Some(0.06), Some(0.02)];
    assert!(
        got.iter().zip(want).all(|(g, w)| g.is_some() == w.is_some() && near(g.unwrap_or(0.0), w.unwrap_or(0.0))),
        "{got:?}"
    );
    assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
}

fn totals() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((1_u64..200_000, 1_u64..200_000), 3..12)
}

proptest! {
    #[test]
    fn swapped_arms_give_the_inverse(both in totals()) {
        let (a, b): (Vec<u64>, Vec<u64>) = both.into_iter().unzip();
        let all = runs(&[("a", &a), ("b", &b)]);
        let one = &compare(&all, &["a", "b"], &["b"])[0];
        let other = &compare(&all, &["a", "b"], &["a"])[0];
        prop_assert!((one.ratio * other.ratio - 1.0).abs() < 1e-9);
        prop_assert_eq!(one.interval.is_some(), other.interval.is_some());
        if let (Some((low, high)), Some((low2, high2))) = (one.interval, other.interval) {
            prop_assert!((low * high2 - 1.0).abs() < 1e-6 && (high * low2 - 1.0).abs() < 1e-6);
            prop_assert!(low <= one.ratio && one.ratio <= high);
            // The interval and the p value say the same.
            let excluded = high < 1.0 || low > 1.0;
            let p = one.p.expect("a p value");
            prop_assert!(excluded == (p < 0.05) || (p - 0.05).abs() < 1e-6, "{} {} {}", low, high, p);
        }
    }

    #[test]
    fn a_machine_that_drifts_changes_nothing(both in totals(), drift in prop::collection::vec(1_u64..50, 12)) {
        let scale = |of: usize| both.iter().zip(&drift).map(|(p, k)| k * if of == 0 { p.0 } else { p.1 }).collect::<Vec<_>>();
        let (a, b): (Vec<u64>, Vec<u64>) = both.iter().copied().unzip();
        let still = &compare(&runs(&[("a", &a), ("b", &b)]), &["a"], &["b"])[0];
        let drifted = &compare(&runs(&[("a", &scale(0)), ("b", &scale(1))]), &["a"], &["b"])[0];
        prop_assert!((still.ratio / drifted.ratio - 1.0).abs() < 1e-9);
        prop_assert_eq!(still.verdict, drifted.verdict);
    }

    #[test]
    fn raised_p_values_keep_their_order(p in prop::collection::vec(0.0_f64..1.0, 1..30)) {
        let raised = holm(&p.iter().copied().map(Some).collect::<Vec<_>>());
        for (i, a) in p.iter().enumerate() {
            let mine = raised[i].expect("a value");
            prop_assert!(mine >= *a && mine <= 1.0);
            for (j, b) in p.iter().enumerate() {
                prop_assert!(a > b || mine <= raised[j].expect("a value"));
            }
        }
    }
}
