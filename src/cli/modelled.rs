//! `--model`, `--link` and what changes them: the node and link that a prediction is for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Failure;
use crate::plan::{Link, MODELS, Model};

/// Largest model file that is read, bytes.
const MAX_MODEL: u64 = 64 << 10;

/// The node and the link that a prediction is for.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Prediction")]
pub(super) struct Modelled {
    /// Node and link: rig (the measured one: 2 cores), gke-l4 (8 vCPU; estimates), or a JSON file of what differs from them
    /// [default: rig]
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Link to the registry: rig (30 ms, 400 MB/s), gke-ar, lan, slow (estimates) [default: the model's]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["latency_ms", "bandwidth_mb"])]
    link: Option<String>,
    /// Milliseconds from a request to its answer
    #[arg(long, value_name = "N")]
    latency_ms: Option<u64>,
    /// MB/s of all connections together, and of one
    #[arg(long, value_name = "N")]
    bandwidth_mb: Option<u64>,
    /// CPUs of the node
    #[arg(long, value_name = "N")]
    cores: Option<u64>,
}

impl Modelled {
    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.model.is_some()
            || self.link.is_some()
            || self.latency_ms.is_some()
            || self.bandwidth_mb.is_some()
            || self.cores.is_some()
    }

    /// The model. What is no model is a failure of usage.
    pub(super) fn read(&self) -> Result<Model, Failure> {
        let usage = |flag: &str, e: &dyn std::fmt::Display| Failure::new(2, format!("{flag}: {e}"));
        let name = self.model.as_deref().unwrap_or(MODELS[0]);
        let mut model = if MODELS.contains(&name) {
            Model::preset(name).map_err(|e| usage("--model", &e))?
        } else {
            let text = text(Path::new(name)).map_err(|e| {
                usage("--model", &format_args!("{name}: {e}"))
                    .hint(format!("expected {} or a JSON file", MODELS.join(", ")))
            })?;
            Model::from_json(&text).map_err(|e| usage("--model", &format_args!("{name}: {e}")))?
        };
        if let Some(link) = &self.link {
            model.link = Link::preset(link).map_err(|e| usage("--link", &e))?;
        }
        if let Some(latency) = self.latency_ms {
            model.link.latency_ms = latency;
        }
        if let Some(bandwidth) = self.bandwidth_mb {
            (model.link.bandwidth_mb, model.link.connection_mb) = (bandwidth, bandwidth);
        }
        if let Some(cores) = self.cores {
            model.node.cores = cores;
        }
        model.check().map_err(|e| usage("prediction", &e))?;
        Ok(model)
    }
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_MODEL + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_MODEL {
        return Err(std::io::Error::other(format!("expected at most {MAX_MODEL} bytes")));
    }
    Ok(text)
}
