//! Test support: archives of any oddity, header for header.

use super::{BLOCK, END, padding};

/// An entry to be.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    name: String,
    kind: u8,
    payload: Vec<u8>,
    link: String,
    mode: u32,
    owner: (u64, u64),
    names: (&'static str, &'static str),
    mtime: u64,
    device: (u32, u32),
    pax: Vec<(String, Vec<u8>)>,
    gnu: bool,
}

impl Item {
    fn new(name: &str, kind: u8) -> Self {
        Self {
            name: name.into(),
            kind,
            payload: Vec::new(),
            link: String::new(),
            mode: 0o644,
            owner: (0, 0),
            names: ("root", "root"),
            mtime: 1_600_000_000,
            device: (0, 0),
            pax: Vec::new(),
            gnu: false,
        }
    }

    pub(crate) fn file(name: &str, payload: impl AsRef<[u8]>) -> Self {
        Self { payload: payload.as_ref().into(), ..Self::new(name, b'0') }
    }

    pub(crate) fn dir(name: &str) -> Self {
        Self { mode: 0o755, ..Self::new(name, b'5') }
    }

    pub(crate) fn symlink(name: &str, to: &str) -> Self {
        Self { link: to.into(), mode: 0o777, ..Self::new(name, b'2') }
    }

    pub(crate) fn hardlink(name: &str, to: &str) -> Self {
        Self { link: to.into(), ..Self::new(name, b'1') }
    }

    /// `b'3'` character device, `b'4'` block device, `b'6'` pipe, or any other type.
    pub(crate) fn special(name: &str, kind: u8, device: (u32, u32)) -> Self {
        Self { device, ..Self::new(name, kind) }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64, uname: &'static str, gname: &'static str) -> Self {
        Self { owner: (uid, gid), names: (uname, gname), ..self }
    }

    pub(crate) fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    /// A PAX record; an xattr is `SCHILY.xattr.NAME`.
    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.into(), value.as_ref().into()));
        self
    }

    /// Long names as GNU tar has them, not as PAX records.
    pub(crate) fn gnu(self) -> Self {
        Self { gnu: true, ..self }
    }

    fn header(&self, name: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
        let mut h = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name[..name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", self.owner.0).as_bytes());
        put(116, format!("{:07o}\0", self.owner.1).as_bytes());
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, &self.link.as_bytes()[..self.link.len().min(100)]);
        put(257, if self.gnu { b"ustar  \0" } else { b"ustar\x0000" });
        put(265, self.names.0.as_bytes());
        put(297, self.names.1.as_bytes());
        put(329, format!("{:07o}\0", self.device.0).as_bytes());
        put(337, format!("{:07o}\0", self.device.1).as_bytes());
        let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
        h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        h
    }

    fn extension(&self, out: &mut Vec<u8>, name: &str, kind: u8, data: &[u8]) {
        let plain = Self { link: String::new(), ..self.clone() };
        out.extend_from_slice(&plain.header(name.as_bytes(), kind, data.len() as u64));
        out.extend_from_slice(data);
        out.resize(out.len() + padding(data.len() as u64), 0);
    }

    /// Appends headers and payload.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let mut pax = self.pax.clone();
        for (value, key, gnu) in [(&self.name, "path", b'L'), (&self.link, "linkpath", b'K')] {
            if value.len() > 100 {
                if self.gnu {
                    self.extension(out, "././@LongLink", gnu, format!("{value}\0").as_bytes());
                } else {
                    pax.push((key.into(), value.as_bytes().into()));
                }
            }
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(k, v)| record(k, v)).collect();
            self.extension(out, "PaxHeaders.0/x", b'x', &records);
        }
        out.extend_from_slice(&self.header(self.name.as_bytes(), self.kind, self.payload.len() as u64));
        out.extend_from_slice(&self.payload);
        out.resize(out.len() + padding(self.payload.len() as u64), 0);
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (body.len()..body.len() + 20).find(|n| n.to_string().len() + body.len() == *n);
    [length.expect("some length fits").to_string().into_bytes(), body].concat()
}

/// An archive with its end.
pub(crate) fn archive(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        item.append(&mut out);
    }
    out.extend_from_slice(&END);
    out
}
