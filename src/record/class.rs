//! What a file that start-up wrote is for, and whether its content may ever leave the container it was written in. Errs on the side of
//! staying: a captured file is meant to be shipped in an image. `convert` judges an archive by the same rules, whoever made it.

use std::path::Path;

/// A class of written files, by its name in the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    /// As the profile has it.
    pub name: &'static str,
    /// Whether a capture holds such files.
    pub shipped: bool,
    /// Whether its content comes from the image alone, so that it holds no secret that the image does not.
    pub trusted: bool,
}

const fn class(name: &'static str, shipped: bool) -> Class {
    Class { name, shipped, trusted: false }
}

/// Python bytecode.
pub(crate) const BYTECODE: Class = Class { trusted: true, ..class("bytecode", true) };
/// What torch.compile, Inductor, Triton, `FlashInfer` or the CUDA driver compiled: bound to GPU, driver and versions.
pub(crate) const COMPILED: Class = class("compile-cache", true);
/// What a hub client or a server notes about a model, not its weights.
pub(crate) const METADATA: Class = class("model-metadata", true);
/// Another cache.
pub(crate) const CACHE: Class = class("cache", true);
/// A file of the kind that holds credentials.
pub(crate) const SECRET: Class = class("secret", false);
/// A log.
pub(crate) const LOG: Class = class("log", false);
/// In a place that does not last, or a lock or pid file.
pub(crate) const TEMPORARY: Class = class("temporary", false);
/// What a container runtime puts into every container.
pub(crate) const INJECTED: Class = class("injected", false);
/// Model weights: too large to be shipped beside an image.
pub(crate) const WEIGHTS: Class = class("weights", false);
/// Anything else.
pub(crate) const OTHER: Class = class("other", true);

/// Those that may be shipped.
pub(crate) const SHIPPED: [Class; 5] = [BYTECODE, COMPILED, METADATA, CACHE, OTHER];
/// A credential in a larger file would stand at its beginning.
pub(crate) const HEAD: usize = 64 << 10;
/// What a hub's client notes is small; its weights are not, and have no telling name there.
const LARGEST_METADATA: u64 = 16 << 20;

/// Names and folders of credentials.
const SECRET_NAMES: [&str; 16] = [
    "token",
    "stored_tokens",
    ".netrc",
    "_netrc",
    "credentials",
    "credentials.json",
    "application_default_credentials.json",
    ".git-credentials",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    "kubeconfig",
    "shadow",
    "gshadow",
    ".bash_history",
    ".python_history",
];
const SECRET_PARTS: [&str; 10] = [
    "/.ssh/",
    "/.aws/",
    "/.azure/",
    "/.gnupg/",
    "/.kube/",
    "/.config/gcloud/",
    "/.docker/config.json",
    "/secrets/",
    "/.huggingface/token",
    "/.vault-token",
];
const SECRET_EXTENSIONS: [&str; 6] = ["key", "pem", "p12", "pfx", "jks", "keytab"];
const COMPILED_PARTS: [&str; 13] = [
    "/torchinductor_",
    "/torch_compile_cache/",
    "/torch_aot_compile/",
    "/.triton/",
    "/triton_cache/",
    "/.cache/vllm/",
    "/.cache/flashinfer/",
    "/.cache/torch_extensions/",
    "/.cache/torch/kernels/",
    "/.nv/ComputeCache/",
    "/.cache/tvm",
    "/deep_gemm/",
    "/.cache/cutlass",
];

impl Class {
    /// The class of a file of this many bytes whose path is of this class.
    pub(crate) fn of_size(self, size: u64) -> Self {
        if self == METADATA && size > LARGEST_METADATA { WEIGHTS } else { self }
    }
}

/// The class of an absolute path inside the container.
pub(crate) fn of(path: &str) -> Class {
    let has = |parts: &[&str]| parts.iter().any(|p| path.contains(p));
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    if SECRET_NAMES.contains(&name)
        || has(&SECRET_PARTS)
        || SECRET_EXTENSIONS.contains(&extension)
        || name.starts_with("id_rsa")
        || name.starts_with("id_ed25519")
        || name.starts_with(".env")
    {
        SECRET
    } else if matches!(
        path,
        "/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf" | "/etc/mtab" | "/.dockerenv" | "/etc/ld.so.cache"
    ) {
        // The linker's cache is made again by the runtime's hooks for the driver that they mount.
        INJECTED
    } else if extension == "pyc" && path.contains("/__pycache__/") {
        if is_fleeting(path) { TEMPORARY } else { BYTECODE }
    } else if path.contains("/modelinfos/") && extension == "json" {
        // vLLM's, in the middle of its compile caches: what it found out of a model's class, bound to the source by a hash and
        // to no hardware. A start without it imports everything once more, in a process of its own.
        if is_fleeting(path) { TEMPORARY } else { METADATA }
    } else if has(&COMPILED_PARTS) {
        // Inductor's default is below /tmp: named as what it is; nothing below /tmp is captured.
        if is_fleeting(path) { Class { shipped: false, ..COMPILED } } else { COMPILED }
    } else if is_fleeting(path) || matches!(extension, "tmp" | "lock" | "pid" | "sock") {
        TEMPORARY
    } else if matches!(extension, "log") || path.starts_with("/var/log/") || has(&["/logs/"]) {
        LOG
    } else if matches!(extension, "safetensors" | "gguf")
        || matches!(extension, "bin" | "pt" | "pth") && has(&["/huggingface/", "/models--", "/hub/"])
    {
        WEIGHTS
    } else if has(&["/huggingface/hub/", "/models--", "/.cache/huggingface/"]) {
        // The hub's blobs have no extension: what is large is weights, which the capture sees by the size.
        METADATA
    } else if has(&["/.cache/", "/cache/", "_cache/", "/.config/"]) {
        CACHE
    } else {
        OTHER
    }
}

/// Places that no image should bring along.
fn is_fleeting(path: &str) -> bool {
    ["/tmp/", "/var/tmp/", "/run/", "/var/run/", "/dev/", "/proc/", "/sys/"].iter().any(|d| path.starts_with(d))
}

/// Whether content gives itself away as a credential, whatever its name is; of a large file its first [`HEAD`] bytes are enough.
pub(crate) fn holds_secret(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") || super::redact::has_token(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_are_classed_by_path() {
        for (path, want) in [
            ("/usr/lib/__pycache__/a.cpython-312.pyc", BYTECODE),
            ("/tmp/__pycache__/a.cpython-312.pyc", TEMPORARY),
            ("/root/.cache/vllm/torch_compile_cache/ab/x", COMPILED),
            ("/root/.cache/vllm/modelinfos/vllm-model_executor-models-llama-ab.json", METADATA),
            ("/tmp/vllm/modelinfos/vllm-model_executor-models-llama-ab.json", TEMPORARY),
            ("/root/.triton/cache/AB/k.cubin", COMPILED),
            ("/root/.nv/ComputeCache/index", COMPILED),
            ("/root/.cache/huggingface/hub/models--m/refs/main", METADATA),
            ("/root/.cache/huggingface/hub/models--m/snapshots/x/model.safetensors", WEIGHTS),
            ("/root/.cache/huggingface/token", SECRET),
            ("/root/.netrc", SECRET),
            ("/home/u/.ssh/known_hosts", SECRET),
            ("/root/.config/gcloud/credentials.db", SECRET),
            ("/srv/tls/server.key", SECRET),
            ("/app/.env.local", SECRET),
            ("/root/.cache/matplotlib/fontlist.json", CACHE),
            ("/tmp/x", TEMPORARY),
            ("/run/secrets/x", SECRET),
            ("/opt/x.lock", TEMPORARY),
            ("/var/log/a", LOG),
            ("/etc/resolv.conf", INJECTED),
            ("/opt/x", OTHER),
        ] {
            assert_eq!(of(path), want, "{path}");
        }
        assert!(SHIPPED.iter().all(|c| c.shipped));
        assert_eq!((METADATA.of_size(16 << 20), METADATA.of_size((16 << 20) + 1)), (METADATA, WEIGHTS));
        assert!(!of("/tmp/torchinductor_root/ab/x.so").shipped);
        assert_eq!(of("/tmp/torchinductor_root/ab/x.so").name, COMPILED.name);
    }

    #[test]
    fn content_gives_secrets_away() {
        assert!(holds_secret(b"x\n-----BEGIN RSA PRIVATE KEY-----\nMII"));
        assert!(holds_secret(b"{\"t\": \"hf_abcdefghijklmnopqrstuvwxyz0123456789\"}"));
        assert!(!holds_secret(b"-----BEGIN CERTIFICATE-----\nMII"));
        assert!(holds_secret(b"\x1ahf_abcdefghijklmnopqrstuvwxyz0123456789z"), "as marshal writes it");
        assert!(!holds_secret(b"a task-specific-configuration_of_hf_text_config_attributes"));
        assert!(!holds_secret(b"hf_short and \xff\xfe bytes"));
    }
}
