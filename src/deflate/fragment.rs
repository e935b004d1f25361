//! A part of a compressed stream, and the stream of its own that is made of it.

use std::ops::Range;

use super::bits::{BitWriter, Bits};
use super::huffman::Codes;
use super::{Block, Kind, Token, WINDOW, header, token};

/// Content that a part must have for its blocks to be kept, bytes: less is better compressed anew.
const LEAST: u64 = 16 << 10;
/// Most bytes of a stored block.
const STORED: usize = 0xffff;

/// The blocks of a compressed stream that hold a part of its content.
pub struct Fragment {
    bytes: Vec<u8>,
    /// From the one that `from` lies in. Their bits are counted from the start of `bytes`, their content from that of the
    /// part.
    blocks: Vec<Block>,
    /// Content that the part has.
    size: u64,
    /// Content in front of the first code that can be kept: none from here on reaches in front of the part.
    from: u64,
}

/// A place between two codes.
#[derive(Clone, Copy)]
struct Place {
    out: u64,
    bit: u64,
}

/// A stream of blocks, in which the last one is known when the next one comes.
struct Stream<'a> {
    out: BitWriter,
    raw: &'a [u8],
}

impl Stream<'_> {
    fn stored(&mut self, from: u64, to: u64, last: bool) {
        let raw = &self.raw[from as usize..to as usize];
        let mut chunks = raw.chunks(STORED).peekable();
        while let Some(chunk) = chunks.next() {
            self.out.put(u64::from(last && chunks.peek().is_none()), 3);
            let length = chunk.len() as u16;
            self.out.bytes(&[length.to_le_bytes(), (!length).to_le_bytes()].concat());
            self.out.bytes(chunk);
        }
    }

    /// Codes of a block between two bits, behind the block's own header.
    fn coded(&mut self, bytes: &[u8], block: &Block, from: u64, to: u64, last: bool) {
        self.out.put(last.into(), 1);
        self.out.copy(bytes, block.at + 1, block.body);
        self.out.copy(bytes, from, to);
    }

    /// At most the longest match, in codes that need no header.
    fn rest(&mut self, from: u64, cut: Option<u32>) {
        let raw = &self.raw[from as usize..];
        self.out.put(0b011, 3);
        match cut {
            // What is left of a match is a match, too.
            Some(distance) if raw.len() >= 3 => fixed_match(&mut self.out, raw.len() as u32, distance),
            _ => raw.iter().for_each(|&b| fixed_literal(&mut self.out, b)),
        }
        self.out.put(0, 7);
    }
}

/// Huffman codes come with their highest bit first.
fn code(out: &mut BitWriter, code: u32, bits: u32) {
    out.put(u64::from(code.reverse_bits() >> (32 - bits)), bits);
}

fn fixed_literal(out: &mut BitWriter, byte: u8) {
    match byte {
        0..144 => code(out, 0x30 + u32::from(byte), 8),
        144.. => code(out, 0x190 + u32::from(byte) - 144, 9),
    }
}

pub(super) fn fixed_match(out: &mut BitWriter, length: u32, distance: u32) {
    // Each power of two has four lengths, and two distances (RFC 1951, 3.2.5); the longest one has a code of its own.
    let (symbol, extra, value) = match length {
        258 => (285, 0, 0),
        3..11 => (254 + length, 0, 0),
        _ => {
            let n = length - 3;
            let extra = n.ilog2() - 2;
            (257 + 4 * extra + (n >> extra), extra, n & ((1 << extra) - 1))
        }
    };
    let (number, bits) = if symbol < 280 { (symbol - 256, 7) } else { (0xc0 + symbol - 280, 8) };
    code(out, number, bits);
    out.put(value.into(), extra);
    let n = distance - 1;
    let (symbol, extra) =
        if n < 4 { (n, 0) } else { (2 * (n.ilog2() - 1) + 2 + (n >> (n.ilog2() - 1) & 1), n.ilog2() - 1) };
    code(out, symbol, 5);
    out.put(u64::from(n & ((1 << extra) - 1)), extra);
}

impl Fragment {
    /// The part of the content between two positions. `bytes` are of the stream from the bit `base` on, and were read up to
    /// the bit `read`.
    pub(super) fn of<'a>(
        blocks: impl Iterator<Item = &'a Block>,
        start: u64,
        end: u64,
        bytes: &[u8],
        base: u64,
        read: u64,
    ) -> Option<Self> {
        let mut blocks = blocks.filter(|b| b.out_end() > start && b.out < end).peekable();
        let first = blocks.peek()?;
        let mut from = start.max(first.out);
        // A match reaches back to the beginning of its stream at most, and no further than the window.
        if first.member < start {
            from = from.max(start + WINDOW);
        }
        let blocks: Vec<Block> = blocks.copied().collect();
        if let Some(block) = blocks.iter().find(|b| b.member >= start) {
            from = from.min(block.member.max(blocks[0].out));
        }
        if end < from + LEAST && from > start {
            return None;
        }
        let mut kept: Vec<Block> = blocks.into_iter().filter(|b| b.out_end() > from).collect();
        let lowest = (kept.first()?.at - base) / 8;
        let highest = kept.last()?.end.map_or(read, |(bit, _)| bit) - base;
        let bytes = bytes.get(lowest as usize..highest.div_ceil(8) as usize)?.to_vec();
        let shift = base + lowest * 8;
        for block in &mut kept {
            block.at -= shift;
            block.body -= shift;
            // Blocks that begin in front of the part count from there, backwards: none of them is used before `from`.
            block.out = block.out.wrapping_sub(start);
            block.end = block.end.map(|(bit, out)| (bit - shift, out - start));
        }
        Some(Self { bytes, blocks: kept, size: end - start, from: from - start })
    }

    /// The last place between two codes of a coded block that is not behind `stop`, or with `over` the first one that is not
    /// in front of it; and how far back the match reaches that lies across `stop`. `codes` become the block's.
    fn walk(
        &self,
        block: &Block,
        codes: &mut Codes,
        stop: u64,
        over: bool,
    ) -> Result<(Place, Option<u32>), &'static str> {
        let mut bits = Bits::at(&self.bytes, block.at);
        header(&mut bits, codes)?;
        let mut out = block.out;
        loop {
            let place = Place { out, bit: bits.position() };
            // The content of a block may begin in front of the part's, which is where zero is.
            let left = stop.wrapping_sub(out).cast_signed();
            if left <= 0 {
                return Ok((place, None));
            }
            match token(&mut bits, codes)? {
                Token::Literal => out = out.wrapping_add(1),
                Token::Match { length, distance } => {
                    if i64::from(length) > left && !over {
                        return Ok((place, Some(distance)));
                    }
                    out = out.wrapping_add(length.into());
                }
                Token::End => return Ok((place, None)),
            }
            if bits.position() > self.bytes.len() as u64 * 8 {
                return Err("the blocks end early");
            }
        }
    }

    /// Whether a block is stored; its content can be cut anywhere.
    fn stored(block: &Block) -> bool {
        block.kind == Kind::Stored
    }

    /// A whole deflate stream of the part, whose content is `raw`, behind what `out` holds. `compress` makes one of the beginning
    /// that cannot be kept.
    pub fn stream(
        &self,
        raw: &[u8],
        mut out: Vec<u8>,
        compress: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, &'static str> {
        if raw.len() as u64 != self.size {
            return Err("another part's content");
        }
        let mut codes = Codes::default();
        // Enough but for a beginning that cannot be compressed.
        out.reserve(self.bytes.len() + WINDOW as usize);
        let mut stream = Stream { out: BitWriter::behind(out), raw };
        let mut blocks = self.blocks.iter();
        let mut at = self.from;
        // Where the first block goes on, when it is not kept whole.
        let mut within = None;
        if let Some(first) = self.blocks.first().filter(|b| b.out != self.from && !Self::stored(b)) {
            let (place, _) = self.walk(first, &mut codes, self.from, true)?;
            at = place.out;
            within = Some(place.bit);
        }
        if at > 0 {
            append(&mut stream.out, &compress(&raw[..at as usize]))?;
        }
        while at < self.size {
            let block = blocks.next().ok_or("blocks are missing")?;
            let end = block.out_end();
            let last = end >= self.size;
            let begun = within.take();
            if end <= at {
                continue;
            }
            if Self::stored(block) {
                let to = end.min(self.size);
                stream.stored(at, to, last);
                at = to;
                continue;
            }
            let from = begun.unwrap_or(block.body);
            if let Some((bit, out)) = block.end.filter(|_| end <= self.size) {
                stream.coded(&self.bytes, block, from, bit, last);
                at = out;
                continue;
            }
            let (place, cut) = self.walk(block, &mut codes, self.size, false)?;
            let whole = place.out == self.size;
            if place.out > at {
                stream.coded(&self.bytes, block, from, place.bit, whole);
                stream.out.put(codes.end.0, codes.end.1);
                at = place.out;
            }
            if !whole {
                stream.rest(at, cut);
                at = self.size;
            }
        }
        Ok(stream.out.finish())
    }

    /// A part of at most `most` bytes from the middle of what can be kept, with the bits that it takes; for a judgement of how
    /// well it is compressed. Where it lies in the content, and the bits.
    pub fn sample(&self, most: u64) -> Result<(Range<usize>, u64), &'static str> {
        let from = self.from + (self.size - self.from).saturating_sub(most) / 2;
        let mut codes = Codes::default();
        let (mut bits, mut range) = (0, None::<(u64, u64)>);
        for block in &self.blocks {
            let (start, end) = (block.out.cast_signed().max(0).cast_unsigned(), block.out_end());
            let stop = (from + most).min(self.size);
            if end <= from || start >= stop {
                continue;
            }
            let mut place = |stop: u64, over| match block.kind {
                Kind::Coded => self.walk(block, &mut codes, stop, over).map(|(place, _)| place),
                Kind::Stored => {
                    let out = stop.clamp(start, end.min(self.size));
                    Ok(Place { out, bit: block.body + (out.wrapping_sub(block.out)) * 8 })
                }
            };
            let first = place(from, true)?;
            let last = place(stop.min(end), false)?;
            if last.out <= first.out {
                continue;
            }
            bits += last.bit - first.bit;
            range = Some((range.map_or(first.out, |(first, _)| first), last.out));
        }
        let (from, to) = range.unwrap_or((0, 0));
        Ok((from as usize..to as usize, bits))
    }
}

/// Adds the blocks of a whole stream, which more follow.
pub(super) fn append(out: &mut BitWriter, stream: &[u8]) -> Result<(), &'static str> {
    let mut codes = Codes::default();
    let mut bits = Bits::at(stream, 0);
    loop {
        let at = bits.position();
        let (is_last, kind) = header(&mut bits, &mut codes)?;
        let end = match kind {
            Kind::Stored => {
                let start = bits.position().div_ceil(8) as usize;
                let length =
                    stream.get(start..).and_then(|rest| rest.first_chunk()).ok_or("a stream without its end")?;
                let end = start + 4 + usize::from(u16::from_le_bytes(*length));
                out.put(0, 3);
                out.bytes(stream.get(start..end).ok_or("a stream without its end")?);
                end as u64 * 8
            }
            Kind::Coded => {
                while token(&mut bits, &codes)? != Token::End {
                    if bits.position() > stream.len() as u64 * 8 {
                        return Err("a stream without its end");
                    }
                }
                out.put(0, 1);
                out.copy(stream, at + 1, bits.position());
                bits.position()
            }
        };
        if is_last {
            return Ok(());
        }
        bits = Bits::at(stream, end);
    }
}
