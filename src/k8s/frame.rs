//! Files as text in a container's log: a line that says what comes, Base64 of the compressed bytes, a line that ends it.
//!
//! The kubelet rotates a container's log at 10 MiB, and what is rotated away `kubectl logs` does not show: a file that would not
//! fit is refused where it is written. What is read was printed in a pod that runs somebody's image, so nothing of it is believed
//! before its digest is checked.

use std::io::{self, BufRead, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;

/// Most bytes of text that all files in a log may have together: the kubelet's `containerLogMaxSize` less what it writes in front
/// of each line.
pub const MAX_TEXT: usize = 9 << 20;
const BEGIN: &str = "-----BEGIN ESGZ FILE ";
const END: &str = "-----END ESGZ FILE ";
const DASHES: &str = "-----";
/// Bytes in front of Base64 to a line: long lines, of which the kubelet makes one record each (it splits at 16 KiB).
const PER_LINE: usize = 6000;
const LEVEL: i32 = 15;

/// Why a file is not in a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room for it.
    #[error("{name} has {found} bytes as compressed text: at most {most} fit into a container's log")]
    TooLarge {
        /// The file.
        name: String,
        /// Bytes of text.
        found: usize,
        /// Bytes of text left.
        most: usize,
    },
    /// No such file in the log, or not all of it.
    #[error("the log has no whole {name}: {why}")]
    Missing {
        /// The file.
        name: String,
        /// What is there.
        why: String,
    },
    /// It is not what its first line promises.
    #[error("{name} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// The file.
        name: String,
        /// Digest or size as promised.
        expected: String,
        /// As found.
        found: String,
    },
    /// The log could not be read or written.
    #[error("the log failed")]
    Io(#[from] io::Error),
}

/// Writes a file into a log that has `room` bytes left; gives what is left after it.
pub fn write(out: &mut impl Write, name: &str, content: &[u8], room: usize) -> Result<usize, Error> {
    let packed = zstd::bulk::compress(content, LEVEL)?;
    let mut text = format!("{BEGIN}{name} {} {}{DASHES}\n", content.len(), Digest::of(content));
    for piece in packed.chunks(PER_LINE) {
        STANDARD.encode_string(piece, &mut text);
        text.push('\n');
    }
    text.extend([END, name, DASHES, "\n"]);
    let left = room.checked_sub(text.len());
    let left = left.ok_or_else(|| Error::TooLarge { name: name.into(), found: text.len(), most: room })?;
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(left)
}

/// Reads a file of at most `most` bytes out of a log.
pub fn read(log: impl Read, name: &str, most: u64) -> Result<Vec<u8>, Error> {
    let missing = |why: &str| Error::Missing { name: name.into(), why: why.into() };
    // Twice the most, for what others may have written into the log.
    let mut lines = io::BufReader::new(log.take(2 * MAX_TEXT as u64)).split(b'\n');
    let (begin, end) = (format!("{BEGIN}{name} "), format!("{END}{name}{DASHES}"));
    let head = loop {
        let Some(line) = lines.next() else { return Err(missing("its first line is not there")) };
        if let Some(head) = line?.strip_prefix(begin.as_bytes()) {
            break String::from_utf8_lossy(head).trim_end().to_owned();
        }
    };
    let promised = head.strip_suffix(DASHES).and_then(|h| h.split_once(' '));
    let promised =
        promised.and_then(|(size, digest)| Some((size.parse::<u64>().ok()?, digest.parse::<Digest>().ok()?)));
    let (size, digest) = promised.ok_or_else(|| missing("its first line is not understood"))?;
    let corrupt =
        |found: String| Error::Corrupt { name: name.into(), expected: format!("{digest} of {size} bytes"), found };
    if size > most {
        return Err(Error::Corrupt {
            name: name.into(),
            expected: format!("at most {most} bytes"),
            found: size.to_string(),
        });
    }
    let mut packed = Vec::new();
    loop {
        let Some(line) = lines.next() else { return Err(missing("its last line is not there")) };
        let line = line?;
        let text = line.trim_ascii_end();
        if text == end.as_bytes() {
            break;
        }
        STANDARD.decode_vec(text, &mut packed).map_err(|e| corrupt(format!("a line that is no Base64 ({e})")))?;
    }
    let mut content = Vec::new();
    let unpacked = zstd::Decoder::with_buffer(&packed[..]).and_then(|d| d.take(size + 1).read_to_end(&mut content));
    unpacked.map_err(|e| corrupt(e.to_string()))?;
    let found = Digest::of(&content);
    if content.len() as u64 != size || found != digest {
        return Err(corrupt(format!("{found} of {} bytes", content.len())));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 1 << 20;

    fn framed(content: &[u8]) -> String {
        let mut log = Vec::new();
        write(&mut log, "profile.json", content, MAX_TEXT).expect("room");
        String::from_utf8(log).expect("text")
    }

    /// Bytes that do not compress.
    fn noise(n: usize) -> Vec<u8> {
        let mut x = 1_u32;
        std::iter::repeat_with(|| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            x.to_le_bytes()[3]
        })
        .take(n)
        .collect()
    }

    #[test]
    fn files_come_out_of_a_log_with_other_lines_in_it() {
        for content in [&b""[..], b"{}", &noise(100_000)] {
            let log = format!("waiting\r\n{}{}", framed(content), "-----END\n").replace('\n', "\r\n");
            assert!(read(log.as_bytes(), "profile.json", MOST).expect("whole") == content);
            let error = read(log.as_bytes(), "capture.tar", MOST).expect_err("another file").to_string();
            assert!(error.contains("no whole capture.tar"), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_before_a_byte_of_it_is_written() {
        let mut log = Vec::new();
        let left = write(&mut log, "a", &noise(1000), 2000).expect("room");
        assert_eq!(left, 2000 - log.len());
        let there = log.len();
        let error = write(&mut log, "b", &noise(1000), left).expect_err("no room").to_string();
        assert!(error.contains(&format!("at most {left} fit")), "{error}");
        assert_eq!(log.len(), there);
    }

    #[test]
    fn no_damage_passes() {
        let content = noise(20_000);
        let whole = framed(&content);
        let lines: Vec<&str> = whole.lines().collect();
        assert!(lines.len() > 4);
        for (what, log) in [
            ("cut", whole[..whole.len() / 2].to_owned()),
            ("a line is lost", [&lines[..1], &lines[2..]].concat().join("\n")),
            ("the end is lost", lines[..lines.len() - 1].join("\n")),
            ("another digest", whole.replacen("sha256:", "sha256:0", 1)),
            ("another size", whole.replacen(" 20000 ", " 19999 ", 1)),
            ("a huge size", whole.replacen(" 20000 ", " 99999999 ", 1)),
            ("a letter", whole.replacen(&lines[2][100..104], "AAAA", 1)),
            ("no base64", whole.replacen(&lines[2][100..104], "\u{7f}*&%", 1)),
            ("nothing", String::new()),
        ] {
            read(log.as_bytes(), "profile.json", MOST).expect_err(what);
        }
        let bomb = framed(&vec![0; 4 << 20]).replacen(" 4194304 ", " 100 ", 1);
        let error = read(bomb.as_bytes(), "profile.json", MOST).expect_err("more than it says").to_string();
        assert!(error.contains("of 101 bytes"), "{error}");
    }
}
