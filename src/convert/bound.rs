//! What is bound to the digest of the source: attestations in its index, and the `subject` of a referrer. A converted manifest
//! has another digest, so that neither is true of it; the source keeps both, and annotations of the result name the source.

use serde_json::Value;

use crate::digest::Digest;
use crate::image::Image;
use crate::progress::Progress;

/// Says that entries of an index which are no images are left out. `source`: digest of the index or image they stay with.
pub(super) fn left_out(others: &[Digest], source: &Digest, progress: &dyn Progress) {
    let (count, are, they) = match others {
        [] => return,
        [one] => (format!("1 attestation, signature or artifact ({one})"), "is", "it is bound to the digest"),
        several => {
            (format!("{} attestations, signatures or artifacts", several.len()), "are", "they are bound to digests")
        }
    };
    progress.warn(&format!(
        "{count} of the source {are} left out: {they} of the source, which the result does not have; the original stays \
         reachable as {source}"
    ));
}

/// Takes the `subject` off a manifest or index (OCI image spec, "Image Manifest Property Descriptions"): the source was
/// attached to that subject, and a second image of the same kind attached to it would be listed beside the source.
pub(super) fn drop_subject(raw: &mut Value, source: &Digest, progress: &dyn Progress) {
    let Some(subject) = raw.as_object_mut().and_then(|o| o.shift_remove("subject")) else { return };
    let subject = subject.get("digest").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    progress.warn(&format!(
        "the source is attached to {subject:?} as its subject; the result is not, and the original {source} stays attached"
    ));
}

/// Both, for the manifest of one image.
pub(super) fn release(image: &mut Image, progress: &dyn Progress) {
    let source = image.descriptor.digest;
    left_out(&image.attestations, &image.index.unwrap_or(source), progress);
    drop_subject(&mut image.manifest.raw, &source, progress);
}
