//! The 51-byte footer: an empty gzip member whose extra field says where the TOC begins.

use super::Error;

/// Footer size, bytes.
pub const SIZE: usize = 51;

const HEAD: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
const MAGIC: &[u8; 6] = b"STARGZ";
/// An empty final stored deflate block, CRC32 and ISIZE of nothing.
const TAIL: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes the footer for a TOC member that starts at `toc_offset`.
pub fn write(toc_offset: u64) -> [u8; SIZE] {
    let mut out = [0; SIZE];
    out[..16].copy_from_slice(&HEAD);
    out[16..32].copy_from_slice(format!("{toc_offset:016x}").as_bytes());
    out[32..38].copy_from_slice(MAGIC);
    out[38..].copy_from_slice(&TAIL);
    out
}

/// Reads the TOC's offset from the last 51 bytes of a blob.
pub fn parse(bytes: &[u8; SIZE]) -> Result<u64, Error> {
    let wrong = |why: &str| Error::Footer { why: why.into() };
    if bytes[..3] != HEAD[..3] {
        return Err(wrong("its last 51 bytes are no gzip member"));
    }
    if bytes[3..16] != HEAD[3..16] || bytes[32..38] != *MAGIC {
        return Err(wrong("the gzip member at its end has no STARGZ field"));
    }
    let hex = &bytes[16..32];
    if !hex.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong("the TOC's offset in the footer is not hexadecimal"));
    }
    let text = std::str::from_utf8(hex).map_err(|_| wrong("the TOC's offset is not text"))?;
    // Readers parse it as a signed number.
    u64::from_str_radix(text, 16)
        .ok()
        .filter(|&n| i64::try_from(n).is_ok())
        .ok_or_else(|| wrong("the TOC's offset is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(s: &str) -> Vec<u8> {
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn it_is_the_reference_writers_to_the_byte() {
        let vector =
            "1f8b08040000000000ff1a00534716003030303030303030303030303132333453544152475a010000ffff0000000000000000";
        assert_eq!(write(0x1234).to_vec(), hex(vector));
    }

    #[test]
    fn every_offset_reads_back() {
        for offset in
            (0..200_000).step_by(1023).chain([1 << 32, (1 << 40) + 7, u64::try_from(i64::MAX).expect("positive")])
        {
            assert_eq!(parse(&write(offset)).expect("own footer"), offset);
        }
    }

    #[test]
    fn other_tails_are_refused_with_their_reason() {
        let mut cases = vec![([0; SIZE], "no gzip member")];
        for (at, byte, why) in
            [(12, b'X', "no STARGZ"), (32, b'x', "no STARGZ"), (20, b'g', "not hexadecimal"), (16, b'f', "too large")]
        {
            let mut footer = write(5);
            footer[at] = byte;
            cases.push((footer, why));
        }
        for (bytes, why) in cases {
            assert!(parse(&bytes).expect_err("not a footer").to_string().contains(why), "{why}");
        }
    }
}
