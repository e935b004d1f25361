//! Student's t distribution for whole degrees of freedom: the finite series in closed form (Abramowitz and Stegun, 26.7.3 and
//! 26.7.4), so that no table has holes and no approximation needs a word.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// Halvings of a quarter turn until nothing of it is left in 64 bits.
const STEPS: usize = 100;

/// Probability that |t| stays within `atan(|t| / sqrt(df))`, given as that angle.
fn within(angle: f64, df: usize) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let square = cos * cos;
    let odd = df % 2 == 1;
    // The terms: cos^k times a product of (k-1)/k, from k = 1 (odd) or k = 0 (even).
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    let mut k = usize::from(odd);
    while k + 2 <= df {
        sum += term;
        k += 2;
        let k = number(k);
        term *= square * (k - 1.0) / k;
        if term < f64::MIN_POSITIVE {
            break;
        }
    }
    let p = if odd { FRAC_2_PI * (angle + sin * sum) } else { sin * sum };
    p.clamp(0.0, 1.0)
}

/// Two-sided p value of `t` with `df` degrees of freedom; none for zero degrees or what is no number.
pub fn p(t: f64, df: usize) -> Option<f64> {
    let angle = (t.abs() / number(df).sqrt()).atan();
    (df > 0 && !t.is_nan()).then(|| 1.0 - within(angle, df))
}

/// The t that |t| stays below with probability `level` (0 < level < 1); none for zero degrees of freedom.
pub fn quantile(level: f64, df: usize) -> Option<f64> {
    if df == 0 || !(0.0..1.0).contains(&level) {
        return None;
    }
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if within(middle, df) < level { low = middle } else { high = middle }
    }
    Some(f64::midpoint(low, high).tan() * number(df).sqrt())
}

/// Counts of rounds are far below what 32 bits hold.
fn number(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // scipy 1.17.1: scipy.stats.t.ppf(0.975, df), and 0.995 in the last two.
        let known = [
            (0.95, 1, 12.706_204_736_174_694),
            (0.95, 2, 4.302_652_729_749_462),
            (0.95, 3, 3.182_446_305_283_707_8),
            (0.95, 4, 2.776_445_105_197_793),
            (0.95, 9, 2.262_157_162_798_205),
            (0.95, 29, 2.045_229_642_132_703),
            (0.95, 1000, 1.962_339_080_826_408_3),
            (0.99, 4, 4.604_094_871_349_992),
            (0.99, 7, 3.499_483_297_350_492_4),
        ];
        for (level, df, want) in known {
            let got = quantile(level, df).unwrap_or(f64::NAN);
            assert!((got / want - 1.0).abs() < 1e-10, "t {level} {df}: {got}, expected {want}");
        }
        assert_eq!((quantile(0.95, 0), quantile(1.0, 3)), (None, None));
    }

    #[test]
    fn p_values_are_those_of_scipy() {
        // scipy 1.17.1: 2 * scipy.stats.t.sf(t, df)
        let known = [
            (1.0, 1, 0.5),
            (2.5, 4, 0.066_766_544_811_988_14),
            (-2.5, 5, 0.054_490_099_342_376_26),
            (3.0, 10, 0.013_343_655_022_569_57),
            (10.0, 4, 0.000_562_003_622_715_991),
            (0.0, 7, 1.0),
        ];
        for (t, df, want) in known {
            let got = p(t, df).unwrap_or(f64::NAN);
            assert!((got - want).abs() < 1e-12, "p {t} {df}: {got}, expected {want}");
        }
        assert_eq!((p(1.0, 0), p(f64::NAN, 3)), (None, None));
        assert_eq!(p(f64::INFINITY, 3), Some(0.0));
    }

    proptest! {
        #[test]
        fn quantile_and_p_undo_each_other(level in 0.01_f64..0.9999, df in 1_usize..200) {
            let t = quantile(level, df).expect("a quantile");
            let back = p(t, df).expect("a p value");
            prop_assert!((back - (1.0 - level)).abs() < 1e-9, "{level} {df} {t} {back}");
        }

        #[test]
        fn p_falls_with_t_and_with_degrees_of_freedom(t in 0.1_f64..20.0, more in 0.01_f64..5.0, df in 1_usize..100) {
            let here = p(t, df).expect("a p value");
            prop_assert!(p(t + more, df).expect("a p value") <= here + 1e-14);
            prop_assert!(p(t, df + 1).expect("a p value") <= here + 1e-14);
        }
    }
}
