//! Landmarks: one-byte files in the root that tell the snapshotter how much of a layer to prefetch.
//!
//! With [`PREFETCH`] the snapshotter fetches the blob up to the landmark's member as soon as the layer is mounted; with
//! [`NO_PREFETCH`] nothing. A layer without either gets the snapshotter's configured default, so every layer has one.

/// Stands behind the prioritized files.
pub const PREFETCH: &str = ".prefetch.landmark";
/// First entry of a layer in which nothing is prioritized.
pub const NO_PREFETCH: &str = ".no.prefetch.landmark";
/// Content of both.
pub const CONTENT: u8 = 0x0f;

/// Files in the root that the format itself puts there; they belong to no image.
pub fn is_ours(path: &str) -> bool {
    matches!(path, PREFETCH | NO_PREFETCH | super::toc::NAME)
}
