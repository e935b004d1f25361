//! `esgz convert`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use super::Failure;
use super::modelled::Modelled;
use super::output::Output;
use super::platform::{Platforms, platforms};
use super::profiled::{self, Profiled};
use crate::convert::startup::Classes;
use crate::convert::{self, Converted, HotCodec, LayerError, Options, Report};
use crate::estargz::{CHUNK_SIZE, Format, Level};
use crate::image::Reference;
use crate::plan::{self, HotLayer, Layout, Pinned, Reader, Rule, Workload};
use crate::profile::Profile;
use crate::record::class;
use crate::store;

/// Largest chunk offered: the snapshotter decompresses and holds a whole chunk for every read that misses.
const MAX_CHUNK_SIZE: u64 = 64 << 20;

/// Rewrite every layer of an image into eStargz and push it
///
/// SRC and DST are registry references (host/repository:tag) or OCI layout folders (oci:DIR:TAG). Prints the digest of
/// the new manifest or, with several platforms, of the new index.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Image to convert
    src: Reference,
    /// Where the converted image goes; tagged only when everything is there
    dst: Reference,
    /// Profile that decides the layout; may be given several times, the runs are merged
    ///
    /// from-image takes the one that `esgz profile push` put beside SRC; where there are several, from-image:NAME
    #[arg(long = "profile", value_name = "FILE", value_parser = profiled::profiled)]
    profiles: Vec<Profiled>,
    /// plain, landmark (profiled files in front of the landmark), hot (copies of small and densely read files in a topmost
    /// ordinary layer), hot+landmark (both: the other profiled files in front), or auto: with a profile what is predicted to start
    /// fastest (see `esgz plan`), plain without
    #[arg(long, value_name = "LAYOUT", default_value = "auto", value_parser = layout)]
    layout: Choice,
    /// The files of the hot layer: copied, so that the layers below are shared with other images, or moved out of them, which
    /// makes a smaller image [default: copy]
    #[arg(long, value_name = "HOW")]
    hot_layer: Option<HotFiles>,
    /// Compression of the hot layer: zstd, smaller and faster to unpack, or gzip, which is known everywhere
    #[arg(long, value_name = "CODEC", default_value = "zstd")]
    hot_codec: HotFormat,
    /// Tar archive of files that start-up writes in every fresh container (of `esgz profile --capture`): those of the classes below go
    /// into the hot layer, Python bytecode only where it fits the image's sources
    #[arg(long, value_name = "FILE")]
    startup_layer: Option<PathBuf>,
    /// Which files of it, with commas between: bytecode, compile-cache (of torch.compile, Triton and others; of use only on the same
    /// GPU, driver and versions), model-metadata, cache, other. Secrets, logs and what lies in /tmp, /run or a volume never go
    #[arg(long, value_name = "LIST", default_value = "bytecode", requires = "startup_layer")]
    startup_classes: Classes,
    /// Put the read-ahead into the image: the static program FILE (this one when it is static itself) and the list of what a start reads of
    /// the lazy layers go into the hot layer, and the entrypoint starts `esgz warm` first. A pod's own `command` replaces that
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/proc/self/exe", require_equals = true)]
    embed_warm: Option<PathBuf>,
    /// Leave the read-ahead out, and restore the entrypoint of an image that was converted with it: the default
    #[arg(long, conflicts_with = "embed_warm")]
    no_embed_warm: bool,
    /// Format of the lazy layers: estargz (gzip) or zstd:chunked. The stargz snapshotter mounts both lazily; a runtime without it
    /// must know zstd layers for the second
    #[arg(long, value_name = "FORMAT", default_value = "estargz", value_parser = format)]
    output_format: Format,
    /// Use a profile of which less than half matches this image
    #[arg(long)]
    force_profile: bool,
    /// Platform to pick from an index; all, or several with commas between, converts these images and writes an index
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = platforms)]
    platform: Platforms,
    /// Compression level of the lazy layers: 0 (stored) to 12, or auto: as the source has it where that is gzip and at most 8 %
    /// larger than level 6 would be, which saves most of the time; else 6, and 1 for chunks that 6 hardly makes smaller. For
    /// zstd:chunked 1 to 12, or auto: 3
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = effort)]
    level: Effort,
    /// Compress everything anew, fast: level 1
    #[arg(long, conflicts_with_all = ["level", "best"])]
    fast: bool,
    /// Compress everything anew, well: level 10, a seventh of level 6's speed
    #[arg(long, conflicts_with = "level")]
    best: bool,
    /// How files are cut into chunks: uniform, or fitted to what the profile says is read of the large files that stay lazy
    /// [default: fitted with layout hot, uniform otherwise]
    #[arg(long, value_name = "HOW")]
    chunks: Option<Chunks>,
    /// Compression level of the hot chunks of fitted files: 0 (stored, least CPU on the node, most bytes) to 12 [default: 1; with
    /// layout auto 0 where that is predicted to be faster]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=12))]
    hot_level: Option<u8>,
    /// Bytes of a chunk, where chunks are uniform or nothing was read [default: 4 MiB; with layout auto less where that is
    /// predicted to be faster]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(4096..=MAX_CHUNK_SIZE))]
    chunk_size: Option<u64>,
    /// Let small files share a member until their compressed payloads have so many bytes: a smaller image, while whoever reads
    /// one of them decompresses its neighbours too. Needs stargz-snapshotter 0.13 or newer on every node. 0: a member for each
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_CHUNK_SIZE))]
    min_chunk_size: u64,
    /// Compressing threads [default: one a core]
    #[arg(long, short)]
    jobs: Option<NonZeroUsize>,
    /// Bytes of payload on their way through memory [default: four chunks a thread]; the program takes about three times that
    #[arg(long, value_name = "BYTES")]
    memory: Option<u64>,
    /// Folder for temporary data: as large as the compressed image
    #[arg(long, value_name = "DIR", env = "TMPDIR", default_value = "/tmp")]
    temp_dir: PathBuf,
    /// Leave layers in that change nothing: empty ones, and repetitions of another layer
    #[arg(long)]
    keep_layers: bool,
    /// Make every layer anew, also those that an earlier conversion left at the destination
    #[arg(long)]
    no_reuse: bool,
    /// Print a JSON report instead of the digest
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Modelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Chunks {
    Uniform,
    Fitted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HotFiles {
    Copy,
    Move,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HotFormat {
    Zstd,
    Gzip,
}

#[derive(Debug, Clone, Copy)]
enum Effort {
    Auto,
    Fixed(Level),
}

fn effort(text: &str) -> Result<Effort, String> {
    if text == "auto" {
        return Ok(Effort::Auto);
    }
    let level = text.parse().ok().and_then(Level::new);
    level.map(Effort::Fixed).ok_or_else(|| "expected auto or a number from 0 to 12".into())
}

fn format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| "expected estargz or zstd:chunked".into())
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    Auto,
    Fixed(Layout),
}

fn layout(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice::Auto),
        _ => Layout::from_str(text).map(Choice::Fixed).map_err(|e| e + ", auto"),
    }
}

/// Where stored layers are remembered: `esgz/converted.jsonl` in the user's cache folder.
fn journal() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("esgz/converted.jsonl"))
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let (platform, wanted) = match &args.platform {
        Platforms::One(platform) => (platform.clone(), None),
        Platforms::Index(list) => (String::new(), Some(list)),
    };
    let profiles = profiled::read(&args.profiles, &args.src, &args.platform)?;
    let profile = profiles.first();
    for lost in profiles.iter().map(|p| p.header.lost_events).filter(|&n| n > 0) {
        out.say(format_args!("warning: the profile is incomplete: its recorder lost {lost} events"));
    }
    let planned = match args.layout {
        // One choice for one profile; images of several platforms get the usual layout.
        Choice::Auto if profiles.len() == 1 => Some(planned(args, &profiles[0], out)?),
        _ if args.model.is_given() => {
            return Err(Failure::new(2, "a model or link is given, but nothing is predicted")
                .hint("it is with --layout auto and one --profile"));
        }
        _ => None,
    };
    let layout = match (args.layout, &planned) {
        (Choice::Fixed(l), _) => l,
        (Choice::Auto, Some(planned)) => planned.layout,
        (Choice::Auto, None) if profile.is_some() => Layout::Hot,
        (Choice::Auto, None) => Layout::Plain,
    };
    if !layout.needs_profile() && profile.is_some() && planned.is_none() {
        return Err(
            Failure::new(2, "--layout plain uses no profile").hint("leave --profile out, or choose landmark or hot")
        );
    }
    if layout.needs_profile() && profile.is_none() {
        return Err(Failure::new(2, format!("--layout {layout} needs --profile FILE"))
            .hint("record one with `esgz profile -o FILE -- COMMAND`"));
    }
    if args.hot_layer.is_some() && !layout.has_hot() {
        return Err(
            Failure::new(2, format!("--hot-layer: layout {layout} has no hot layer")).hint("choose --layout hot")
        );
    }
    if args.startup_layer.is_some() && !layout.has_hot() {
        return Err(Failure::new(
            2,
            format!("--startup-layer: layout {layout} has no hot layer that it could go into"),
        )
        .hint("give --profile FILE, or choose --layout hot"));
    }
    if args.embed_warm.is_some() && !layout.has_hot() {
        return Err(Failure::new(2, format!("--embed-warm: layout {layout} has no hot layer that it could go into"))
            .hint("give --profile FILE, or choose --layout hot"));
    }
    let chunks = args.chunks.unwrap_or(if layout.has_hot() { Chunks::Fitted } else { Chunks::Uniform });
    if chunks == Chunks::Fitted && profile.is_none() {
        return Err(Failure::new(2, "--chunks fitted needs --profile FILE")
            .hint("record one with `esgz profile -o FILE -- COMMAND`"));
    }
    let (level, adaptive) = match args.level {
        _ if args.fast => (Level::FAST, false),
        _ if args.best => (Level::BEST, false),
        Effort::Auto if args.output_format == Format::ZstdChunked => (Level::ZSTD, false),
        Effort::Auto => (Level::DEFAULT, true),
        Effort::Fixed(level) => (level, false),
    };
    let stored = planned.as_ref().is_some_and(|p| p.cutting.stored);
    let usual_level = if stored { Level::STORED } else { Level::FAST };
    let hot_level = args.hot_level.map_or(usual_level, |level| Level::new(level).unwrap_or(Level::STORED));
    let chunk_size = args.chunk_size.unwrap_or(planned.as_ref().map_or(CHUNK_SIZE, |p| p.cutting.chunk_size));
    if args.output_format == Format::ZstdChunked && (level == Level::STORED || hot_level == Level::STORED) {
        return Err(Failure::new(2, "level 0: zstd:chunked has no level that stores").hint("choose a level from 1"));
    }
    let options = Options {
        layout,
        format: args.output_format,
        rule: planned.map_or_else(Rule::default, |p| p.rule),
        hot_layer: if args.hot_layer == Some(HotFiles::Move) { HotLayer::Move } else { HotLayer::Copy },
        hot_codec: if args.hot_codec == HotFormat::Gzip { HotCodec::Gzip } else { HotCodec::Zstd },
        startup: args.startup_layer.clone(),
        startup_classes: args.startup_classes.clone(),
        embed: args.embed_warm.clone(),
        fitted: chunks == Chunks::Fitted,
        hot_level,
        chunk_size,
        min_chunk_size: args.min_chunk_size,
        level,
        adaptive,
        platform,
        force_profile: args.force_profile,
        jobs: args.jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        memory: args.memory,
        temp_dir: args.temp_dir.clone(),
        keep_layers: args.keep_layers,
        reuse: !args.no_reuse,
        journal: journal(),
    };
    super::on_interrupt(out, "interrupted: nothing was tagged");
    let src = store::open(&args.src, false).map_err(|e| super::store_failure(&e, &args.src))?;
    let dst = store::open_beside(&args.src, &args.dst).map_err(|e| super::store_failure(&e, &args.dst))?;
    let progress = out.progress();
    let converted = match wanted {
        None => convert::convert(&*src, &*dst, profile, &options, &*progress).map(Converted::Image),
        Some(list) => convert::convert_index(&*src, &*dst, &profiles, list, &options, &*progress),
    };
    let converted = converted.map_err(failure)?;
    let digest = match &converted {
        Converted::Image(report) => {
            say(report, &args.dst, out);
            report.digest
        }
        Converted::Index(index) => {
            for image in &index.images {
                say(&image.report, &format_args!("{} {}", args.dst, image.platform), out);
            }
            let what = if index.unchanged { "nothing to do, it is there already" } else { "written" };
            out.say(format_args!("{}: index of {} images: {what}", args.dst, index.images.len()));
            index.digest
        }
    };
    if args.json {
        out.json(&converted);
    } else {
        out.data(digest);
    }
    Ok(0)
}

/// What is predicted to be best of what the flags leave open.
fn planned(args: &Args, profile: &Profile, out: &Output) -> Result<plan::Choice, Failure> {
    let model = args.model.read()?;
    let pinned = Pinned {
        layout: None,
        needs_hot: args.startup_layer.is_some() || args.hot_layer.is_some() || args.embed_warm.is_some(),
        chunk_size: args.chunk_size,
        fitted: args.chunks.map(|chunks| chunks == Chunks::Fitted),
        stored: args.hot_level.map(|level| level == 0),
        zstd: args.output_format == Format::ZstdChunked,
    };
    // Nobody reads ahead unless something says so.
    let reader = if args.embed_warm.is_some() { Reader::Workload } else { Reader::None };
    let choice = plan::choose(&Workload::of(profile, 0), &model, &pinned, reader, args.startup_layer.is_some());
    let ms = choice.predicted.millis();
    out.say(format_args!(
        "layout {}: predicted pull {} ms, create {} ms, ready {} ms; `esgz plan` says why",
        choice.layout, ms.pull_ms, ms.create_ms, ms.ready_ms
    ));
    Ok(choice)
}

/// Says what became of an image.
fn say(report: &Report, name: &dyn Display, out: &Output) {
    let (before, after): (u64, u64) = report.layers.iter().fold((0, 0), |(b, a), l| (b + l.source_size, a + l.size));
    let count = report.layers.len();
    let reused = report.layers.iter().filter(|l| l.reused).count();
    if report.unchanged {
        out.say(format_args!("{name}: nothing to do, {count} layers of {after} bytes are there already"));
    } else {
        let reused = if reused > 0 { format!(", {reused} of them reused") } else { String::new() };
        let layout = report.layout;
        out.say(format_args!("{name}: {count} layers{reused}, {before} bytes became {after}; layout {layout}"));
    }
    if let Some(s) = &report.startup {
        let list = |counts: &BTreeMap<&str, usize>| {
            counts.iter().map(|(class, n)| format!("{n} {class}")).collect::<Vec<_>>().join(", ")
        };
        let added = if s.files > 0 { format!(" ({})", list(&s.classes)) } else { String::new() };
        let others = if s.left_out.is_empty() { String::new() } else { format!(", {}", list(&s.left_out)) };
        out.say(format_args!(
            "{name}: start-up layer: {} files of {} bytes added{added}; left out: {} stale, {} whose path is taken{others}",
            s.files, s.bytes, s.stale, s.taken
        ));
        let notes = class::METADATA.name;
        if s.left_out.contains_key(notes) {
            out.say(format_args!(
                "{name}: if the {notes} left out is vLLM's (modelinfos), every start imports vLLM a second time for want of it: \
                 --startup-classes bytecode,{notes} takes it along"
            ));
        }
    }
}

fn failure(error: convert::Error) -> Failure {
    let hint = hint(&error);
    Failure { hint, ..Failure::from(error) }
}

fn hint(error: &convert::Error) -> Option<String> {
    let hint = match error {
        convert::Error::Platform { source, .. } => return hint(source),
        convert::Error::ForeignPlatform { linux, .. } if !linux.is_empty() => {
            return Some(format!("name the platforms to convert: --platform {linux}"));
        }
        convert::Error::ProfilePlatform { .. } => {
            Some("record a profile on one of these platforms, or leave --profile out")
        }
        convert::Error::ForeignProfile { .. } => {
            Some("record a profile of this image, or use this one with --force-profile")
        }
        convert::Error::Startup { .. } => Some("expected an uncompressed tar archive that lists its folders"),
        convert::Error::Program { .. } => Some("build one with scripts/static, and name it: --embed-warm=FILE"),
        convert::Error::NothingToWrap => Some("leave --embed-warm out, and start `esgz warm -- COMMAND` in the pod"),
        convert::Error::TooManyLayers { .. } => Some("squash some layers first"),
        convert::Error::Store(e) => super::store_hint(e.kind()),
        convert::Error::Layer { source, .. } => match &**source {
            LayerError::Store(e) => super::store_hint(e.kind()),
            LayerError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("name another folder with --temp-dir")
            }
            _ => None,
        },
        _ => None,
    };
    hint.map(Into::into)
}
