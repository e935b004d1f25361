//! What is understood as an arm and what is not.

use super::*;

#[test]
fn the_name_decides_the_snapshotter() {
    let arm = |s: &str| s.parse::<Arm>().map(|a| (a.name, a.snapshotter, a.image.to_string()));
    let ok = |n: &str, s: &str, r: &str| Some((n.to_owned(), s.to_owned(), r.to_owned()));
    assert_eq!(arm("original=127.0.0.1:5070/m:o").ok(), ok("original", "overlayfs", "127.0.0.1:5070/m:o"));
    assert_eq!(arm("hot=127.0.0.1:5070/m:h").ok(), ok("hot", "stargz", "127.0.0.1:5070/m:h"));
    assert_eq!(arm("x@overlayfs=localhost/m").ok(), ok("x", "overlayfs", "localhost/m:latest"));
    for bad in [
        "hot",
        "=localhost/m",
        "a b=localhost/m",
        "x@soci=localhost/m",
        "original@stargz=localhost/m",
        "x=oci:dir",
        "x=vllm",
    ] {
        assert!(bad.parse::<Arm>().is_err(), "{bad}");
    }
}

#[test]
fn options_are_spelt_as_they_were_given() {
    for (given, options, mode) in [
        ("x=localhost/m", &[][..], Mode::Default),
        ("x@overlayfs,tuned=localhost/m", &["tuned"], Mode::Tuned),
        ("x,stock,disk=localhost/m", &["stock", "disk"], Mode::Stock),
        ("x@stargz,warm:/p/a.json=localhost/m", &["warm:/p/a.json"], Mode::Default),
        ("x@overlayfs,disk,warm:p:q=localhost/m", &["disk", "warm:p:q"], Mode::Default),
        ("x,node=localhost/m", &["node"], Mode::Default),
    ] {
        let arm: Arm = given.parse().unwrap();
        let spelt: Vec<_> = arm.options.iter().map(ToString::to_string).collect();
        assert_eq!(
            (spelt.as_slice(), arm.mode()),
            (options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>().as_slice(), mode),
            "{given}"
        );
    }
    let arm: Arm = "x,warm:/p/a.json=localhost/m".parse().unwrap();
    assert_eq!(arm.injected(), Some(Path::new("/p/a.json")));
}

#[test]
fn options_that_make_no_sense_are_refused_with_the_reason() {
    for (given, why) in [
        ("original,disk", "is the baseline and has no options"),
        ("x,fast", "unknown option \"fast\""),
        ("x,", "unknown option \"\""),
        ("x,disk:5", "only warm has a value"),
        ("x,warm", "expected warm:FILE"),
        ("x,warm:", "expected warm:FILE"),
        ("x,tuned", "expected NAME@overlayfs,tuned"),
        ("x@overlayfs,stock", "overlayfs is not lazy"),
        ("x@overlayfs,node", "overlayfs has none"),
        ("x@overlayfs,disk,tuned", "which disk does not measure"),
        ("x,disk,node", "which disk does not measure"),
        ("x,warm:a,node", "two readers"),
        ("x,warm:a,warm:b", "warm is given twice"),
        ("x,disk,disk", "disk is given twice"),
    ] {
        let error = format!("{given}=localhost/m").parse::<Arm>().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn only_the_original_is_run_cold_and_warm() {
    let rows = |s: &str| {
        let arm: Arm = s.parse().unwrap();
        arm.starts().iter().map(|s| (*s, arm.row(*s))).collect::<Vec<_>>()
    };
    let (cold, warm) = (Start::Cold, Start::Warm);
    assert_eq!(rows("original=localhost/m"), [(cold, "original cold".into()), (warm, "original warm".into())]);
    assert_eq!(rows("hot=localhost/m"), [(cold, "hot".into())]);
    assert_eq!(rows("limit@overlayfs,disk=localhost/m"), [(warm, "limit".into())]);
}
