//! OCI values: references, descriptors, manifests and configs, and patching their JSON without losing a field.
//!
//! Typed reading goes through `oci-spec`; what is written is always the original JSON value with the fields in question
//! replaced, because a round trip through the types drops unknown ones. A layer's media type decides how it is decompressed.
//! Bytes at rest and HTTP are not known here.
//! Spec: <https://github.com/opencontainers/image-spec>, v1.1.

pub mod layer;
pub mod manifest;
pub mod reference;
pub mod wrapped;

pub use manifest::{Config, Descriptor, Image, Manifest};
pub use reference::Reference;

/// Media types and annotation keys, spelled once.
pub mod names {
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// The empty JSON object, as the config of what is no image.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Uncompressed layer.
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Gzip layer; eStargz is one.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// Zstandard layer.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest, schema 1: refused everywhere.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker manifest, schema 1, signed: refused everywhere.
    pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker gzip layer.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker zstd layer, as some builders write it.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker uncompressed layer.
    pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

    /// Layer annotation: digest of the TOC JSON. The snapshotter mounts nothing without it.
    pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
    /// Layer annotation: bytes of the whole decompressed stream, read by CRI-O and Podman.
    pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
    /// Layer annotation of zstd:chunked, as the stargz snapshotter writes it: digest of the compressed TOC. Podman's own keys
    /// begin with `io.github.containers`; a layer that has those and [`TOC_DIGEST`] it refuses.
    pub const CHUNKED_CHECKSUM: &str = "io.containers.zstd-chunked.manifest-checksum";
    /// Layer annotation of zstd:chunked: offset, compressed and raw length, and type of the TOC.
    pub const CHUNKED_POSITION: &str = "io.containers.zstd-chunked.manifest-position";
    /// Layer annotation of ours: `estargz`, `zstd:chunked` or `hot`.
    pub const LAYER_KIND: &str = "dev.esgz.layer.kind";
    /// Layer annotation of ours: digest of the layer it was made from.
    pub const LAYER_SOURCE: &str = "dev.esgz.layer.source";
    /// Layer annotation of ours, on a hot layer: digest over the diffIDs of the layers whose copies it holds.
    pub const LAYER_BELOW: &str = "dev.esgz.layer.below";
    /// Layer annotation of ours, on a hot layer: `true` where it holds files that the layers below have not.
    pub const LAYER_MOVED: &str = "dev.esgz.layer.moved";
    /// Layer annotation of ours, on a hot layer: digest over the files that it adds to the image, where it adds any.
    pub const LAYER_ADDED: &str = "dev.esgz.layer.added";
    /// Layer annotation of ours, beside it: how many of these files are of which class.
    pub const LAYER_ADDED_CLASSES: &str = "dev.esgz.layer.added.classes";
    /// Beginning of layer annotations of ours: facts about the machine that the compiled caches among these files were made on.
    pub const LAYER_HOST: &str = "dev.esgz.layer.host.";
    /// Layer annotation of ours: digest over everything that decides the layer's bytes.
    pub const LAYER_KEY: &str = "dev.esgz.layer.key";
    /// Manifest annotation of ours: digest over everything that decides the image.
    pub const KEY: &str = "dev.esgz.key";
    /// Manifest annotation: digest of the image that this one was made from (OCI image spec, "Pre-Defined Annotation Keys").
    pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
    /// Annotation of an index entry: what it is that is no image (`attestation-manifest`, written by `BuildKit`).
    pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    /// Annotation of such an entry: digest of the manifest that it is about.
    pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
    /// Manifest annotation of ours: encoder name, version and options that decide the bytes.
    pub const ENCODER: &str = "dev.esgz.encoder";
    /// Manifest annotation of ours: the layout chosen.
    pub const LAYOUT: &str = "dev.esgz.layout";
    /// Manifest annotation: when what it holds was made (OCI image spec, "Pre-Defined Annotation Keys").
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// Type of an artifact of ours: the profile of an image.
    pub const PROFILE: &str = "application/vnd.esgz.profile.v1+json";
    /// Its only layer: the profile file, compressed.
    pub const PROFILE_ZSTD: &str = "application/vnd.esgz.profile.v1+json+zstd";
    /// Annotation of such an artifact: what tells it from the other profiles of the image.
    pub const PROFILE_NAME: &str = "dev.esgz.profile.name";
    /// Annotation of such an artifact: the recorder.
    pub const PROFILE_RECORDER: &str = "dev.esgz.profile.recorder";
    /// Annotation of such an artifact: the version of the program that recorded.
    pub const PROFILE_VERSION: &str = "dev.esgz.profile.version";
    /// Annotation of such an artifact: what ended the recording.
    pub const PROFILE_UNTIL: &str = "dev.esgz.profile.until";
    /// Annotation of such an artifact: the GPU of the machine, where there was one.
    pub const PROFILE_GPU: &str = "dev.esgz.profile.gpu";
    /// Manifest annotation of ours: what a start reads of the lazy layers, as `profile::carried` packs it, for a reader on the node.
    pub const WARM: &str = "dev.esgz.warm";
    /// Manifest annotation of ours: the entrypoint of the original as JSON, where the image starts with its embedded read-ahead.
    pub const ENTRYPOINT: &str = "dev.esgz.entrypoint";
    /// Manifest annotation of ours: manifest digest of the image that was converted.
    pub const SOURCE: &str = "dev.esgz.source.digest";
}

/// Why JSON from a store is not the image value it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a reference.
    #[error("invalid image reference {found:?}: {why}")]
    Reference {
        /// What was given.
        found: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// JSON that does not parse, or not into the type.
    #[error("{what} is not valid JSON of its kind")]
    Json {
        /// Which object.
        what: String,
        /// The parser's complaint.
        #[source]
        source: serde_json::Error,
    },
    /// A field is missing or has the wrong value.
    #[error("{what}: {why}")]
    Value {
        /// Which object.
        what: String,
        /// Expected and found.
        why: String,
    },
    /// A media type that is not handled.
    #[error("{what} has media type {found:?}: expected {expected}")]
    MediaType {
        /// Which object.
        what: String,
        /// The media type as found.
        found: String,
        /// What is handled.
        expected: &'static str,
    },
}
