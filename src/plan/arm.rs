//! What can be predicted: an image laid out in some way, pulled and started in some way.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Layout;

/// Who reads the touched ranges of lazy files ahead of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// Nobody.
    None,
    /// A process that starts with the workload.
    Workload,
    /// A daemon of the node that starts during the pull, when the lower layers are mounted.
    Node,
}

/// One way to get an image and start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The original under overlayfs, pulled before.
    OriginalCold,
    /// The original on disk, the page cache dropped.
    OriginalWarm,
    /// A converted image under the lazy snapshotter.
    Lazy(Layout, Reader),
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// How.
    pub way: Way,
    /// Whether the image holds the bytecode that its start would write.
    pub startup: bool,
}

/// No arm of this name.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown arm {0:?}: expected original-cold, original-warm or a layout, then +warm or +warm-node, then +startup"
)]
pub struct UnknownArm(String);

impl Arm {
    /// Every arm of a table: without start-up writes first.
    pub fn all() -> Vec<Self> {
        let ways = [
            Way::OriginalCold,
            Way::OriginalWarm,
            Way::Lazy(Layout::Plain, Reader::None),
            Way::Lazy(Layout::Landmark, Reader::None),
            Way::Lazy(Layout::HotLandmark, Reader::None),
            Way::Lazy(Layout::Hot, Reader::None),
            Way::Lazy(Layout::Hot, Reader::Workload),
            Way::Lazy(Layout::Hot, Reader::Node),
        ];
        [false, true].into_iter().flat_map(|startup| ways.map(|way| Self { way, startup })).collect()
    }
}

impl FromStr for Arm {
    type Err = UnknownArm;

    fn from_str(text: &str) -> Result<Self, UnknownArm> {
        let (rest, startup) = text.strip_suffix("+startup").map_or((text, false), |rest| (rest, true));
        let (rest, reader) = if let Some(rest) = rest.strip_suffix("+warm-node") {
            (rest, Reader::Node)
        } else {
            rest.strip_suffix("+warm").map_or((rest, Reader::None), |rest| (rest, Reader::Workload))
        };
        let way = match (rest, reader) {
            ("original-cold", Reader::None) => Way::OriginalCold,
            ("original-warm", Reader::None) => Way::OriginalWarm,
            _ => Way::Lazy(rest.parse().map_err(|_| UnknownArm(text.into()))?, reader),
        };
        Ok(Self { way, startup })
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::OriginalCold => f.write_str("original-cold")?,
            Way::OriginalWarm => f.write_str("original-warm")?,
            Way::Lazy(layout, reader) => {
                let reader = match reader {
                    Reader::None => "",
                    Reader::Workload => "+warm",
                    Reader::Node => "+warm-node",
                };
                write!(f, "{layout}{reader}")?;
            }
        }
        f.write_str(if self.startup { "+startup" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for arm in Arm::all() {
            assert_eq!(arm.to_string().parse::<Arm>().expect("an arm"), arm);
        }
        let arm = "plain+warm+startup".parse::<Arm>().expect("an arm");
        assert_eq!(arm, Arm { way: Way::Lazy(Layout::Plain, Reader::Workload), startup: true });
        for text in ["", "cold", "original-warm+warm", "hot+startup+warm", "hot+"] {
            assert!(text.parse::<Arm>().is_err(), "{text}");
        }
    }
}
