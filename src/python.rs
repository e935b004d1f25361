//! Python's compiled files: where they lie beside their source (PEP 3147), what their header says of it (PEP 552), and whether an
//! interpreter would take one for that source. Of Python 3.7 and newer: what is older has another header and counts as no bytecode.

/// Bytes in front of the code: magic number, flags, and either the source's time and size or its hash.
pub const HEADER: usize = 16;

/// The first magic number of Python 3.11, which hashes sources with SipHash-1-3; older ones do it with SipHash-2-4.
const SIP13_SINCE: u32 = 3450;

/// What a compiled file is made from, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// From a source with this modification time in whole seconds and this size, of both the low 32 bits.
    Time {
        /// Seconds.
        mtime: u32,
        /// Bytes.
        size: u32,
    },
    /// From a source with this hash, whether or not interpreters compare it at run time.
    Hash([u8; 8]),
}

/// The header of a compiled file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    magic: u32,
    /// What it is made from.
    pub made: Made,
}

impl Header {
    /// Reads it from what a file begins with; `None` for what no interpreter takes.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let field = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let magic = field(0)?;
        // So that a transfer as text is noticed.
        if magic >> 16 != u32::from_le_bytes(*b"\r\n\0\0") {
            return None;
        }
        let made = match field(4)? {
            0 => Made::Time { mtime: field(8)?, size: field(12)? },
            1 | 3 => Made::Hash(head.get(8..HEADER)?.try_into().ok()?),
            _ => return None,
        };
        Some(Self { magic, made })
    }

    /// Whether it is made from a source of this time (seconds since 1970) and size, as an interpreter compares them. `false` for what is
    /// bound by a hash.
    pub fn is_of_time(&self, mtime: i64, size: u64) -> bool {
        let low = |n: u64| u32::try_from(n & u64::from(u32::MAX)).ok();
        match self.made {
            Made::Time { mtime: m, size: s } => low(mtime.cast_unsigned()) == Some(m) && low(size) == Some(s),
            Made::Hash(_) => false,
        }
    }

    /// Whether it is made from this source by the hash in it. `false` for what is bound by time and size.
    pub fn is_of_source(&self, source: &[u8]) -> bool {
        let rounds = if self.magic & 0xffff >= SIP13_SINCE { (1, 3) } else { (2, 4) };
        self.made == Made::Hash(siphash(rounds, self.magic.into(), source).to_le_bytes())
    }
}

/// The source of a compiled file: `d/__pycache__/m.cpython-312.pyc` is made from `d/m.py`.
pub fn source_of(path: &str) -> Option<String> {
    let (folder, module, _) = parts(path)?;
    Some(format!("{folder}{module}.py"))
}

/// The tag of the interpreter that made a compiled file, such as `cpython-312`.
pub fn tag_of(path: &str) -> Option<&str> {
    // As `x.cpython-312.opt-1.pyc`.
    parts(path).map(|(_, _, tags)| tags.split_once('.').map_or(tags, |(tag, _)| tag))
}

/// The source's folder with its `/`, the module, and what stands between its name and the extension.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let (folder, name) = path.rsplit_once('/')?;
    let parent = folder.strip_suffix("__pycache__")?;
    let (module, tags) = name.strip_suffix(".pyc")?.split_once('.')?;
    (!module.is_empty() && !tags.is_empty() && (parent.is_empty() || parent.ends_with('/')))
        .then_some((parent, module, tags))
}

/// `SipHash` with this many rounds for each word and at the end; the upper half of the key is 0, as in `_imp.source_hash`.
fn siphash((each, last): (usize, usize), key: u64, bytes: &[u8]) -> u64 {
    let mut v =
        [0x736f_6d65_7073_6575 ^ key, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261 ^ key, 0x7465_6462_7974_6573];
    let rounds = |v: &mut [u64; 4], n: usize| {
        for _ in 0..n {
            v[0] = v[0].wrapping_add(v[1]);
            v[2] = v[2].wrapping_add(v[3]);
            v[1] = v[1].rotate_left(13) ^ v[0];
            v[3] = v[3].rotate_left(16) ^ v[2];
            v[0] = v[0].rotate_left(32);
            v[2] = v[2].wrapping_add(v[1]);
            v[0] = v[0].wrapping_add(v[3]);
            v[1] = v[1].rotate_left(17) ^ v[2];
            v[3] = v[3].rotate_left(21) ^ v[0];
            v[2] = v[2].rotate_left(32);
        }
    };
    let mut word = |word: u64| {
        v[3] ^= word;
        rounds(&mut v, each);
        v[0] ^= word;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for w in words {
        word(u64::from_le_bytes(*w));
    }
    let mut end = [0; 8];
    end[..rest.len()].copy_from_slice(rest);
    // The lowest byte of the length stands behind the rest.
    word(u64::from_le_bytes(end) | (bytes.len() as u64) << 56);
    v[2] ^= 0xff;
    rounds(&mut v, last);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: u32, flags: u32, rest: [u8; 8]) -> Vec<u8> {
        [&magic.to_le_bytes()[..], &flags.to_le_bytes(), &rest].concat()
    }

    #[test]
    fn a_compiled_file_has_one_source_and_one_tag() {
        for (path, want) in [
            ("d/__pycache__/m.cpython-312.pyc", Some(("d/m.py", "cpython-312"))),
            ("/d/__pycache__/m.cpython-312.opt-1.pyc", Some(("/d/m.py", "cpython-312"))),
            ("__pycache__/m.pypy39.pyc", Some(("m.py", "pypy39"))),
            ("d/m.pyc", None),
            ("d/__pycache__/m.pyc", None),
            ("d/__pycache__/.cpython-312.pyc", None),
            ("d/my__pycache__/m.cpython-312.pyc", None),
            ("d/__pycache__/x/m.cpython-312.pyc", None),
            ("d/__pycache__/m.cpython-312.pyc.140", None),
        ] {
            let got = source_of(path).zip(tag_of(path));
            assert_eq!(got, want.map(|(s, t)| (s.to_owned(), t)), "{path}");
        }
    }

    #[test]
    fn time_and_size_are_compared_as_an_interpreter_does() {
        let pyc = |time: u32, size: u32| {
            let rest = [time.to_le_bytes(), size.to_le_bytes()].concat().try_into().expect("8 bytes");
            Header::parse(&header(0x0a0d_0dcb, 0, rest)).expect("a header")
        };
        assert!(pyc(1_700_000_000, 7).is_of_time(1_700_000_000, 7));
        assert!(!pyc(1_700_000_000, 7).is_of_time(1_700_000_001, 7));
        assert!(!pyc(1_700_000_000, 7).is_of_time(1_700_000_000, 8));
        assert!(pyc(5, 7).is_of_time((1 << 32) + 5, (1 << 32) + 7), "the low 32 bits");
        assert!(pyc(u32::MAX, 0).is_of_time(-1, 0));
        assert!(!pyc(0, 0).is_of_source(b""));
    }

    // From `_imp.source_hash(importlib.util._RAW_MAGIC_NUMBER, source)` of each of these interpreters.
    #[test]
    fn a_source_is_hashed_as_its_interpreter_does() {
        let all: Vec<u8> = (0..=255).collect();
        for (magic, of_print, of_all) in [
            (3394, "7dfc5bb337a1ffa5", "878eca7d2048d523"),
            (3439, "6fb8905d816e3aaa", "4c2188c1c09a54c0"),
            (3495, "8dd0b439cfc00333", "1daf10aba04017be"),
            (3531, "9061545ca0ad1ec1", "b1f5318e89daea67"),
            (3571, "c4747cd633087303", "58e329a361564cd3"),
        ] {
            let bytes = |hex: &str| u64::from_str_radix(hex, 16).expect("hex").to_be_bytes();
            for flags in [1, 3] {
                let of = |hash| Header::parse(&header(0x0a0d_0000 | magic, flags, hash)).expect("a header");
                assert!(of(bytes(of_print)).is_of_source(b"print()"), "{magic}");
                assert!(of(bytes(of_all)).is_of_source(&all), "{magic}");
                assert!(!of(bytes(of_print)).is_of_source(b"print(1)"));
                assert!(!of(bytes(of_print)).is_of_time(0, 7));
            }
        }
    }

    #[test]
    fn what_no_interpreter_takes_has_no_header() {
        let good = header(0x0a0d_0dcb, 0, [0; 8]);
        assert!(Header::parse(&good).is_some());
        for n in 0..HEADER {
            assert_eq!(Header::parse(&good[..n]), None, "{n} bytes");
        }
        assert_eq!(Header::parse(&header(0x0a0d_0dcb, 2, [0; 8])), None, "unknown flags");
        assert_eq!(Header::parse(&header(0x0a0a_0dcb, 0, [0; 8])), None, "as text");
    }
}
