//! `esgz profile show`.

use std::path::PathBuf;

use super::super::Failure;
use super::super::output::{Output, grouped, megabytes};
use super::diff::table;
use super::import::one_platform;
use super::{files, image};
use crate::image::Reference;
use crate::profile::page::page;
use crate::profile::summary::{Group, Summary};

/// Show what a profile holds: as a table, as JSON or as a page for the browser
///
/// Bytes belong to the phase in which they were first touched. A folder is shown without what is shown by itself below it.
#[derive(Debug, clap::Args)]
#[group(id = "show-args")]
pub(super) struct Args {
    /// Profile to show; - is stdin
    file: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Write a page with a timeline, heat maps of the files and a searchable list: one file that loads nothing else; - is stdout
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Image whose layers hold the files: shows what lies in which of them; every layer is read
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,
    /// Platform of that image [default: the profile's]
    #[arg(long, value_name = "OS/ARCH", value_parser = one_platform, requires = "image")]
    platform: Option<String>,
    /// Folders and files to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Runs it.
pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let profile = files::read(&args.file)?;
    let platform = args.platform.as_ref().unwrap_or(&profile.header.platform);
    let layers = args.image.as_ref().map(|reference| image::read(reference, platform, out)).transpose()?;
    let layers = layers.as_ref().map(|read| &read.layers);
    let summary = Summary::of(&profile, layers);
    if let Some(path) = &args.html {
        files::warn(&profile, out);
        files::write(path, page(&profile, &summary, layers).as_bytes(), out)?;
    } else if args.json {
        files::warn(&profile, out);
        out.json(&summary);
    } else {
        out.data(text(&summary, args.limit).trim_end());
    }
    Ok(0)
}

/// Everything that makes the figures less than the truth comes first.
fn warnings(s: &Summary) -> Vec<String> {
    let h = &s.header;
    let mut out = Vec::new();
    if h.lost_events > 0 {
        out.push(format!(
            "INCOMPLETE: {} events were lost; record again with a larger --ring-mib",
            grouped(h.lost_events)
        ));
    }
    if h.until.contains("incomplete") {
        out.push(format!("INCOMPLETE: {}", h.until));
    }
    let unmapped = h.unmapped.values().fold(0, |all: u64, n| all.saturating_add(*n));
    if unmapped > 0 {
        let list: Vec<String> = h.unmapped.iter().map(|(device, n)| format!("{} on {device}", grouped(*n))).collect();
        out.push(format!(
            "UNMAPPED: {} events belong to no file that could be found: {}",
            grouped(unmapped),
            list.join(", ")
        ));
    }
    out
}

/// The table.
fn text(s: &Summary, limit: usize) -> String {
    let h = &s.header;
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    for warning in warnings(s) {
        line(&warning);
    }
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            line(&format!("{name:<10} {}", value.escape_debug()));
        }
    };
    fact("image", h.image.as_deref().unwrap_or_default());
    fact("digest", &h.image_digest.map(|d| d.to_string()).unwrap_or_default());
    fact("platform", &h.platform);
    fact("command", &h.command.join(" "));
    fact("started", &h.started_at);
    fact("until", &h.until);
    for (key, value) in &h.host {
        fact(key, value);
    }
    fact("recorder", &format!("{} {}", h.recorder.name, h.recorder.version));
    fact("adds", &h.recorder.inflation);
    fact("misses", &h.recorder.blind);
    fact("events", &format!("{}, {} on files that start-up itself wrote", grouped(h.events), grouped(h.own_writes)));
    for source in &h.merged {
        let of = [source.image.as_deref(), source.gpus.as_deref(), Some(&source.recorder)];
        let of: Vec<&str> = of.into_iter().flatten().collect();
        fact("made of", &format!("{} ({})", source.started_at, of.join(", ")));
    }
    line(&format!(
        "\n{} files with {}, {} touched in them ({})",
        grouped(s.total.files),
        megabytes(s.total.size),
        megabytes(s.total.touched),
        percent(s.total.touched, s.total.size)
    ));
    let mut t = table(&["PHASE", "FROM", "FILES", "TOUCHED FIRST"], 1..4);
    for p in &s.phases {
        let name = if p.name.is_empty() { "(start)" } else { &p.name };
        let from = format!("{}.{:03} s", p.at_ms / 1000, p.at_ms % 1000);
        t.add_row([name.escape_debug().to_string(), from, grouped(p.files), grouped(p.touched)]);
    }
    line(&format!("\n{}", trimmed(&t)));
    groups("SIZE", &s.sizes, usize::MAX, &mut line);
    groups("ORIGIN", &s.origins, usize::MAX, &mut line);
    groups("LAYER", &s.layers, usize::MAX, &mut line);
    groups("FOLDER", &s.folders, limit, &mut line);
    if !s.sparse.is_empty() && limit > 0 {
        let mut t = table(&["SHARE", "TOUCHED", "SIZE", "RANGES", "SPARSELY READ"], 0..4);
        for f in s.sparse.iter().take(limit) {
            t.add_row([
                percent(f.touched, f.size),
                grouped(f.touched),
                grouped(f.size),
                grouped(f.ranges as u64),
                f.path.escape_debug().to_string(),
            ]);
        }
        line(&format!("\n{}", trimmed(&t)));
        more(s.sparse.len(), limit, &mut line);
    }
    if !s.writes.is_empty() {
        let mut t = table(&["WRITTEN", "PHASE", "FILES", "SIZE"], 2..4);
        for w in &s.writes {
            let phase = match w.phase.as_deref() {
                None => "-",
                Some("") => "(start)",
                Some(name) => name,
            };
            t.add_row([
                w.class.escape_debug().to_string(),
                phase.escape_debug().to_string(),
                grouped(w.files),
                grouped(w.size),
            ]);
        }
        line(&format!("\n{}", trimmed(&t)));
    }
    out
}

fn groups(name: &str, groups: &[Group], limit: usize, line: &mut impl FnMut(&str)) {
    if groups.is_empty() || limit == 0 {
        return;
    }
    let mut t = table(&[name, "FILES", "SIZE", "TOUCHED", "SHARE"], 1..5);
    for g in groups.iter().take(limit) {
        t.add_row([
            g.name.escape_debug().to_string(),
            grouped(g.files),
            grouped(g.size),
            grouped(g.touched),
            percent(g.touched, g.size),
        ]);
    }
    line(&format!("\n{}", trimmed(&t)));
    more(groups.len(), limit, line);
}

fn more(all: usize, limit: usize, line: &mut impl FnMut(&str)) {
    if all > limit {
        line(&format!("… and {} more (--limit, --json)", grouped((all - limit) as u64)));
    }
}

/// A table without the blanks that it ends its lines with.
fn trimmed(table: &comfy_table::Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// `12.3 %`, rounded down; `-` of nothing.
fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    if whole == 0 { "-".into() } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample::profile;

    #[test]
    fn the_table_shows_what_was_read_and_says_loudly_what_is_missing() {
        let mut p = profile();
        p.header.lost_events = 7;
        p.header.unmapped.insert("259:3".into(), 40);
        insta::assert_snapshot!(text(&Summary::of(&p, None), 2), @r#"
        INCOMPLETE: 7 events were lost; record again with a larger --ring-mib
        UNMAPPED: 40 events belong to no file that could be found: 40 on 259:3
        image      registry.example/app:1
        platform   linux/amd64
        command    python3 -m app
        started    2026-11-26T06:40:03.000Z
        until      a chat answer
        kernel     6.18
        recorder   filemap 0.1.0
        adds       fault-around of mapped files
        events     12,345, 0 on files that start-up itself wrote

        4 files with 246.4 MB, 12.5 MB touched in them (5.1 %)

         PHASE          FROM  FILES  TOUCHED FIRST
         (start)     0.000 s      3      3,153,920
         ready       1.000 s      0          4,096
         first-chat  3.000 s      1      9,437,184

         SIZE       FILES         SIZE    TOUCHED    SHARE
         <= 64 KiB      1       50,000     12,288   24.5 %
         <= 1 MiB       0            0          0        -
         <= 16 MiB      1    5,242,880  5,242,880  100.0 %
         <= 64 MiB      1   31,457,280  1,048,576    3.3 %
         > 64 MiB       1  209,715,200  6,291,456    3.0 %

         ORIGIN  FILES         SIZE     TOUCHED  SHARE
         image       3  215,008,080  11,546,624  5.3 %
         driver      1   31,457,280   1,048,576  3.3 %

         FOLDER       FILES         SIZE    TOUCHED    SHARE
         /opt/app/        1  209,715,200  6,291,456    3.0 %
         /opt/app/</      1    5,242,880  5,242,880  100.0 %
        … and 2 more (--limit, --json)

         SHARE    TOUCHED         SIZE  RANGES  SPARSELY READ
         3.0 %  6,291,456  209,715,200       2  /opt/app/torch.so
         3.3 %  1,048,576   31,457,280       1  /usr/lib/libcuda.so.1

         WRITTEN    PHASE       FILES   SIZE
         bytecode   (start)         1  9,000
         temporary  first-chat      1    100
        "#);
    }

    #[test]
    fn shares_are_rounded_down() {
        assert_eq!(
            [(0, 0), (1, 3), (999_999, 1_000_000), (1, 1)].map(|(a, b)| percent(a, b)),
            ["-", "33.3 %", "99.9 %", "100.0 %"]
        );
    }
}
