//! `esgz profile import`.

use std::path::PathBuf;

use super::super::Failure;
use super::super::output::{Output, grouped, megabytes};
use super::{files, image};
use crate::image::Reference;
use crate::profile::import::{Context, Format, Imported, import};
use crate::profile::{File, write};

/// Make a profile of another tool's list of files
///
/// Such lists name whole files, so the profile has whole files: recording one with `esgz profile` tells byte ranges. With the files of
/// the image (--rootfs or --image) sizes are known, symlinks are followed, folders stand for what is in them, and patterns can be
/// used. Without them files have no ranges.
#[derive(Debug, clap::Args)]
#[group(id = "import-args")]
pub(super) struct Args {
    /// The list; - is stdin
    file: PathBuf,
    /// Whose list: ctr-remote (JSON lines of `ctr-remote optimize --record-out`), nydus (a path a line, CSV with path,size,elapsed, or
    /// JSON with ranges), paths (a path a line; * and ? stand for anything in one part of a path, ** for any number of parts)
    #[arg(long, value_name = "TOOL")]
    from: Tool,
    /// Profile to write
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Image that the list is of: noted in the profile; without --rootfs its layers are read for their files
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,
    /// Platform of the image
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = one_platform)]
    platform: String,
    /// Folder with the image's files
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
enum Tool {
    CtrRemote,
    Nydus,
    Paths,
}

/// One platform alone.
pub(super) fn one_platform(text: &str) -> Result<String, String> {
    match super::super::platform::platforms(text)? {
        super::super::platform::Platforms::One(platform) => Ok(platform),
        super::super::platform::Platforms::Index(_) => Err("expected one os/arch[/variant]".into()),
    }
}

/// Runs it.
pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let list = files::bytes(&args.file)?;
    let (mut tree, mut image_digest) = (None, None);
    if let Some(dir) = &args.rootfs {
        tree = Some(image::folder(dir)?);
    } else if let Some(reference) = &args.image {
        let read = image::read(reference, &args.platform, out)?;
        (tree, image_digest) = (Some(read.tree), Some(read.digest));
    }
    let context = Context {
        image: args.image.as_ref().map(ToString::to_string),
        image_digest,
        platform: args.platform.clone(),
        tree: tree.as_ref(),
    };
    let format = match args.from {
        Tool::CtrRemote => Format::CtrRemote,
        Tool::Nydus => Format::Nydus,
        Tool::Paths => Format::Paths,
    };
    let imported = import(format, &list, &context).map_err(|e| {
        let failure = Failure::new(1, format!("{}: {e}", args.file.display()));
        if e.expected.contains("no files") {
            failure.hint("name the image's files with --rootfs DIR or --image REF")
        } else {
            failure
        }
    })?;
    if imported.profile.files.is_empty() && !imported.missing.is_empty() {
        let first = &imported.missing[0];
        let why = format!("{}: no entry stands for a file of the image, such as {first:?}", args.file.display());
        return Err(Failure::new(1, why).hint("check that --rootfs or --image is what the list was made of"));
    }
    say(&imported, out);
    files::write(&args.output, &write(&imported.profile), out)?;
    Ok(0)
}

fn say(imported: &Imported, out: &Output) {
    let listed = &imported.profile.files;
    out.say(format_args!(
        "{} entries became {} files, {}",
        grouped(imported.profile.header.events),
        grouped(listed.len() as u64),
        megabytes(listed.iter().map(File::touched_bytes).fold(0, u64::saturating_add)),
    ));
    if let [first, ..] = imported.missing.as_slice() {
        out.say(format_args!(
            "warning: {} entries stand for no file of the image, such as {first:?}",
            grouped(imported.missing.len() as u64)
        ));
    }
    if imported.unsized_files > 0 {
        out.say(format_args!(
            "warning: the size of {} files is not known, so that they have no ranges; --rootfs or --image tells it",
            grouped(imported.unsized_files)
        ));
    }
}
