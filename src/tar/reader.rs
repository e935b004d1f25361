//! Streaming reader of tar archives.

use std::io::{self, Read};

use super::{BLOCK, Entry, Error, Kind, Time, clean, numeric, padding, pax};

/// Largest data of one PAX header or GNU long name. Linux allows an inode 64 KiB of extended attributes on the usual file
/// systems; 4 MiB leaves room for many and bounds what a hostile header can make us allocate.
const MAX_EXTENSION: u64 = 4 << 20;

/// Reads entries one after another. After [`Reader::next`] the payload of that entry can be read from the reader itself;
/// what is left of it is skipped by the next call.
pub struct Reader<R> {
    inner: R,
    /// Bytes consumed.
    at: u64,
    /// Payload bytes of the current entry not yet read.
    left: u64,
    /// Padding behind the payload.
    pad: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Starts at a header.
    pub fn new(inner: R) -> Self {
        Self { inner, at: 0, left: 0, pad: 0, ended: false }
    }

    /// The stream underneath, wherever the reader stands.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The same, to be asked and told, not read.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Bytes of the archive in front of what is read next; behind [`Reader::next`], where the entry's payload begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn error(&self, why: impl Into<String>) -> Error {
        Error::Header { at: self.at.saturating_sub(BLOCK as u64), why: why.into() }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        self.inner.read_exact(buf).map_err(|source| Error::Read { at: self.at, source })?;
        self.at += buf.len() as u64;
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        let copied = io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink());
        let copied = copied.map_err(|source| Error::Read { at: self.at, source })?;
        self.at += copied;
        if copied < bytes {
            return Err(Error::Read { at: self.at, source: io::ErrorKind::UnexpectedEof.into() });
        }
        Ok(())
    }

    /// The next header block, or `None` at the end of the archive: a zero block, or the end of the stream between entries
    /// (some builders leave the zero blocks out).
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut got = 0;
        while got < BLOCK {
            match self.inner.read(&mut block[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(Error::Read { at: self.at, source: io::ErrorKind::UnexpectedEof.into() }),
                Ok(n) => {
                    got += n;
                    self.at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { at: self.at, source }),
            }
        }
        Ok(block.iter().any(|&b| b != 0).then_some(block))
    }

    /// The data blocks of an extension header, appended to `raw`; gives the data alone.
    fn extension(&mut self, size: u64, raw: &mut Vec<u8>) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENSION {
            return Err(self.error(format!("an extension header of {size} bytes: at most {MAX_EXTENSION} are read")));
        }
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let mut data = vec![0; length + padding(size)];
        self.fill(&mut data)?;
        raw.extend_from_slice(&data);
        data.truncate(length);
        Ok(data)
    }

    /// The next entry, or `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "a lending reader cannot be an iterator")]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        if self.ended {
            return Ok(None);
        }
        let rest = self.left + self.pad;
        (self.left, self.pad) = (0, 0);
        self.skip(rest)?;

        let mut raw = Vec::new();
        let mut records = pax::Records::default();
        let (mut long_name, mut long_link) = (None, None);
        // A global header that says nothing of an entry may be the last thing, as `git archive` has it for an empty tree.
        let mut awaits_entry = false;
        loop {
            let Some(block) = self.block()? else {
                self.ended = true;
                return if awaits_entry {
                    Err(self.error("the archive ends after an extension header"))
                } else {
                    Ok(None)
                };
            };
            // Behind an extension's data, too, an error is where its header is.
            let at = self.at - BLOCK as u64;
            let error = move |why: String| Error::Header { at, why };
            check_sum(&block).map_err(error)?;
            let header = ::tar::Header::from_byte_slice(&block);
            let size = numeric::parse(&block[124..136])
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| error("the size is not a number".into()))?;
            raw.extend_from_slice(&block);
            awaits_entry |= block[156] != b'g';
            match block[156] {
                b'x' | b'X' => {
                    let data = self.extension(size, &mut raw)?;
                    records = pax::parse(&data).map_err(error)?;
                }
                b'g' => {
                    let data = self.extension(size, &mut raw)?;
                    if pax::parse(&data).map_err(error)?.meaningful {
                        return Err(error("a PAX global header that changes later entries is not supported".into()));
                    }
                }
                b'L' => long_name = Some(until_nul(self.extension(size, &mut raw)?)),
                b'K' => long_link = Some(until_nul(self.extension(size, &mut raw)?)),
                _ => return self.entry(&block, header, size, raw, records, long_name, long_link).map(Some),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one header, used once")]
    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        header: &::tar::Header,
        size: u64,
        raw: Vec<u8>,
        records: pax::Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Error> {
        let at = self.at - BLOCK as u64;
        let name = records.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let shown = || String::from_utf8_lossy(&name).into_owned();
        let unsupported = |why: String| Error::Unsupported { path: shown(), at, why };
        let text = |bytes: &[u8], what: &str| {
            String::from_utf8(bytes.to_vec()).map_err(|_| {
                unsupported(format!("its {what} is not UTF-8, which the TOC of an eStargz layer cannot carry"))
            })
        };
        let number = |from: usize, to: usize, what: &str| {
            numeric::parse(&block[from..to]).ok_or_else(|| unsupported(format!("its {what} is not a number")))
        };
        if records.sparse || block[156] == b'S' {
            return Err(unsupported(
                "it is stored sparse, which is not supported: re-create the layer without sparse files".into(),
            ));
        }
        let path = text(&name, "name")?;
        let kind = match block[156] {
            b'0' | 0 if name.ends_with(b"/") => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                return Err(unsupported(format!(
                    "type {:?} is not a file, link, folder, device or pipe",
                    char::from(other)
                )));
            }
        };
        let link =
            records.link.or(long_link).unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let link = text(&link, "link target")?;
        let link = match kind {
            Kind::Hardlink => clean(&link),
            Kind::Symlink => link,
            _ => String::new(),
        };
        let id = |pax: Option<u64>, from, what| match pax {
            Some(n) => Ok(n),
            // Docker and Go read an id that is no number as an error too; negative ones cannot be owned by anybody.
            None => {
                u64::try_from(number(from, from + 8, what)?).map_err(|_| unsupported(format!("its {what} is negative")))
            }
        };
        let uid = id(records.uid, 108, "uid")?;
        let gid = id(records.gid, 116, "gid")?;
        let mode = number(100, 108, "mode")?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or_default();
        let mtime = match records.mtime {
            Some(t) => t,
            None => Time { seconds: number(136, 148, "mtime")?, nanos: 0 },
        };
        let device = if matches!(kind, Kind::Char | Kind::Block) {
            let part = |from, what| {
                u32::try_from(number(from, from + 8, what)?)
                    .map_err(|_| unsupported(format!("its {what} is too large")))
            };
            (part(329, "major device number")?, part(337, "minor device number")?)
        } else {
            (0, 0)
        };
        let named = |pax: Option<Vec<u8>>, own: Option<&[u8]>| pax.unwrap_or_else(|| own.unwrap_or_default().to_vec());
        let uname = named(records.uname, header.username_bytes());
        let gname = named(records.gname, header.groupname_bytes());
        let size = if kind == Kind::File { records.size.unwrap_or(size) } else { 0 };
        // Other readers have it signed; and with its padding it must still be a number.
        if i64::try_from(size).is_err() {
            return Err(unsupported(format!("{size} bytes: no file has that many")));
        }
        self.left = size;
        self.pad = padding(size) as u64;
        Ok(Entry {
            raw,
            path: clean(&path),
            kind,
            size,
            mode,
            uid,
            gid,
            // Names are for people; an odd byte in one must not stop a conversion.
            uname: String::from_utf8_lossy(&uname).into_owned(),
            gname: String::from_utf8_lossy(&gname).into_owned(),
            mtime,
            link,
            device,
            xattrs: records.xattrs,
        })
    }
}

/// Payload of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        self.at += n as u64;
        Ok(n)
    }
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|&b| b == 0) {
        data.truncate(end);
    }
    data
}

/// The sum of all header bytes with the checksum field as blanks; old tars summed signed bytes, which is accepted too.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), String> {
    let found = numeric::parse(&block[148..156])
        .ok_or("the checksum is not a number; this is not a tar archive or it is damaged")?;
    let bytes = || block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { b' ' } else { b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if found != unsigned && found != signed {
        return Err(format!("checksum {found}: expected {unsigned}; this is not a tar archive or it is damaged"));
    }
    Ok(())
}
