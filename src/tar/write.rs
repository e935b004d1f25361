//! The few tar bytes that we make ourselves.

use std::io;

use super::{BLOCK, Entry, Kind};

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

/// The headers of a folder, file or symlink made anew from its path, size, mode, owner by number, time in whole seconds and link text:
/// nothing else of the entry is in them. `None` for other kinds.
pub fn headers(entry: &Entry) -> io::Result<Option<Vec<u8>>> {
    let kind = match entry.kind {
        Kind::Dir => ::tar::EntryType::Directory,
        Kind::File => ::tar::EntryType::Regular,
        Kind::Symlink => ::tar::EntryType::Symlink,
        _ => return Ok(None),
    };
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(u64::try_from(entry.mtime.seconds).unwrap_or(0));
    header.set_size(entry.size);
    let mut archive = ::tar::Builder::new(Vec::new());
    match entry.kind {
        Kind::Symlink => archive.append_link(&mut header, &entry.path, &entry.link)?,
        // The payload follows; nothing is padded behind none.
        Kind::File => archive.append_data(&mut header, &entry.path, io::empty())?,
        _ => archive.append_data(&mut header, format!("{}/", entry.path), io::empty())?,
    }
    let mut raw = archive.into_inner()?;
    raw.truncate(raw.len().saturating_sub(END.len()));
    Ok(Some(raw))
}

#[cfg(test)]
mod tests {
    use super::super::build::{Item, archive};
    use super::super::{Reader, Time};
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

    #[test]
    fn headers_made_anew_say_the_same_without_names_and_fractions() {
        let long = "deep/".repeat(40);
        let items = [
            Item::dir("d/").mode(0o1777).owner(3_000_000, 7, "a", "b"),
            Item::file(&format!("{long}f"), "xyz").mode(0o640).pax("mtime", "5.75").pax("SCHILY.xattr.user.x", "y"),
            Item::symlink("l", &format!("../{long}f")),
        ];
        let bytes = archive(&items);
        let mut reader = Reader::new(&bytes[..]);
        while let Some(entry) = reader.next().expect("valid") {
            let raw = headers(&entry).expect("memory").expect("one of the three kinds");
            let again = Reader::new(&raw[..]).next().expect("valid").expect("one entry");
            let mtime = Time { nanos: 0, ..entry.mtime };
            let want = Entry { raw, mtime, uname: String::new(), gname: String::new(), xattrs: Vec::new(), ..entry };
            assert_eq!(again, want);
        }
        assert!(headers(&Entry::bare("h", Kind::Hardlink)).expect("memory").is_none());
    }
}
