//! A layer's blob as its uncompressed archive.

use std::io::{BufReader, Read};

use super::{Error, names};

/// Largest buffer that one step asks of the blob; large enough that its call costs nothing beside the work.
const READ: usize = 1 << 18;

/// Whether layers of this media type are gzip members.
pub fn is_gzip(media_type: &str) -> bool {
    matches!(media_type, names::LAYER_GZIP | names::DOCKER_LAYER_GZIP)
}

/// Opens a layer of this media type as its uncompressed archive. Gzip members and zstd frames may follow one another.
pub fn decompress<'a>(media_type: &str, blob: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, Error> {
    let blob = BufReader::with_capacity(READ, blob);
    Ok(match media_type {
        _ if is_gzip(media_type) => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        names::LAYER_ZSTD | names::DOCKER_LAYER_ZSTD => {
            let stream = zstd::stream::read::Decoder::with_buffer(blob);
            Box::new(stream.map_err(|e| Error::Value { what: "the zstd decoder".into(), why: e.to_string() })?)
        }
        names::LAYER_TAR | names::DOCKER_LAYER_TAR => Box::new(blob),
        found => {
            let expected = if found.contains("foreign") || found.contains("nondistributable") {
                "a layer whose content is in the registry; re-create the image without foreign layers"
            } else {
                "an OCI or Docker layer: tar, tar+gzip or tar+zstd"
            };
            return Err(Error::MediaType { what: "the layer".into(), found: found.into(), expected });
        }
    })
}
