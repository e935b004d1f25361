//! The few tar bytes that we make ourselves.

use super::BLOCK;

/// Two zero blocks end an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Zero bytes behind a payload of this size.
pub fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if over == 0 { 0 } else { BLOCK - over }
}

/// Header block of a regular file of ours (TOC, landmark): owner 0, no time, as the reference writer makes it.
pub fn regular_header(name: &str, size: u64, mode: u32) -> [u8; BLOCK] {
    let mut header = ::tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    header.set_entry_type(::tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Reader};
    use super::*;
    use std::io::Read;

    #[test]
    fn our_headers_are_read_by_our_reader() {
        let mut tar = regular_header("a", 3, 0o444).to_vec();
        tar.extend_from_slice(b"xyz");
        tar.resize(tar.len() + padding(3), 0);
        tar.extend_from_slice(&END);
        let mut reader = Reader::new(&tar[..]);
        let entry = reader.next().expect("valid").expect("one entry");
        assert_eq!((entry.path.as_str(), entry.kind, entry.size, entry.mode), ("a", Kind::File, 3, 0o444));
        let mut payload = String::new();
        reader.read_to_string(&mut payload).expect("payload");
        assert_eq!(payload, "xyz");
        assert!(reader.next().expect("end").is_none());
    }
}
