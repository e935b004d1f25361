//! The head of an ELF program (ELF-64 Object File Format, "ELF Header" and "Program Header"): for which machine it is, and whether it
//! asks for a dynamic linker. The kernel's own rules; nothing of what is read is trusted.

use std::io;

/// What the kernel looks at before it runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// `e_machine`.
    pub machine: u16,
    /// Where in the file the path of its dynamic linker stands, and how long it is; a static program has none.
    pub interpreter: Option<(u64, u64)>,
}

/// Bytes of a program header.
const HEADER: u64 = 56;
/// Type of the one that names the dynamic linker.
const PT_INTERP: u32 = 3;

/// Reads the head of a 64-bit little-endian program. `read` fills a buffer from an offset on.
pub fn head(read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Head> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut elf = [0; 64];
    // A script may be shorter than the rest.
    read(&mut elf[..6], 0)?;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err(bad("it is no 64-bit little-endian ELF program"));
    }
    read(&mut elf, 0)?;
    let (table, size, count) = (long(&elf, 32), short(&elf, 54), short(&elf, 56));
    if u64::from(size) != HEADER || count == 0 {
        return Err(bad("it has no program headers"));
    }
    let mut interpreter = None;
    for i in 0..u64::from(count) {
        let at = table.checked_add(i * HEADER).ok_or_else(|| bad("its program headers lie nowhere"))?;
        let mut kind = [0; 4];
        read(&mut kind, at)?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            let mut header = [0; 40];
            read(&mut header, at)?;
            interpreter = Some((long(&header, 8), long(&header, 32)));
            break;
        }
    }
    Ok(Head { machine: short(&elf, 18), interpreter })
}

/// The same of a program of which at least the beginning is in memory.
pub fn head_of(bytes: &[u8]) -> io::Result<Head> {
    head(|buf, at| {
        let piece = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..buf.len()));
        let piece = piece.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "its ELF header is cut off"))?;
        buf.copy_from_slice(piece);
        Ok(())
    })
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))
}

/// A program's head with program headers of these types; that of the dynamic linker says offset 7, length 9.
#[cfg(test)]
pub(crate) fn sample(machine: u16, kinds: &[u32]) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01".to_vec();
    out.resize(64, 0);
    out[18..20].copy_from_slice(&machine.to_le_bytes());
    out[32..40].copy_from_slice(&64u64.to_le_bytes());
    out[54..56].copy_from_slice(&56u16.to_le_bytes());
    out[56..58].copy_from_slice(&u16::try_from(kinds.len()).expect("few").to_le_bytes());
    for kind in kinds {
        let at = out.len();
        out.resize(at + 56, 0);
        out[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        (out[at + 8], out[at + 32]) = (7, 9);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_and_linker_are_found() {
        assert_eq!(head_of(&sample(62, &[6, 1])).expect("a head"), Head { machine: 62, interpreter: None });
        assert_eq!(
            head_of(&sample(183, &[6, 3, 1])).expect("a head"),
            Head { machine: 183, interpreter: Some((7, 9)) }
        );
    }

    #[test]
    fn what_is_no_whole_head_is_refused() {
        let why = |bytes: &[u8]| head_of(bytes).expect_err("refused").to_string();
        assert!(why(b"#!/bin/sh\n").contains("no 64-bit"));
        assert!(why(&sample(62, &[])).contains("no program headers"));
        let mut odd = sample(62, &[1]);
        odd[54] = 8;
        assert!(why(&odd).contains("no program headers"), "of no known size");
        let whole = sample(62, &[1, 1, 1]);
        for cut in 0..whole.len() - 52 {
            assert!(why(&whole[..cut]).contains("cut off"), "{cut}");
        }
        let mut far = sample(62, &[1, 1, 1]);
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(why(&far).contains("cut off"));
        far[32..40].copy_from_slice(&(u64::MAX - 60).to_le_bytes());
        // As in a file that has no end.
        let endless = |buf: &mut [u8], at: u64| {
            if at == 0 {
                buf.copy_from_slice(&far[..buf.len()]);
            }
            Ok(())
        };
        assert!(head(endless).expect_err("refused").to_string().contains("nowhere"));
    }
}
