//! Bits as deflate packs them: least significant first (RFC 1951, 3.1.1).

/// Fewer bytes than this are not worth a fast loop.
pub(super) const LOW: usize = 64;

/// Reads bits of a buffer; behind its end come zeros, and [`Bits::position`] tells that it was passed.
#[derive(Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Starts at a bit.
    pub(super) fn at(bytes: &'a [u8], bit: u64) -> Self {
        let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        let mut bits = Self { bytes, at, held: 0, count: 0 };
        bits.refill();
        bits.skip((bit % 8) as u32);
        bits
    }

    /// Makes at least 56 bits readable.
    #[inline]
    pub(super) fn refill(&mut self) {
        let next = match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(word) => u64::from_le_bytes(*word),
            None => self.last(),
        };
        self.hold(next);
    }

    /// The same where [`Bits::is_low`] was said to be false: nothing here needs this reader in memory.
    #[inline]
    pub(super) fn refill_high(&mut self) {
        let next = *self.bytes[self.at..].first_chunk().expect("the end is not near");
        self.hold(u64::from_le_bytes(next));
    }

    /// Takes as many bytes of a word as there is room for. What is held beyond `count` is what comes next, too.
    #[inline]
    fn hold(&mut self, next: u64) {
        self.held |= next.wrapping_shl(self.count);
        self.at = self.at.wrapping_add((63u32.wrapping_sub(self.count) >> 3) as usize);
        self.count |= 0x38;
    }

    /// Whether the end is near.
    #[inline]
    pub(super) fn is_low(&self) -> bool {
        self.at.wrapping_add(LOW) > self.bytes.len()
    }

    #[cold]
    fn last(&self) -> u64 {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.iter().enumerate().fold(0, |word, (i, &b)| word | u64::from(b) << (8 * i))
    }

    /// The next bits, at most 56 after a refill, not yet read.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        self.held
    }

    /// Reads over bits that were peeked at.
    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        self.held = self.held.wrapping_shr(count);
        self.count = self.count.wrapping_sub(count);
    }

    /// Reads up to 32 bits.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.refill();
        let value = self.held & ((1 << count) - 1);
        self.skip(count);
        value as u32
    }

    /// The bit that is read next.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        (self.at as u64).wrapping_mul(8).wrapping_sub(u64::from(self.count))
    }
}

/// Writes bits.
#[derive(Default)]
pub(super) struct BitWriter {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter {
    /// Writes behind whole bytes.
    pub(super) fn behind(out: Vec<u8>) -> Self {
        Self { out, held: 0, count: 0 }
    }

    /// Writes the lowest bits of a value, at most 56; the others must be zero.
    #[inline]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        self.held |= value << self.count;
        self.count += count;
        if self.count >= 8 {
            let bytes = (self.count / 8) as usize;
            self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
            self.held = self.held.checked_shr(self.count & !7).unwrap_or(0);
            self.count &= 7;
        }
    }

    /// Writes the bits of a buffer between two positions.
    pub(super) fn copy(&mut self, bytes: &[u8], from: u64, to: u64) {
        let mut left = to.saturating_sub(from);
        let mut words = bytes.get((from / 8) as usize..).unwrap_or_default();
        let shift = (from % 8) as u32;
        while left >= 64
            && let Some(word) = words.first_chunk::<8>()
        {
            let next = u128::from(words.get(8).copied().unwrap_or(0)) << 64;
            let word = ((u128::from(u64::from_le_bytes(*word)) | next) >> shift) as u64;
            self.out.extend_from_slice(&(self.held | word << self.count).to_le_bytes());
            self.held = word.checked_shr(64 - self.count).unwrap_or(0);
            words = &words[8..];
            left -= 64;
        }
        let mut bits = Bits::at(words, shift.into());
        while left > 0 {
            let count = left.min(56) as u32;
            bits.refill();
            self.put(bits.peek() & ((1 << count) - 1), count);
            bits.skip(count);
            left -= u64::from(count);
        }
    }

    /// Fills the last byte with zeros and adds whole bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.align();
        self.out.extend_from_slice(bytes);
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.align();
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_copied_from_any_place_to_any_place() {
        let bytes: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect();
        for from in 0..17u64 {
            for to in [from, from + 1, from + 55, from + 56, from + 57, from + 300] {
                for lead in 0..9u32 {
                    let mut out = BitWriter::default();
                    out.put(0, lead);
                    out.copy(&bytes, from, to);
                    out.put(1, 1);
                    let out = out.finish();
                    let mut got = Bits::at(&out, u64::from(lead));
                    let mut want = Bits::at(&bytes, from);
                    for bit in from..to {
                        assert_eq!(got.take(1), want.take(1), "{from}..{to} behind {lead}: bit {bit}");
                    }
                    assert_eq!(got.take(8), 1, "what follows {from}..{to}");
                }
            }
        }
    }

    #[test]
    fn reading_beyond_the_end_gives_zeros_and_shows() {
        let mut bits = Bits::at(&[0xff, 0xff], 0);
        assert_eq!(bits.take(20), 0xffff);
        assert_eq!(bits.position(), 20);
        assert_eq!(bits.take(32), 0);
    }
}
