//! `--platform`: one, several with commas between, or all of an index.

/// Which images of an index are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Platforms {
    /// `os/arch[/variant]`: one image, taken out of the index.
    One(String),
    /// The index with these of its images; all of them when the list is empty.
    Index(Vec<String>),
}

/// Reads the value of `--platform`.
pub(super) fn platforms(text: &str) -> Result<Platforms, String> {
    if text == "all" {
        return Ok(Platforms::Index(Vec::new()));
    }
    let parts: Vec<String> = text.split(',').map(Into::into).collect();
    let is_platform = |p: &String| matches!(p.split('/').count(), 2 | 3) && p.split('/').all(|s| !s.is_empty());
    match parts.iter().find(|p| !is_platform(p)) {
        Some(wrong) => Err(format!("{wrong:?}: expected all, or os/arch[/variant] with commas between several")),
        None if parts.len() == 1 => Ok(Platforms::One(text.into())),
        None => Ok(Platforms::Index(parts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_several_or_all() {
        let list = |l: &[&str]| Ok(Platforms::Index(l.iter().map(|s| (*s).to_owned()).collect()));
        assert_eq!(platforms("all"), list(&[]));
        assert_eq!(platforms("linux/amd64,linux/arm/v7"), list(&["linux/amd64", "linux/arm/v7"]));
        assert_eq!(platforms("linux/arm64/v8"), Ok(Platforms::One("linux/arm64/v8".into())));
        for wrong in ["", "linux", "linux/", "linux/amd64,", "all,linux/amd64", "a/b/c/d", "linux/amd64, linux/arm64/"]
        {
            assert!(platforms(wrong).is_err(), "{wrong:?}");
        }
    }
}
