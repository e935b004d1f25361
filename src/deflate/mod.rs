//! Deflate (RFC 1951) and gzip (RFC 1952) below the level of bytes: a decompressor that remembers where the blocks of the
//! compressed stream lie, and a way to make a new stream of them.
//!
//! A source layer was compressed once, and most of that work can be kept: a stream for a part of the content is the
//! source's own blocks, bit for bit, with a new beginning where matches would reach in front of the part. What the
//! libraries do not offer is the place of the blocks; hence a decompressor of our own. It is never the only witness: what it
//! gives is held against the layer's diffID, and what is made of it is decompressed with libdeflate and compared.
#![expect(clippy::cast_possible_truncation, reason = "the width of every value is bounded by the format")]

mod bits;
mod fragment;
mod gunzip;
mod huffman;
#[cfg(test)]
mod tests;

pub use fragment::Fragment;
pub use gunzip::Gunzip;

use bits::Bits;
use huffman::Codes;

/// How far back a match may reach, bytes.
const WINDOW: u64 = 32 << 10;
/// Longest match, bytes.
const LONGEST: usize = 258;

/// Kind of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored,
    Coded,
}

/// A block of a stream.
#[derive(Debug, Clone, Copy)]
struct Block {
    kind: Kind,
    /// Its first bit.
    at: u64,
    /// The bit behind its header.
    body: u64,
    /// The content in front of it, bytes.
    out: u64,
    /// The content in front of its stream, which no match passes.
    member: u64,
    /// The bit behind it and the content up to there; `None` while it is being read.
    end: Option<(u64, u64)>,
}

impl Block {
    fn out_end(&self) -> u64 {
        self.end.map_or(u64::MAX, |(_, out)| out)
    }
}

/// Reads the header of a block; gives whether it is the last one, and its kind. `codes` are those of a coded block.
fn header(bits: &mut Bits<'_>, codes: &mut Codes) -> Result<(bool, Kind), &'static str> {
    let last = bits.take(1) == 1;
    let kind = match bits.take(2) {
        0 => Kind::Stored,
        1 => {
            codes.fixed()?;
            Kind::Coded
        }
        2 => {
            codes.read(bits)?;
            Kind::Coded
        }
        _ => return Err("a block of a kind that does not exist"),
    };
    Ok((last, kind))
}

/// What one code of a block stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal,
    Match { length: u32, distance: u32 },
    End,
}

/// Reads one code with what belongs to it.
fn token(bits: &mut Bits<'_>, codes: &Codes) -> Result<Token, &'static str> {
    bits.refill();
    let mut code = codes.litlen(bits.peek());
    if code.is_odd() && !code.is_end() {
        bits.skip(code.bits());
        code = codes.litlen_long(code, bits.peek())?;
    }
    let length = code.value(bits.peek());
    bits.skip(code.bits());
    if code.is_end() {
        return Ok(Token::End);
    }
    if code.is_literal() {
        return Ok(Token::Literal);
    }
    bits.refill();
    let mut code = codes.dist(bits.peek());
    if code.is_odd() {
        bits.skip(code.bits());
        code = codes.dist_long(code, bits.peek())?;
    }
    let distance = code.value(bits.peek());
    bits.skip(code.bits());
    Ok(Token::Match { length, distance })
}
