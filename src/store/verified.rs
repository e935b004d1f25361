//! A reader that does not let altered content pass.

use std::io::{self, Read};

use super::Error;
use crate::digest::Hasher;
use crate::image::Descriptor;

/// Reads exactly the bytes of a descriptor. The read that would hand out the last byte fails when the digest differs, so
/// nobody has the whole of a wrong blob, whether or not they read on to the end.
pub(super) struct Verified<R> {
    inner: R,
    blob: Descriptor,
    place: String,
    left: u64,
    hasher: Option<Hasher>,
    failed: bool,
}

impl<R: Read> Verified<R> {
    /// `place` names the store in errors.
    pub(super) fn new(inner: R, blob: &Descriptor, place: &str) -> Self {
        let hasher = Some(Hasher::default());
        Self { inner, blob: blob.clone(), place: place.into(), left: blob.size, hasher, failed: false }
    }

    fn corrupt(&mut self, found: String) -> io::Error {
        self.failed = true;
        let expected = format!("{} of {} bytes", self.blob.digest, self.blob.size);
        Error::Corrupt { what: format!("blob {} in {}", self.blob.digest, self.place), expected, found }.into()
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(self.corrupt("a difference before".into()));
        }
        if buf.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = if most == 0 { 0 } else { self.inner.read(&mut buf[..most])? };
        if n == 0 && self.left > 0 {
            return Err(self.corrupt(format!("only {} bytes", self.blob.size - self.left)));
        }
        self.left -= n as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        if self.left == 0
            && let Some(hasher) = self.hasher.take()
        {
            let found = hasher.finish();
            if found != self.blob.digest {
                return Err(self.corrupt(found.to_string()));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn read(content: &[u8], blob: &Descriptor) -> (io::Result<()>, Vec<u8>) {
        let mut reader = Verified::new(content, blob, "here");
        let mut out = Vec::new();
        let mut buf = [0; 7];
        loop {
            match reader.read(&mut buf) {
                Ok(0) => return (Ok(()), out),
                Ok(n) => out.extend_from_slice(&buf[..n]),
                Err(e) => return (Err(e), out),
            }
        }
    }

    #[test]
    fn right_content_passes_and_nothing_behind_it() {
        for content in [&b""[..], b"x", b"seven..", b"more than seven"] {
            let blob = Descriptor::new("t", Digest::of(content), content.len() as u64);
            let (result, out) = read(content, &blob);
            assert!(result.is_ok() && out == content);
            let longer = [content, b"behind"].concat();
            let (result, out) = read(&longer, &blob);
            assert!(result.is_ok() && out == content, "bytes behind the end are not the blob's");
        }
    }

    #[test]
    fn wrong_content_fails_before_its_last_byte() {
        let blob = Descriptor::new("t", Digest::of(b"0123456789"), 10);
        for wrong in [&b""[..], b"012345678", b"0123456788", b"x123456789"] {
            let (result, out) = read(wrong, &blob);
            let error = result.expect_err("altered");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
            assert!(out.len() < 10);
        }
        let empty = Descriptor::new("t", Digest::of(b"x"), 0);
        assert!(read(b"", &empty).0.is_err(), "an empty blob has the digest of nothing");
    }
}
