//! What an arm does besides pulling and starting, as its options spell it, and which of them go together.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::evidence::LAZY;
use super::stack::Mode;

/// One option of an arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArmOption {
    /// The image is pulled before the clock and the page cache dropped: the start alone is measured.
    Disk,
    /// containerd downloads and unpacks as fast as its settings allow.
    Tuned,
    /// The lazy snapshotter has its own default settings.
    Stock,
    /// `esgz warm` with the profile in this file runs in the container, without a change to the image.
    Warm(PathBuf),
    /// `esgz warm node` runs on the node.
    Node,
}

impl FromStr for ArmOption {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            None => match s {
                "disk" => Ok(Self::Disk),
                "tuned" => Ok(Self::Tuned),
                "stock" => Ok(Self::Stock),
                "node" => Ok(Self::Node),
                "warm" => Err("warm needs a profile: expected warm:FILE".into()),
                _ => Err(format!("unknown option {s:?}: expected disk, tuned, stock, warm:FILE or node")),
            },
            Some(("warm", "")) => Err("warm needs a profile: expected warm:FILE".into()),
            Some(("warm", file)) => Ok(Self::Warm(file.into())),
            Some((name, _)) => Err(format!("unknown option {name:?}: only warm has a value, warm:FILE")),
        }
    }
}

impl fmt::Display for ArmOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::Tuned => f.write_str("tuned"),
            Self::Stock => f.write_str("stock"),
            Self::Warm(file) => write!(f, "warm:{}", file.display()),
            Self::Node => f.write_str("node"),
        }
    }
}

/// Why these options cannot be taken together under that snapshotter, if so.
pub(super) fn conflict(options: &[ArmOption], snapshotter: &str) -> Option<String> {
    use ArmOption::{Disk, Node, Stock, Tuned, Warm};
    let has = |option: &ArmOption| options.contains(option);
    let name = |o: &ArmOption| if let Warm(_) = o { "warm".to_owned() } else { o.to_string() };
    let twice = options.iter().enumerate().find(|(i, o)| options[..*i].iter().any(|other| name(other) == name(o)));
    let lazy = snapshotter == LAZY;
    let warm = options.iter().any(|o| matches!(o, Warm(_)));
    if let Some((_, option)) = twice {
        Some(format!("{} is given twice", name(option)))
    } else if lazy && has(&Tuned) {
        Some("tuned is about downloading and unpacking whole layers: expected NAME@overlayfs,tuned".into())
    } else if !lazy && has(&Stock) {
        Some(format!("stock is about the lazy snapshotter's settings, and {snapshotter} is not lazy"))
    } else if !lazy && has(&Node) {
        Some(format!("node reads from lazy mounts, and {snapshotter} has none"))
    } else if has(&Disk) && has(&Tuned) {
        Some("tuned changes the pull, which disk does not measure".into())
    } else if has(&Disk) && has(&Node) {
        Some("node reads during the pull, which disk does not measure".into())
    } else if warm && has(&Node) {
        Some("warm and node are two readers of the same ranges: expected one".into())
    } else {
        None
    }
}

/// The stack's mode that these options ask for.
pub(super) fn mode(options: &[ArmOption]) -> Mode {
    if options.contains(&ArmOption::Tuned) {
        Mode::Tuned
    } else if options.contains(&ArmOption::Stock) {
        Mode::Stock
    } else {
        Mode::Default
    }
}
