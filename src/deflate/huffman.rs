//! Decoding tables of a block (RFC 1951, 3.2), and the one code that we write ourselves: the end of a block.

use super::bits::Bits;

/// Longest code, bits.
const MAX: usize = 15;
/// Bits that the first look into a table takes.
const LITLEN: u32 = 11;
const DIST: u32 = 9;

/// Order in which the lengths of the code length code come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// What a code stands for, packed: bits 0–5 its length, of the part that this look takes, with the extra bits that follow it;
/// bits 8–11 its length alone; bits 12–15 the kind; bits 16–31 the value that the extra bits are added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(u32);

/// Kinds of codes; lengths and distances have none.
const LITERAL: u32 = 1 << 12;
const END: u32 = 1 << 13;
/// The value is where the second table begins, the bits behind the code how many it takes.
const SECOND: u32 = 1 << 14;
/// No code.
const NONE: Code = Code(1 << 15);

impl Code {
    /// Bits to read over, with the extra ones.
    #[inline]
    pub(super) fn bits(self) -> u32 {
        self.0 & 63
    }
    /// The value with what the extra bits say; `held` are the bits from the code on.
    #[inline]
    pub(super) fn value(self, held: u64) -> u32 {
        let extra = (held & !(u64::MAX << self.bits())) >> (self.0 >> 8 & 15);
        (self.0 >> 16) + extra as u32
    }
    #[inline]
    pub(super) fn is_literal(self) -> bool {
        self.0 & LITERAL != 0
    }
    #[inline]
    pub(super) fn literal(self) -> u8 {
        (self.0 >> 16) as u8
    }
    /// Neither a literal nor a length or distance that is complete.
    #[inline]
    pub(super) fn is_odd(self) -> bool {
        self.0 & (END | SECOND | NONE.0) != 0
    }
    #[inline]
    pub(super) fn is_end(self) -> bool {
        self.0 & END != 0
    }
    #[inline]
    fn is_second(self) -> bool {
        self.0 & SECOND != 0
    }
    fn new(kind: u32, value: u32, extra: u32) -> Self {
        Self(kind | value << 16 | extra)
    }
    /// With the length of the code, which a new one lacks.
    fn with_bits(self, bits: usize) -> Self {
        let bits = bits as u32;
        Self((self.0 + bits) | bits << 8)
    }
}

/// A table of codes: a first one by the next `2^N` bits, and second ones for longer codes.
struct Table<const N: usize> {
    first: Box<[Code; N]>,
    second: Vec<Code>,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self { first: Box::new([NONE; N]), second: Vec::new() }
    }
}

impl<const N: usize> Table<N> {
    const BITS: usize = N.trailing_zeros() as usize;

    #[inline]
    fn get(&self, bits: u64) -> Code {
        self.first[bits as usize & (N - 1)]
    }

    /// The rest of a long code; the bits of the first look are consumed.
    #[inline]
    fn long(&self, code: Code, bits: u64) -> Code {
        let at = (code.0 >> 16) as usize + (bits as usize & ((1 << (code.0 >> 8 & 15)) - 1));
        self.second.get(at).copied().unwrap_or(NONE)
    }

    /// Builds the table from the lengths of all codes. `meaning`: what a symbol stands for.
    ///
    /// As in zlib a set of codes must be complete, but for a single one of one bit and for none at all.
    fn build(&mut self, lengths: &[u8], meaning: impl Fn(usize) -> Code) -> Result<(), &'static str> {
        let mut count = [0u32; MAX + 1];
        for &n in lengths {
            count[usize::from(n)] += 1;
        }
        count[0] = 0;
        let mut next = [0u32; MAX + 2];
        let mut left = 1i64;
        for n in 1..=MAX {
            left = (left << 1) - i64::from(count[n]);
            if left < 0 {
                return Err("a set of codes holds more codes than there are");
            }
            next[n + 1] = (next[n] + count[n]) << 1;
        }
        let used: u32 = count.iter().sum();
        if left > 0 && (used > 1 || used != count[1]) {
            return Err("a set of codes is incomplete");
        }
        self.second.clear();
        if left > 0 {
            self.first.fill(NONE);
        }
        // How much longer than the first look the longest code behind each of its values is.
        let mut longest = [0u8; N];
        let reversed = |code: u32, n: usize| (code as u16).reverse_bits() as usize >> (16 - n);
        if count[Self::BITS + 1..].iter().any(|&c| c > 0) {
            let mut next = next;
            for &n in lengths {
                let n = usize::from(n);
                if n > Self::BITS {
                    let longest = &mut longest[reversed(next[n], n) & (N - 1)];
                    *longest = (*longest).max((n - Self::BITS) as u8);
                }
                next[n] += 1;
            }
        }
        for (symbol, &n) in lengths.iter().enumerate() {
            let n = usize::from(n);
            if n == 0 {
                continue;
            }
            let code = reversed(next[n], n);
            next[n] += 1;
            let means = meaning(symbol);
            if n <= Self::BITS {
                let entry = means.with_bits(n);
                let mut at = code;
                while at < N {
                    self.first[at] = entry;
                    at += 1 << n;
                }
                continue;
            }
            let low = code & (N - 1);
            let bits = u32::from(longest[low]);
            // The first code of a second table makes it.
            let start = if longest[low] & 0x80 == 0 {
                let start = self.second.len();
                self.second.resize(start + (1 << bits), NONE);
                self.first[low] = Code(SECOND | (start as u32) << 16 | bits << 8 | Self::BITS as u32);
                longest[low] |= 0x80;
                start
            } else {
                (self.first[low].0 >> 16) as usize
            };
            let bits = bits & 0x7f;
            let entry = means.with_bits(n - Self::BITS);
            let mut at = code >> Self::BITS;
            while at < 1 << bits {
                self.second[start + at] = entry;
                at += 1 << (n - Self::BITS);
            }
        }
        Ok(())
    }
}

/// The codes of a block.
#[derive(Default)]
pub(super) struct Codes {
    litlen: Table<{ 1 << LITLEN }>,
    dist: Table<{ 1 << DIST }>,
    /// The end of the block, and its length in bits.
    pub(super) end: (u64, u32),
    lens: Table<128>,
}

fn litlen(symbol: usize) -> Code {
    const BASE: [u16; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ];
    const EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
    match symbol {
        0..256 => Code::new(LITERAL, symbol as u32, 0),
        256 => Code::new(END, 0, 0),
        257..286 => Code::new(0, BASE[symbol - 257].into(), EXTRA[symbol - 257].into()),
        _ => NONE,
    }
}

fn dist(symbol: usize) -> Code {
    match symbol {
        0..4 => Code::new(0, symbol as u32 + 1, 0),
        4..30 => {
            let extra = symbol as u32 / 2 - 1;
            Code::new(0, ((2 + (symbol as u32 & 1)) << extra) + 1, extra)
        }
        _ => NONE,
    }
}

impl Codes {
    /// The next literal, length or end. At least 15 bits must be held.
    #[inline]
    pub(super) fn litlen(&self, bits: u64) -> Code {
        self.litlen.get(bits)
    }

    /// The rest of an odd code that is not the end; the bits of the first look are consumed.
    #[inline]
    pub(super) fn litlen_long(&self, code: Code, bits: u64) -> Result<Code, &'static str> {
        let code = if code.is_second() { self.litlen.long(code, bits) } else { NONE };
        if code == NONE { Err("a code that stands for nothing") } else { Ok(code) }
    }

    /// The next distance.
    #[inline]
    pub(super) fn dist(&self, bits: u64) -> Code {
        self.dist.get(bits)
    }

    /// As [`Codes::litlen_long`].
    #[inline]
    pub(super) fn dist_long(&self, code: Code, bits: u64) -> Result<Code, &'static str> {
        let code = if code.is_second() { self.dist.long(code, bits) } else { NONE };
        if code == NONE { Err("a distance code that stands for nothing") } else { Ok(code) }
    }

    /// The codes that need no header.
    pub(super) fn fixed(&mut self) -> Result<(), &'static str> {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.set(&lengths, &[5; 32])
    }

    fn set(&mut self, litlens: &[u8], dists: &[u8]) -> Result<(), &'static str> {
        self.litlen.build(litlens, litlen)?;
        self.dist.build(dists, dist)?;
        let n = litlens[256];
        // A canonical code is the number of the shorter and earlier ones, scaled.
        let before: u64 = litlens
            .iter()
            .enumerate()
            .filter(|&(symbol, &len)| len > 0 && (len < n || len == n && symbol < 256))
            .map(|(_, &len)| 1 << (n - len))
            .sum();
        self.end = (before.reverse_bits() >> (64 - u32::from(n)), n.into());
        Ok(())
    }

    /// Reads the codes of a dynamic block, behind its first three bits.
    pub(super) fn read(&mut self, bits: &mut Bits<'_>) -> Result<(), &'static str> {
        let litlens = 257 + bits.take(5) as usize;
        let dists = 1 + bits.take(5) as usize;
        let codes = 4 + bits.take(4) as usize;
        if litlens > 286 || dists > 30 {
            return Err("too many codes");
        }
        let mut lens = [0; 19];
        for &at in &ORDER[..codes] {
            lens[at] = bits.take(3) as u8;
        }
        self.lens.build(&lens, |symbol| Code::new(0, symbol as u32, 0))?;
        let mut lengths = [0u8; 286 + 30];
        let mut at = 0;
        while at < litlens + dists {
            bits.refill();
            let code = self.lens.get(bits.peek());
            if code == NONE {
                return Err("a code length that stands for nothing");
            }
            let value = code.value(bits.peek());
            bits.skip(code.bits());
            let (value, times) = match value {
                16 if at == 0 => return Err("no code length to repeat"),
                16 => (lengths[at - 1], 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                18 => (0, 11 + bits.take(7)),
                n => (n as u8, 1),
            };
            let end = at + times as usize;
            lengths.get_mut(at..end).filter(|_| end <= litlens + dists).ok_or("too many code lengths")?.fill(value);
            at = end;
        }
        if lengths[256] == 0 {
            return Err("no code for the end of the block");
        }
        let (litlens, rest) = lengths.split_at(litlens);
        self.set(litlens, &rest[..dists])
    }
}
