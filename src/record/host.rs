//! Facts about the machine that explain a profile's figures.

use std::collections::BTreeMap;
use std::fs;

/// Kernel, processors and their model, memory, GPU and its driver, as far as `/proc` tells.
pub(crate) fn facts() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(v) = value.filter(|v| !v.is_empty()) {
            out.insert(key.to_owned(), v);
        }
    };
    let read = |path: &str| fs::read_to_string(path).ok();
    put("kernel", read("/proc/sys/kernel/osrelease").map(|t| t.trim().to_owned()));
    put("cpus", std::thread::available_parallelism().ok().map(|n| n.to_string()));
    put("cpu_model", read("/proc/cpuinfo").and_then(|t| cpu_model(&t)));
    put(
        "memory_kib",
        read("/proc/meminfo").and_then(|t| Some(t.lines().next()?.split_whitespace().nth(1)?.to_owned())),
    );
    put("nvidia_driver", read("/proc/driver/nvidia/version").and_then(|t| nvidia_version(&t)));
    let mut gpus: Vec<String> = fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|gpu| {
            let text = fs::read_to_string(gpu.path().join("information")).ok()?;
            Some(text.lines().find_map(|l| l.strip_prefix("Model:"))?.trim().to_owned())
        })
        .collect();
    gpus.sort();
    put("gpus", Some(gpus.join(", ")));
    out
}

/// Packages whose versions are noted.
pub(crate) const PACKAGES: [&str; 6] =
    ["torch", "triton", "vllm", "flashinfer_python", "transformers", "nvidia_cuda_runtime"];
/// Facts of the machine that compiled code is bound to.
pub(crate) const HARDWARE: [&str; 3] = ["cpu_model", "gpus", "nvidia_driver"];

/// What compiled caches are bound to beside the hardware: versions of packages, by the folders that installers leave beside them.
pub(crate) fn versions<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for path in paths {
        let Some(info) = path.strip_suffix(".dist-info/METADATA") else { continue };
        let name = info.rsplit('/').next().unwrap_or(info);
        if let Some((package, version)) = name.split_once('-')
            && let Some(known) = PACKAGES.iter().find(|p| p.eq_ignore_ascii_case(package))
        {
            out.insert((*known).to_owned(), version.to_owned());
        }
    }
    out
}

/// The model out of `model name : …`; arm64 has no such line.
fn cpu_model(text: &str) -> Option<String> {
    let (_, model) = text.lines().find(|l| l.starts_with("model name"))?.split_once(':')?;
    Some(model.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The version out of `NVRM version: NVIDIA UNIX ... Kernel Module  580.95.05  Tue Sep ...`.
fn nvidia_version(text: &str) -> Option<String> {
    let is_version = |w: &&str| w.contains('.') && w.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.lines().next()?.split_whitespace().find(is_version).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_version_is_found_in_both_wordings() {
        for text in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.2.0",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.183.01  Release Build",
        ] {
            assert_eq!(nvidia_version(text).as_deref(), Some("535.183.01"));
        }
    }

    #[test]
    fn the_processor_is_named_once() {
        let text =
            "processor\t: 0\nmodel name\t: Intel(R)  Xeon(R) CPU @ 2.20GHz\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(cpu_model(text).as_deref(), Some("Intel(R) Xeon(R) CPU @ 2.20GHz"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }

    #[test]
    fn versions_of_packages_are_read_from_their_folders() {
        let paths = [
            "/l/torch-2.10.0+cpu.dist-info/METADATA",
            "/l/torchvision-0.1.dist-info/METADATA",
            "/l/torch-2.10.0+cpu.dist-info/RECORD",
        ];
        assert_eq!(versions(paths.into_iter()), [("torch".to_owned(), "2.10.0+cpu".to_owned())].into());
    }

    #[test]
    fn the_kernel_is_always_known() {
        assert!(facts().contains_key("kernel"));
    }
}
