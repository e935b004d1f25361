//! The streaming decompressor.

use std::collections::VecDeque;
use std::io::{self, Read};

use flate2::Crc;

use super::bits::{Bits, LOW};
use super::huffman::Codes;
use super::{Block, Fragment, Kind, LONGEST, WINDOW, header};

/// Bytes that one read asks of the input.
const READ: usize = 256 << 10;
/// Bytes of content held: the window and what was not yet read.
const OUT: usize = 128 << 10;
/// More than the header of a block has: 3 bits, 14, 19 times 3, and 316 times 14.
const BLOCK_HEADER: usize = 1024;
/// Most bytes of a gzip header: an extra field has at most 64 KiB, a name or comment hardly any.
const MEMBER_HEADER: usize = 128 << 10;
/// Compressed bytes that are kept for blocks that nobody may ask for; legitimate blocks have less.
const KEPT: usize = 2 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Member,
    Block,
    Coded,
    Stored { left: u32 },
    Trailer,
    End,
}

/// Reads gzip members one after another as one stream of bytes, and keeps what [`Fragment`]s are made of.
pub struct Gunzip<R> {
    input: R,
    /// Compressed bytes: those to come, and in front of them those that are kept.
    buf: Vec<u8>,
    /// How many of them there are; the others are room, and zeros behind the end of the input.
    len: usize,
    /// Bits of the input in front of `buf`.
    base: u64,
    /// The next bit, from the start of `buf`.
    bit: u64,
    eof: bool,
    out: Box<[u8]>,
    filled: usize,
    given: usize,
    /// Content in front of `out`, bytes.
    out_base: u64,
    /// Content in front of the current member, bytes.
    member: u64,
    state: State,
    last: bool,
    codes: Codes,
    crc: Crc,
    blocks: VecDeque<Block>,
    /// The content from here on is wanted as a fragment, of at most so many bytes.
    hold: Option<(u64, usize)>,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("invalid gzip data: {why}"))
}

impl<R: Read> Gunzip<R> {
    /// Starts at a gzip header.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buf: Vec::new(),
            len: 0,
            base: 0,
            bit: 0,
            eof: false,
            out: vec![0; OUT].into_boxed_slice(),
            filled: 0,
            given: 0,
            out_base: 0,
            member: 0,
            state: State::Member,
            last: false,
            codes: Codes::default(),
            crc: Crc::new(),
            blocks: VecDeque::new(),
            hold: None,
        }
    }

    /// Content that was read, bytes.
    fn position(&self) -> u64 {
        self.out_base + self.given as u64
    }

    /// Keeps what a fragment needs of the next `size` bytes of content.
    pub fn hold(&mut self, size: u64) {
        self.hold = Some((self.position(), usize::try_from(size).unwrap_or(usize::MAX)));
    }

    /// How the source compressed everything since [`Gunzip::hold`]; `None` where nothing of it can be kept.
    pub fn fragment(&mut self) -> Option<Fragment> {
        let (from, _) = self.hold.take()?;
        Fragment::of(self.blocks.iter(), from, self.position(), &self.buf[..self.len], self.base, self.base + self.bit)
    }

    /// Lets go of compressed bytes that no fragment needs any more.
    fn release(&mut self) {
        let (from, size) = self.hold.unwrap_or((self.position(), 0));
        while self.blocks.front().is_some_and(|b| b.out_end() <= from) {
            self.blocks.pop_front();
        }
        // A block without end must not make us keep everything.
        let kept = self.blocks.front().map_or(self.bit, |b| b.at - self.base) / 8;
        if (self.bit / 8 - kept) as usize > size.saturating_add(KEPT) {
            self.blocks.clear();
        }
        let free = self.blocks.front().map_or(self.bit, |b| b.at - self.base) / 8;
        // Not at every opportunity: moving the rest costs its length.
        if free as usize > self.len / 2 {
            self.buf.copy_within(free as usize..self.len, 0);
            self.len -= free as usize;
            self.base += free * 8;
            self.bit -= free * 8;
        }
    }

    /// Makes so many bytes available behind the next bit, or all that there are.
    fn want(&mut self, bytes: usize) -> io::Result<()> {
        while !self.eof && self.len < (self.bit / 8) as usize + bytes {
            self.release();
            if self.buf.len() < self.len + READ {
                self.buf.resize(self.len + READ, 0);
            }
            let read = loop {
                match self.input.read(&mut self.buf[self.len..]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            self.len += read;
            if read == 0 {
                self.eof = true;
                // The decoder looks ahead; so it reads up to the end, and shows where it went beyond.
                self.buf.truncate(self.len);
                self.buf.resize(self.len + LOW + 16, 0);
            }
        }
        Ok(())
    }

    /// The bytes behind the next bit, which is the first of a byte.
    fn rest(&self) -> &[u8] {
        self.buf.get((self.bit / 8) as usize..self.len).unwrap_or_default()
    }

    fn align(&mut self) {
        self.bit = self.bit.next_multiple_of(8);
    }

    /// Decompresses until there is something to give, or the end.
    fn step(&mut self) -> io::Result<()> {
        if self.filled + LONGEST * 2 > OUT {
            let keep = self.filled - WINDOW as usize;
            self.out.copy_within(keep..self.filled, 0);
            self.out_base += keep as u64;
            self.filled = WINDOW as usize;
            self.given = self.filled;
        }
        while self.state != State::End && self.filled + LONGEST * 2 <= OUT {
            match self.state {
                State::Member => self.member_header()?,
                State::Block => self.block()?,
                State::Coded => self.coded()?,
                State::Stored { left } => self.stored(left)?,
                State::Trailer => self.trailer()?,
                State::End => {}
            }
        }
        Ok(())
    }

    fn member_header(&mut self) -> io::Result<()> {
        let mut wanted = 10;
        let length = loop {
            self.want(wanted)?;
            let rest = self.rest();
            if rest.is_empty() && (self.out_base + self.filled as u64 > 0 || self.base + self.bit > 0) {
                self.state = State::End;
                return Ok(());
            }
            match gzip_header(rest)? {
                Some(length) => break length,
                None if self.eof => return Err(io::ErrorKind::UnexpectedEof.into()),
                None if rest.len() > MEMBER_HEADER => return Err(invalid("a header of more than 128 KiB")),
                None => wanted = rest.len() + 1,
            }
        };
        self.bit += length as u64 * 8;
        self.member = self.out_base + self.filled as u64;
        self.crc.reset();
        self.state = State::Block;
        Ok(())
    }

    fn block(&mut self) -> io::Result<()> {
        self.want(BLOCK_HEADER)?;
        let mut bits = Bits::at(&self.buf[..self.len], self.bit);
        let (last, kind) = header(&mut bits, &mut self.codes).map_err(invalid)?;
        let (at, body) = (self.base + self.bit, self.base + bits.position());
        self.bit = bits.position();
        let out = self.out_base + self.filled as u64;
        self.blocks.push_back(Block { kind, at, body, out, member: self.member, end: None });
        self.last = last;
        self.state = match kind {
            Kind::Coded => State::Coded,
            Kind::Stored => {
                self.align();
                let Some(&[a, b, c, d]) = self.rest().first_chunk() else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                let (length, check) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                if length != !check {
                    return Err(invalid("the length of a stored block and its check differ"));
                }
                self.bit += 32;
                State::Stored { left: length.into() }
            }
        };
        self.passed()
    }

    /// An error if more bits were read than there are.
    fn passed(&self) -> io::Result<()> {
        if self.bit > self.len as u64 * 8 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn end_block(&mut self) {
        let end = (self.base + self.bit, self.out_base + self.filled as u64);
        // Empty ones align a stream; nobody needs them again.
        let empty = |b: &mut Block| b.end.is_none() && b.out == end.1;
        if self.blocks.pop_back_if(empty).is_none()
            && let Some(block) = self.blocks.back_mut().filter(|b| b.end.is_none())
        {
            block.end = Some(end);
        }
        self.state = if self.last { State::Trailer } else { State::Block };
    }

    fn stored(&mut self, left: u32) -> io::Result<()> {
        self.want(1)?;
        let room = OUT - self.filled;
        let from = (self.bit / 8) as usize;
        let n = room.min(left as usize).min(self.len.saturating_sub(from));
        if n == 0 && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let to = &mut self.out[self.filled..self.filled + n];
        to.copy_from_slice(&self.buf[from..from + n]);
        self.crc.update(to);
        self.filled += n;
        self.bit += n as u64 * 8;
        self.state = State::Stored { left: left - n as u32 };
        if left as usize == n {
            self.end_block();
        }
        Ok(())
    }

    fn coded(&mut self) -> io::Result<()> {
        // What one code and all that belongs to it takes, and a word more.
        self.want(2 * LOW)?;
        let bytes = if self.eof { &self.buf } else { &self.buf[..self.len] };
        let mut bits = Bits::at(bytes, self.bit);
        let first = usize::try_from(self.member.saturating_sub(self.out_base)).unwrap_or(usize::MAX);
        let (filled, ended) = codes(&mut bits, &self.codes, &mut self.out, self.filled, first).map_err(invalid)?;
        self.crc.update(&self.out[self.filled..filled]);
        self.filled = filled;
        self.bit = bits.position();
        self.passed()?;
        if ended {
            self.end_block();
        }
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        self.align();
        self.want(8)?;
        let Some(trailer) = self.rest().first_chunk() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        // The sum in the lower half, the size in the upper one.
        if u64::from_le_bytes(*trailer) != u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum()) {
            return Err(invalid("checksum or size of a member differ from its content"));
        }
        self.bit += 64;
        self.state = State::Member;
        Ok(())
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.given == self.filled && !buf.is_empty() {
            self.step()?;
        }
        let n = buf.len().min(self.filled - self.given);
        buf[..n].copy_from_slice(&self.out[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// Length of the gzip header at the start of a buffer; `None`: there must be more of it.
fn gzip_header(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut at = 10;
    let Some(&[magic, second, method, flags, ..]) = bytes.first_chunk::<10>() else {
        return if [0x1f, 0x8b].starts_with(&bytes[..bytes.len().min(2)]) {
            Ok(None)
        } else {
            Err(invalid("no gzip header"))
        };
    };
    if (magic, second, method) != (0x1f, 0x8b, 8) || flags & 0xe0 != 0 {
        return Err(invalid("no gzip header"));
    }
    if flags & 4 != 0 {
        let Some(&[a, b]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([a, b]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(length) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0)) else {
                return Ok(None);
            };
            at += length + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

/// Bytes that one copy moves.
const STEP: usize = 16;

/// The smallest multiple of each distance that one copy may move over.
const PERIOD: [u8; STEP] = [0, 16, 16, 18, 16, 20, 18, 21, 16, 18, 20, 22, 24, 26, 28, 30];

/// Copies a match and up to [`STEP`] bytes more.
#[inline]
fn copy(out: &mut [u8], at: usize, distance: usize, length: usize) {
    let step = |out: &mut [u8], from: usize, to: usize| {
        let bytes = *out[from..].first_chunk::<STEP>().expect("the caller leaves room");
        *out[to..].first_chunk_mut().expect("the caller leaves room") = bytes;
    };
    let (mut done, mut back) = (0, distance);
    if distance == 1 {
        let byte = out[at - 1];
        out[at..at + length].fill(byte);
        return;
    }
    if distance < STEP {
        // What repeats at this distance repeats at its multiples.
        back = usize::from(PERIOD[distance]);
        done = length.min(back - distance);
        for to in at..at + done {
            out[to] = out[to - distance];
        }
    }
    while done < length {
        step(out, at + done - back, at + done);
        done += STEP;
    }
}

/// Decompresses codes into `out` from `at` on, until the block ends, `out` is nearly full or the input's last bytes are reached.
/// Matches reach back to `first` at most. Gives where it stands and whether the block ended.
#[inline(never)]
fn codes(
    bits: &mut Bits<'_>,
    codes: &Codes,
    out: &mut [u8],
    mut at: usize,
    first: usize,
) -> Result<(usize, bool), &'static str> {
    let full = out.len() - LONGEST - 2 * STEP;
    if at >= full || bits.is_low() {
        return Ok((at, false));
    }
    // On a copy: what lives behind a reference is written back after every code.
    let mut b = bits.clone();
    b.refill_high();
    // Looked up as soon as its bits are there, before what came in front of it is done.
    let mut code = codes.litlen(b.peek());
    let ended = loop {
        let mut held = b.peek();
        b.skip(code.bits());
        if code.is_literal() {
            // Three of 15 bits each at most, of the 56 that there are.
            let to = out[at..].first_chunk_mut::<3>().expect("it is not full");
            to[0] = code.literal();
            at += 1;
            code = codes.litlen(b.peek());
            held = b.peek();
            b.skip(code.bits());
            if code.is_literal() {
                to[1] = code.literal();
                at += 1;
                code = codes.litlen(b.peek());
                held = b.peek();
                b.skip(code.bits());
                if code.is_literal() {
                    to[2] = code.literal();
                    at += 1;
                    b.refill_high();
                    code = codes.litlen(b.peek());
                    if at >= full || b.is_low() {
                        break false;
                    }
                    continue;
                }
            }
        }
        let mut literal = false;
        if code.is_odd() {
            if code.is_end() {
                break true;
            }
            held = b.peek();
            code = codes.litlen_long(code, held)?;
            b.skip(code.bits());
            if code.is_end() {
                break true;
            }
            literal = code.is_literal();
        }
        if literal {
            out[at] = code.literal();
            at += 1;
            b.refill_high();
            code = codes.litlen(b.peek());
        } else {
            let length = code.value(held) as usize;
            b.refill_high();
            held = b.peek();
            let mut far = codes.dist(held);
            b.skip(far.bits());
            if far.is_odd() {
                held = b.peek();
                far = codes.dist_long(far, held)?;
                b.skip(far.bits());
            }
            let distance = far.value(held) as usize;
            if distance > at - first {
                return Err("a match that reaches in front of the data");
            }
            b.refill_high();
            code = codes.litlen(b.peek());
            copy(out, at, distance, length);
            at += length;
        }
        if at >= full || b.is_low() {
            break false;
        }
    };
    *bits = b;
    Ok((at, ended))
}
