//! Files that are written whole or not at all: nobody ever sees half of one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The folder of a file.
pub(super) fn folder(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file. What is no plain file, such as /dev/stdout, is not replaced by one.
pub(super) fn write(file: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|m| !m.is_file()) {
        return fill(&mut OpenOptions::new().write(true).open(file)?);
    }
    let mut new = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder(file))?;
    fill(new.as_file_mut())?;
    new.persist(file)?;
    Ok(())
}

/// Writes a value as indented JSON.
pub(super) fn json(file: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write(file, |file| file.write_all(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("f.json");
        json(&path, &[1]).expect("written");
        let failed = write(&path, |file| file.write_all(b"half").and(Err(io::ErrorKind::StorageFull.into())));
        assert_eq!(failed.expect_err("refused").kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "[\n  1\n]\n");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1, "nothing is left beside it");
        json(&path, &[2]).expect("replaced");
        assert_eq!(fs::read_to_string(&path).expect("there"), "[\n  2\n]\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o333, 0o200, "its owner's alone");
    }

    #[test]
    fn what_is_no_plain_file_is_written_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let link = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).expect("linked");
        json(&link, &[1]).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert!(write(dir.path(), |_| Ok(())).is_err(), "a folder");
    }

    #[test]
    fn a_bare_name_lies_in_the_working_folder() {
        assert_eq!((folder(Path::new("f")), folder(Path::new("a/f"))), (Path::new("."), Path::new("a")));
    }
}
