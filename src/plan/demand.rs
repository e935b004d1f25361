//! What serving a file lazily asks of link and snapshotter: chunks, regions and bytes, counted from the touched spans and the
//! chunks that the file is cut into. Where a file stands in its blob and how well each chunk compresses is not known before the
//! layers are read, so every file begins at a region and compresses as the average does.

use std::ops::Range;

use serde::Serialize;

use super::model::{Model, Node};
use super::workload::{Touched, Workload, scaled};
use super::{HOT_CHUNK, Rule};

/// The snapshotter fetches in units of this (`[blob] chunk_size` of scripts/stack.d/stargz.toml).
const REGION: u64 = 2 << 20;
/// Bytes of an average request, since neighbouring regions are asked for together: 580 MB in 240 requests (docs/bench-vllm.md).
pub(super) const REQUEST: u64 = 2_400_000;
/// The kernel reads ahead this far behind what is touched on FUSE.
const READ_AHEAD: u64 = 128 << 10;
/// Compressed size of what a start reads, percent: what docs/bench-vllm.md counted on the link, for the chunks counted here.
const RATIO: u64 = 45;
/// Compressed size of whole layers, percent: vLLM's, 4.52 of 8.48 GB.
pub(super) const LAYER_RATIO: u64 = 53;
/// A region holds neighbours that nobody asked for: half as much again for files smaller than one (docs/bench-vllm.md: 229 MB for
/// the small files of `plain`).
const SPILL: (u64, u64) = (3, 2);

/// How the lazy files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// eStargz.
    Gzip,
    /// zstd:chunked.
    Zstd,
}

/// How the lazy files are cut and compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cutting {
    /// Bytes of a chunk where nothing was read, or everywhere.
    pub chunk_size: u64,
    /// Whether chunks follow the touched spans of the files that stay lazy.
    pub fitted: bool,
    /// Whether the chunks of those spans are stored instead of compressed.
    pub stored: bool,
    /// Compression.
    pub codec: Codec,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Files.
    pub files: u64,
    /// Chunks that are fetched.
    pub chunks: u64,
    /// Bytes of these chunks.
    pub bytes: u64,
    /// Of these decompressed.
    pub inflated: u64,
    /// Bytes that go through FUSE.
    pub served: u64,
    /// Bytes over the link.
    pub wire: u64,
}

impl Demand {
    pub(super) fn add(&mut self, other: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.files, other.files);
        sum(&mut self.chunks, other.chunks);
        sum(&mut self.bytes, other.bytes);
        sum(&mut self.inflated, other.inflated);
        sum(&mut self.served, other.served);
        sum(&mut self.wire, other.wire);
    }

    /// CPU microseconds of the daemons.
    pub(super) fn cpu(&self, node: &Node, codec: Codec) -> u64 {
        let inflate = match codec {
            Codec::Gzip => node.inflate_mb_us,
            Codec::Zstd => node.zstd_inflate_mb_us,
        };
        [
            per_mb(self.inflated, inflate),
            per_mb(self.bytes, node.keep_mb_us),
            per_mb(self.served, node.fuse_mb_us),
            per_mb(self.wire, node.wire_mb_us),
            self.chunks.saturating_mul(node.chunk_us),
            scaled(self.wire, node.region_us, REGION),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Microseconds that requests take one after another.
    pub(super) fn round_trips(&self, model: &Model) -> u64 {
        scaled(self.wire, model.link.latency_ms.saturating_mul(1000), REQUEST)
    }

    /// Requests, rounded to the nearest.
    pub fn requests(&self) -> u64 {
        self.wire.saturating_add(REQUEST / 2) / REQUEST
    }
}

/// Microseconds for bytes at a price a MB.
pub(super) fn per_mb(bytes: u64, us: u64) -> u64 {
    scaled(bytes, us, 1_000_000)
}

/// Microseconds for bytes at a speed in MB/s.
pub(super) fn at_speed(bytes: u64, mb: u64) -> u64 {
    bytes / mb.max(1)
}

impl Cutting {
    /// How an image was cut, as its annotation `dev.esgz.encoder` says; `None` where it does not say so.
    pub fn of_encoder(encoder: &str) -> Option<Self> {
        let value = |key: &str| encoder.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let hot_level = value("hot-level");
        Some(Self {
            chunk_size: value("chunk")?.parse().ok().filter(|n| *n > 0)?,
            fitted: hot_level.is_some(),
            stored: hot_level == Some("0"),
            codec: if encoder.split(' ').any(|word| word == "zstd:chunked") { Codec::Zstd } else { Codec::Gzip },
        })
    }

    /// What a start asks of one file. `exact`: only the touched spans are read, as the read-ahead does; otherwise the kernel
    /// reads on behind them. Takes time by the number of spans, whatever a profile claims of sizes.
    pub(super) fn demand(&self, file: &Touched, exact: bool) -> Demand {
        let reach = if exact { 0 } else { READ_AHEAD };
        let spans = file.spans.iter().map(|(span, _)| span);
        let mut walk = Walk::default();
        if self.fitted {
            let weight = if self.stored { 100 } else { RATIO };
            let mut ahead = 0..0;
            for span in spans.clone() {
                walk.segment(span.start, self.chunk_size, RATIO, [ahead]);
                walk.segment(span.end, HOT_CHUNK, weight, [span.clone()]);
                ahead = span.end..span.end.saturating_add(reach);
            }
            walk.segment(file.size, self.chunk_size, RATIO, [ahead]);
        } else {
            let touched = spans.clone().map(|s| s.start..s.end.saturating_add(reach));
            walk.segment(file.size, self.chunk_size, RATIO, touched);
        }
        let packed = u64::try_from(walk.place / 100).unwrap_or(u64::MAX);
        Demand {
            files: 1,
            served: spans.map(|s| s.end - s.start).fold(0, u64::saturating_add),
            wire: walk.fetched.wire.min(scaled(packed, SPILL.0, SPILL.1)),
            ..walk.fetched
        }
    }

    /// What reading some files whole in front of a landmark asks for: large requests, nothing through FUSE.
    pub(super) fn whole(&self, file: &Touched) -> Demand {
        Demand {
            files: 1,
            chunks: file.size.div_ceil(self.chunk_size.max(1)),
            bytes: file.size,
            inflated: file.size,
            served: 0,
            wire: scaled(file.size, LAYER_RATIO, 100),
        }
    }
}

/// The way through a file's chunks.
#[derive(Default)]
struct Walk {
    /// Bytes of the file behind us.
    at: u64,
    /// The same compressed, in hundredths of a byte, so that nothing is lost by rounding.
    place: u128,
    /// First region that is not fetched yet.
    next_region: u128,
    fetched: Demand,
}

impl Walk {
    /// Goes on to `end` in chunks of `unit`, compressed to `percent` (100: stored), and fetches those that the touched ranges
    /// lie in.
    fn segment(&mut self, end: u64, unit: u64, percent: u64, touched: impl IntoIterator<Item = Range<u64>>) {
        let (start, unit) = (self.at, unit.max(1));
        let length = end.saturating_sub(start);
        let place = |offset: u64| self.place + u128::from(offset) * u128::from(percent);
        let (mut next_chunk, out) = (0, &mut self.fetched);
        for range in touched {
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from >= to {
                continue;
            }
            let (first, last) = (((from - start) / unit).max(next_chunk), (to - 1 - start) / unit);
            if first > last {
                continue;
            }
            next_chunk = last + 1;
            let (begin, finish) = (first * unit, next_chunk.saturating_mul(unit).min(length));
            let bytes = finish - begin;
            out.chunks = out.chunks.saturating_add(last - first + 1);
            out.bytes = out.bytes.saturating_add(bytes);
            out.inflated = out.inflated.saturating_add(if percent < 100 { bytes } else { 0 });
            let region = u128::from(REGION) * 100;
            let (first, last) = (self.next_region.max(place(begin) / region), (place(finish) - 1) / region);
            if first <= last {
                let bytes = u64::try_from(last - first + 1).unwrap_or(u64::MAX).saturating_mul(REGION);
                out.wire = out.wire.saturating_add(bytes);
                self.next_region = last + 1;
            }
        }
        self.place = place(length);
        self.at = start + length;
    }
}

/// A file that stays lazy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LazyFile {
    /// Path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of these touched.
    pub touched: u64,
    /// Touched ranges.
    pub ranges: usize,
    /// What serving it asks for.
    pub demand: Demand,
}

/// The files that a rule leaves lazy, most touched bytes first.
pub fn lazy_files(workload: &Workload, rule: &Rule, cutting: &Cutting) -> Vec<LazyFile> {
    let lazy = workload.files.iter().filter(|f| !rule.takes_touched(f));
    let mut files: Vec<_> = lazy
        .map(|f| LazyFile {
            path: f.path.clone(),
            size: f.size,
            touched: f.touched,
            ranges: f.ranges,
            demand: cutting.demand(f, false),
        })
        .collect();
    files.sort_by(|a, b| b.touched.cmp(&a.touched).then_with(|| a.path.cmp(&b.path)));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const CUT: Cutting = Cutting { chunk_size: 4 * MIB, fitted: false, stored: false, codec: Codec::Gzip };

    /// A file that is touched in one place.
    fn file(size: u64, span: Range<u64>) -> Touched {
        Touched { path: "/f".into(), size, touched: span.end - span.start, ranges: 1, spans: vec![(span, 0)] }
    }

    #[test]
    fn a_small_file_is_one_chunk_and_the_bytes_around_it() {
        let d = CUT.demand(&file(10_000, 0..10_000), false);
        assert_eq!((d.files, d.chunks, d.bytes, d.inflated, d.served), (1, 1, 10_000, 10_000, 10_000));
        assert_eq!(d.wire, 6750, "its compressed size and half as much again");
    }

    #[test]
    fn fitted_chunks_fetch_what_is_touched_and_uniform_ones_their_whole() {
        let f = file(100 * MIB, 10 * MIB..10 * MIB + 131_072);
        let (uniform, fitted) = (CUT.demand(&f, true), Cutting { fitted: true, ..CUT }.demand(&f, true));
        assert_eq!((uniform.chunks, uniform.bytes), (1, 4 * MIB));
        assert_eq!((fitted.chunks, fitted.bytes, fitted.wire), (1, 131_072, REGION));
        // The kernel reads on into the cold chunk behind it.
        let spilled = Cutting { fitted: true, ..CUT }.demand(&f, false);
        assert_eq!((spilled.chunks, spilled.bytes), (2, 131_072 + 4 * MIB));
    }

    #[test]
    fn how_an_image_was_cut_is_read_from_its_annotation() {
        let fitted = "esgz/0.1.0 libdeflate/1.26.1 level=source-or:6 chunk=4194304 hot-level=0 hot-chunk=2097152";
        assert_eq!(Cutting::of_encoder(fitted), Some(Cutting { fitted: true, stored: true, ..CUT }));
        let zstd = "esgz/0.1.0 zstd:chunked zstd/1.5.7 level=3 chunk=1048576";
        assert_eq!(Cutting::of_encoder(zstd), Some(Cutting { chunk_size: MIB, codec: Codec::Zstd, ..CUT }));
        for text in ["", "esgz/0.1.0", "x chunk=0", "x chunk=a"] {
            assert_eq!(Cutting::of_encoder(text), None, "{text}");
        }
    }

    #[test]
    fn stored_chunks_cost_bytes_and_no_inflating() {
        let f = file(100 * MIB, 0..20 * MIB);
        let fitted = Cutting { fitted: true, ..CUT };
        let (packed, stored) = (fitted.demand(&f, true), Cutting { stored: true, ..fitted }.demand(&f, true));
        assert_eq!((packed.inflated, stored.inflated), (20 * MIB, 0));
        assert_eq!((packed.wire, stored.wire), (5 * REGION, 10 * REGION));
    }
}
