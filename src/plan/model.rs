//! What a node and its link cost: plain numbers, each with its source. Times come out of them in `predict`.
//!
//! All of it is whole numbers: a prediction decides bytes of an image, and the same input has to decide the same on any machine.
//! MB are 10^6 bytes. Sources: `exp` is `field/cold-start-experiments.md`, `vllm` is `docs/bench-vllm.md`; "fitted" figures and
//! what they miss are listed in `docs/plan.md`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::workload::scaled;

/// A node behind a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The way to the registry.
    pub link: Link,
    /// What pulls, serves and runs.
    pub node: Node,
}

/// The way to the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Milliseconds from a request to the first byte of its answer.
    pub latency_ms: u64,
    /// MB/s of all connections together.
    pub bandwidth_mb: u64,
    /// MB/s of one connection.
    pub connection_mb: u64,
    /// Requests that the read-ahead keeps in flight.
    pub connections: u64,
}

/// What pulls, serves and runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// CPUs that workload and daemons share.
    pub cores: u64,
    /// Milliseconds that creating a container waits for the prefetch in front of the landmark (`prefetch_timeout_sec`).
    pub prefetch_wait_ms: u64,
    /// Milliseconds of a pull that are no request.
    pub pull_ms: u64,
    /// Milliseconds to create and start a container whose layers are there.
    pub create_ms: u64,
    /// Milliseconds that a hot layer adds to a pull besides its requests, bytes and unpacking.
    pub hot_layer_ms: u64,
    /// Microseconds to unpack a file, whatever its size.
    pub unpack_file_us: u64,
    /// Microseconds to unpack and hash a MB.
    pub unpack_mb_us: u64,
    /// MB/s that containerd fetches, hashes and keeps of whole layers, however fast the link.
    pub store_mb: u64,
    /// MB/s (decompressed) of containerd's gunzip, which runs on one core.
    pub gunzip_mb: u64,
    /// MB/s (decompressed) of containerd's zstd.
    pub zstd_mb: u64,
    /// MB/s of touched bytes read from the disk while the workload waits.
    pub disk_mb: u64,
    /// Microseconds for a small file through FUSE that the snapshotter has: look-up, open, read, release.
    pub fuse_file_us: u64,
    /// Microseconds more where it has to be fetched; without the request.
    pub fuse_first_us: u64,
    /// CPU microseconds for a MB that goes through FUSE.
    pub fuse_mb_us: u64,
    /// CPU microseconds of the snapshotter to inflate a MB of gzip (decompressed).
    pub inflate_mb_us: u64,
    /// The same of zstd:chunked.
    pub zstd_inflate_mb_us: u64,
    /// CPU microseconds of the snapshotter to verify and keep a MB of chunks.
    pub keep_mb_us: u64,
    /// CPU microseconds of the snapshotter for a chunk.
    pub chunk_us: u64,
    /// CPU microseconds of the snapshotter for a region that it fetches.
    pub region_us: u64,
    /// CPU microseconds on the node for a MB over the link.
    pub wire_mb_us: u64,
    /// Of the daemons' CPU time for reads on demand, percent that the workload waits for.
    pub wait_percent: u64,
    /// Microseconds of the workload to compile source into a MB of bytecode.
    pub bytecode_mb_us: u64,
}

/// A model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No preset of that name.
    #[error("unknown {what} {name:?}: expected {expected}")]
    Unknown {
        /// `model` or `link`.
        what: &'static str,
        /// As asked for.
        name: String,
        /// Those that are.
        expected: String,
    },
    /// No JSON, or not of a model.
    #[error("not a model: {0}")]
    Json(String),
    /// A value out of its range.
    #[error("{key} is {found}: expected {least} to {most}")]
    Range {
        /// Which one.
        key: String,
        /// Its value.
        found: u64,
        /// Least that is taken.
        least: u64,
        /// Most that is taken.
        most: u64,
    },
}

/// Names of the models that are built in.
pub const MODELS: [&str; 2] = ["rig", "gke-l4"];
/// Names of the links that are built in.
pub const LINKS: [&str; 4] = ["rig", "gke-ar", "lan", "slow"];

impl Link {
    /// A link that is built in: `rig` is that of the measurements, the others are estimates.
    pub fn preset(name: &str) -> Result<Self, Error> {
        let link =
            |latency_ms, bandwidth_mb, connection_mb| Self { latency_ms, bandwidth_mb, connection_mb, connections: 16 };
        Ok(match name {
            // vllm: 30 ms, 400 MB/s over all connections, none of its own; 16 threads read ahead (exp, lesson 5).
            "rig" => link(30, 400, 400),
            // Estimates, the same as those that a benchmark shapes its link to; docs/bench.md says where they come from.
            "gke-ar" => link(40, 400, 100),
            "lan" => link(2, 1100, 1100),
            "slow" => link(120, 45, 15),
            _ => return Err(Error::Unknown { what: "link", name: name.into(), expected: LINKS.join(", ") }),
        })
    }

    /// KB/s of each of so many connections that are busy at once.
    pub(super) fn each_kb(&self, connections: u64) -> u64 {
        kb(self.connection_mb).min(kb(self.bandwidth_mb) / connections.max(1)).max(1)
    }

    /// Microseconds for bytes on one connection that has the link for itself.
    pub(super) fn alone_us(&self, bytes: u64) -> u64 {
        at_rate(bytes, self.each_kb(1))
    }
}

/// KB/s.
pub(super) fn kb(mb: u64) -> u64 {
    mb.saturating_mul(1000).max(1)
}

/// Microseconds for bytes at so many KB/s.
pub(super) fn at_rate(bytes: u64, kb: u64) -> u64 {
    scaled(bytes, 1000, kb)
}

impl Model {
    /// The same node behind another link, as a benchmark shapes it: 0 MB/s means no limit.
    #[must_use]
    pub fn behind(mut self, latency_ms: u64, bandwidth_mb: u64, connection_mb: u64) -> Self {
        let limit = |mb: u64| if mb == 0 { MOST_MB } else { mb };
        let (bandwidth_mb, connection_mb) = (limit(bandwidth_mb), limit(connection_mb).min(limit(bandwidth_mb)));
        self.link = Link { latency_ms, bandwidth_mb, connection_mb, ..self.link };
        self
    }

    /// A model that is built in: `rig` is fitted to measurements, `gke-l4` is estimated from it.
    pub fn preset(name: &str) -> Result<Self, Error> {
        let rig = Node {
            // vllm, exp: registry, link, snapshotter and workload share two.
            cores: 2,
            // scripts/stack.d/stargz.toml.
            prefetch_wait_ms: 120_000,
            // vllm: 0.61 s for a lazy pull of 4 layers less its requests; fitted.
            pull_ms: 280,
            // vllm: 0.23 to 0.28 s in every arm.
            create_ms: 250,
            // vllm, exp: hot layers of 7,180 files and 365 MB (3.8 to 4.3 s), and with bytecode of 12,000 and 460 MB (3.8 to
            // 4.6 s); three figures fitted to these.
            hot_layer_ms: 500,
            unpack_file_us: 80,
            unpack_mb_us: 2800,
            // vllm: 4,518 MB in 16 to 22 s behind 400 and 1,100 MB/s; the registry reads them from the same disk.
            store_mb: 270,
            // vllm, exp: the original's pulls of 71 to 115 s (8,480 MB, 41,000 files) less its largest layer's bytes and its
            // unpacking; fitted. The day of 136 s is left out.
            gunzip_mb: 220,
            // exp: 475 MB in 3.3 to 4.8 s with its unpacking; estimate of the share.
            zstd_mb: 830,
            // vllm: cold arms, whose files are in the page cache, are ready 2 to 7 s sooner than warm ones, and 4 s than the limit; exp:
            // at the same time. Median of 4.2 s for 696 MB.
            disk_mb: 170,
            // vllm: landmark, whose files are all prefetched, against warm: 3 s for 7,180; the mini image: 0.4 s for 1,740.
            // exp, lesson 2, says twice as much. Fitted.
            fuse_file_us: 500,
            // vllm: plain against hot, less the requests, says 2.0 ms with 5,000 look-ups besides, the mini image 1.0 ms;
            // between them.
            fuse_first_us: 1500,
            // exp: CPU of the read-ahead arms that is not the snapshotter's; fitted.
            fuse_mb_us: 7000,
            // vllm: 81.5 CPU-s of landmark for 5,690 MB; exp, lesson 4: stored against level 1. Fitted.
            inflate_mb_us: 9000,
            // Estimate: a third of gzip; not measured in the snapshotter.
            zstd_inflate_mb_us: 3000,
            // exp, lesson 4: sha256 is 7 % of the snapshotter's CPU; the rest of 6 CPU-s with stored chunks. Fitted.
            keep_mb_us: 2700,
            // exp, lesson 5: half of the CPU with stored chunks is system calls by region and chunk; shares so that the CPU of
            // landmark comes out for vllm (81.5 s, 5,690 MB, 8,600 chunks) and for the mini image (3.4 s, 258 MB, 1,740
            // chunks).
            chunk_us: 300,
            region_us: 5000,
            // vllm: what landmark's 44 s on two cores leave beside the snapshotter's 81.5 CPU-s, for 3,240 MB; registry and link.
            wire_mb_us: 2300,
            // vllm: hot against warm, 12 to 17 s, less requests and bytes; fitted.
            wait_percent: 20,
            // exp: 30.9 against 16.7 s with 4,984 files, 102 MB.
            bytecode_mb_us: 139_000,
        };
        Ok(match name {
            "rig" => Self { link: Link::preset("rig")?, node: rig },
            "gke-l4" => Self {
                link: Link::preset("gke-ar")?,
                // Estimates: g2-standard-8 has 8 vCPU, one of them as fast as the rig's; neither registry nor link runs on
                // them, so a MB costs the kernel's work and TLS; the snapshotter's stock configuration waits 10 s. All else is
                // the rig's.
                node: Node { cores: 8, prefetch_wait_ms: 10_000, wire_mb_us: 1000, ..rig },
            },
            _ => return Err(Error::Unknown { what: "model", name: name.into(), expected: MODELS.join(", ") }),
        })
    }

    /// Reads a model: `{"base": "rig", "link": {"latency_ms": 5}, "node": {"cores": 4}}`. What is left out is the base's, which
    /// is `rig` unless it says otherwise. Keys that are no model's and values out of range are refused.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let json = |e: serde_json::Error| Error::Json(e.to_string());
        let mut over: Value = serde_json::from_str(text).map_err(json)?;
        let object = over.as_object_mut().ok_or_else(|| Error::Json("expected an object".into()))?;
        let base = match object.remove("base") {
            None => MODELS[0].to_owned(),
            Some(Value::String(name)) => name,
            Some(_) => return Err(Error::Json("base: expected a name".into())),
        };
        let mut value = serde_json::to_value(Self::preset(&base)?).map_err(json)?;
        for (key, part) in object {
            match (value.get_mut(key).and_then(Value::as_object_mut), part.as_object_mut()) {
                (Some(into), Some(from)) => into.extend(std::mem::take(from)),
                // No part of a model, or no object: said by what reads it.
                _ => value[key.as_str()] = part.take(),
            }
        }
        let model: Self = serde_json::from_value(value).map_err(json)?;
        model.check()?;
        Ok(model)
    }

    /// Whether every value is one that can be calculated with.
    pub fn check(&self) -> Result<(), Error> {
        let value = serde_json::to_value(self).map_err(|e| Error::Json(e.to_string()))?;
        for (part, values) in value.as_object().into_iter().flatten() {
            for (key, number) in values.as_object().into_iter().flatten() {
                let found = number.as_u64().unwrap_or(u64::MAX);
                let (least, most) = range(key);
                if !(least..=most).contains(&found) {
                    return Err(Error::Range { key: format!("{part}.{key}"), found, least, most });
                }
            }
        }
        Ok(())
    }
}

/// MB/s that are as good as no limit.
const MOST_MB: u64 = 1_000_000;

/// Least and most that makes sense. Speeds divide, so none of them is 0.
fn range(key: &str) -> (u64, u64) {
    match key {
        "cores" | "connections" => (1, 1024),
        "wait_percent" => (0, 100),
        "latency_ms" => (0, 60_000),
        "prefetch_wait_ms" | "pull_ms" | "hot_layer_ms" | "create_ms" => (0, 3_600_000),
        "bandwidth_mb" | "connection_mb" | "store_mb" | "gunzip_mb" | "zstd_mb" | "disk_mb" => (1, MOST_MB),
        _ => (0, 10_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_in_range_and_others_are_named() {
        for name in MODELS {
            Model::preset(name).expect("a model").check().expect("in range");
        }
        for name in LINKS {
            Link::preset(name).expect("a link");
        }
        let error = Model::preset("moon").expect_err("none").to_string();
        assert_eq!(error, "unknown model \"moon\": expected rig, gke-l4");
        assert_eq!(
            Link::preset("x").expect_err("none").to_string(),
            "unknown link \"x\": expected rig, gke-ar, lan, slow"
        );
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let model = Model::from_json(r#"{"link": {"latency_ms": 5}, "node": {"cores": 4}}"#).expect("a model");
        let mut expected = Model::preset("rig").expect("rig");
        (expected.link.latency_ms, expected.node.cores) = (5, 4);
        assert_eq!(model, expected);
        assert_eq!(Model::from_json(r#"{"base": "gke-l4"}"#).expect("a model"), Model::preset("gke-l4").expect("it"));
        let whole = serde_json::to_string(&expected).expect("JSON");
        assert_eq!(Model::from_json(&whole).expect("a model"), expected, "what is printed can be read");
    }

    #[test]
    fn a_shaped_link_without_a_limit_is_a_fast_one() {
        let model = Model::preset("rig").expect("rig").behind(7, 0, 0);
        assert_eq!(
            (model.link.latency_ms, model.link.bandwidth_mb, model.link.connection_mb),
            (7, 1_000_000, 1_000_000)
        );
        model.check().expect("in range");
        let link = Model::preset("rig").expect("rig").behind(7, 50, 400).link;
        assert_eq!(
            (link.bandwidth_mb, link.connection_mb, link.connections),
            (50, 50, 16),
            "no connection has more than all"
        );
    }

    #[test]
    fn what_is_no_model_is_refused_with_the_reason() {
        for (text, word) in [
            ("", "not a model"),
            ("[]", "expected an object"),
            (r#"{"nodes": {}}"#, "unknown field `nodes`"),
            (r#"{"node": {"core": 1}}"#, "unknown field `core`"),
            (r#"{"node": 3}"#, "invalid type"),
            (r#"{"node": {"cores": "2"}}"#, "invalid type"),
            (r#"{"node": {"cores": -1}}"#, "invalid value"),
            (r#"{"node": {"cores": 0}}"#, "node.cores is 0: expected 1 to 1024"),
            (r#"{"link": {"bandwidth_mb": 0}}"#, "link.bandwidth_mb is 0"),
            (r#"{"node": {"wait_percent": 101}}"#, "expected 0 to 100"),
            (r#"{"base": "moon"}"#, "unknown model"),
            (r#"{"base": 1}"#, "expected a name"),
        ] {
            let error = Model::from_json(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
