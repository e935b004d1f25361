//! `esgz profile pull`.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use serde_json::json;

use super::super::output::{Output, grouped};
use super::super::{Failure, store_failure};
use super::push::doubts;
use super::{files, name};
use crate::image::{Reference, names};
use crate::store::profiles::{self, Stored};
use crate::store::{Kind, referrers};

/// Fetch a profile that is beside an image
///
/// Writes the file that was pushed, byte for byte, after checking that it is a profile.
#[derive(Debug, clap::Args)]
#[group(id = "pull-args")]
pub(super) struct Args {
    /// Image: host/repository:tag or oci:DIR:TAG
    image: Reference,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE", conflicts_with = "list")]
    output: Option<PathBuf>,
    /// Which profile, where the image has several
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "list")]
    name: Option<String>,
    /// List the profiles instead
    #[arg(long)]
    list: bool,
    /// With --list: as JSON
    #[arg(long, requires = "list")]
    json: bool,
    /// Platform to pick from an index
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let failed = |e| store_failure(&e, &args.image);
    let store = referrers::open(&args.image, false).map_err(failed)?;
    let image = store.image(&args.platform).map_err(failed)?;
    let all = profiles::list(&*store, &image.descriptor).map_err(failed)?;
    if args.list {
        list(&all, args.json, out);
        return Ok(0);
    }
    let chosen = profiles::choose(&all, args.name.as_deref(), &args.image.to_string());
    let chosen = chosen.map_err(|e| match e.kind() {
        Kind::NotFound if all.is_empty() => failed(e).hint("push one with `esgz profile push FILE IMAGE`"),
        Kind::NotFound => failed(e).hint("name one of them with --name"),
        _ => failed(e),
    })?;
    let (bytes, profile) = profiles::fetch(&*store, chosen).map_err(failed)?;
    for words in doubts(&profile, &image, &args.image) {
        out.say(format_args!("warning: {words}"));
    }
    files::write(args.output.as_deref().unwrap_or(Path::new("-")), &bytes, out)?;
    out.say(format_args!("profile {:?} of image {}, {}", chosen.name, image.descriptor.digest, chosen.digest));
    Ok(0)
}

fn list(all: &[Stored], as_json: bool, out: &Output) {
    if as_json {
        let entry = |s: &Stored| {
            let about: serde_json::Map<_, _> = s.about.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
            json!({ "name": s.name, "digest": s.digest, "size": s.size(), "annotations": about })
        };
        out.json(&all.iter().map(entry).collect::<Vec<_>>());
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "recorded", "recorder", "esgz", "until", "gpu", "bytes", "digest"]);
    for stored in all {
        let keys =
            [names::CREATED, names::PROFILE_RECORDER, names::PROFILE_VERSION, names::PROFILE_UNTIL, names::PROFILE_GPU];
        let mut row = vec![stored.name.clone()];
        row.extend(keys.iter().map(|k| stored.about(k).to_owned()));
        row.extend([grouped(stored.size()), stored.digest.to_string()]);
        table.add_row(row);
    }
    out.data(table);
}
