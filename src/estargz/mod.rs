//! The eStargz format: footer, TOC, landmarks, a reader and a writer. Files, threads and HTTP are not known here.
//!
//! ```text
//! member     one or more tar headers (with the padding of the payload before them)
//! member     payload of one chunk            <- `offset` in the TOC
//! member     payload of the file's next chunk
//! ...
//! member     tar header "stargz.index.json", JSON, padding, two zero blocks     <- the TOC: exactly one gzip member
//! footer     51 bytes: an empty gzip member whose extra field holds the TOC's offset
//! ```
//!
//! Decompressed one after another the members are one valid tar. Unlike the reference writer, which puts the next header
//! into the tail of a payload's member, we give headers members of their own: a payload's compressed bytes then depend on
//! the payload alone, so that chunks can be compressed before their order is known. On demand small files share a member
//! (`innerOffset` in the TOC); that one is made when the order is known.
//!
//! zstd:chunked is the same with zstd frames for members and the TOC beside the archive (`chunked`).
//!
//! Invariants that the stock reader needs, each with a test: TOC entries in blob order; the chunks of a file adjacent and
//! ascending; an offset and inner offset belong to one payload; chunk sizes sum up to the size; every name once; a hard
//! link's target in the same layer and before it; no byte behind the TOC's JSON; a chunk digest for every chunk.
//! Format: `docs/estargz.md` of containerd/stargz-snapshotter.

mod chunked;
pub mod codec;
pub mod footer;
pub mod frame;
pub mod gzip;
pub mod landmark;
mod reader;
pub mod toc;
mod writer;

pub use chunked::Chunked;
pub use codec::Format;
pub use gzip::Level;
pub use reader::{FileChunks, Layer, Problem, Span};
pub use writer::{ChunkInfo, Member, Members, Stretch, Summary, Writer};

/// Chunk size of the reference writer, bytes.
pub const CHUNK_SIZE: u64 = 4 << 20;

/// Why bytes are not an eStargz layer, or cannot be made one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing underneath failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No footer.
    #[error("not an eStargz layer: {why}")]
    Footer {
        /// Expected and found.
        why: String,
    },
    /// A TOC that cannot be used.
    #[error("TOC: {why}")]
    Toc {
        /// Expected and found.
        why: String,
    },
    /// A chunk that is not what the TOC says.
    #[error("chunk at {offset} of {path:?}: {why}")]
    Chunk {
        /// The file.
        path: String,
        /// Offset in the file, bytes.
        offset: u64,
        /// Expected and found.
        why: String,
    },
}
