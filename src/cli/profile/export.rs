//! `esgz profile export`.

use std::path::PathBuf;

use super::super::Failure;
use super::super::output::{Output, grouped};
use super::files;
use crate::profile::export::{Format, export};

/// Write a profile as the list of another tool, in the order of first touch
///
/// Only files of the image are listed. All lists but nydus-ranges name whole files: the byte ranges are lost.
#[derive(Debug, clap::Args)]
#[group(id = "export-args")]
pub(super) struct Args {
    /// Profile; - is stdin
    file: PathBuf,
    /// Whose list: ctr-remote (for `ctr-remote convert --estargz-record-in`), nydus (a path a line), nydus-ranges (for
    /// `nydus-image optimize --prefetch-files`) or paths (for `esgz profile import --from paths`)
    #[arg(long, value_name = "TOOL")]
    to: Tool,
    /// File to write
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
enum Tool {
    CtrRemote,
    Nydus,
    NydusRanges,
    Paths,
}

/// Runs it.
pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let profile = files::read(&args.file)?;
    files::warn(&profile, out);
    let list = export(
        &profile,
        match args.to {
            Tool::CtrRemote => Format::CtrRemote,
            Tool::Nydus => Format::Nydus,
            Tool::NydusRanges => Format::NydusRanges,
            Tool::Paths => Format::Paths,
        },
    );
    if list.foreign > 0 {
        out.say(format_args!("left out: {} files of volumes and drivers", grouped(list.foreign)));
    }
    if list.unprintable > 0 {
        out.say(format_args!("warning: left out: {} files with a line break in their path", grouped(list.unprintable)));
    }
    files::write(&args.output, list.text.as_bytes(), out)?;
    Ok(0)
}
