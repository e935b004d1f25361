//! One tar file that holds an image: an OCI layout (`oci-archive:`), or what `docker save` writes (`docker-archive:`).
//!
//! The file is not unpacked: its members are found once, by their headers, and read where they lie. Writing appends blobs as
//! they come to a file without a name, which gets it when the manifest is there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::file::{Unnamed, copy, failed};
use super::layout::REF_NAME;
use super::select::{self, Document};
use super::verified::Verified;
use super::{Blobs, Error, Images, ReadAt};
use crate::digest::{Digest, Hasher};
use crate::image::{Descriptor, Image, names};
use crate::tar::{END, padding, regular_header};

/// Bytes copied and hashed at a time.
const PIECE: usize = 1 << 20;
/// More members than any archive of an image has.
const MAX_MEMBERS: usize = 100_000;

/// Bytes of the file.
#[derive(Debug, Clone)]
struct Section {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl ReadAt for Section {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buf, self.offset + offset)
    }
}

/// A section from its start to its end.
struct Stream {
    section: Section,
    at: u64,
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.section.size - self.at).unwrap_or(usize::MAX);
        let most = left.min(buf.len());
        let n = self.section.file.read_at(&mut buf[..most], self.section.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Where each blob and name of an archive is.
#[derive(Debug)]
pub struct Archive {
    /// `oci-archive:FILE[:TAG]`, as it stands in messages.
    name: String,
    blobs: HashMap<Digest, Section>,
    /// What `index.json` says, or one entry for the image of a `manifest.json`.
    index: Value,
    tag: Option<String>,
}

/// Finds all regular members; symlinks, which old versions of Docker use for repeated layers, lead to theirs.
fn members(path: &Path) -> Result<HashMap<String, Section>, Error> {
    let file = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::NotFound { what: "the archive".into(), place: path.display().to_string(), why: String::new() }
        }
        _ => failed(e, "opening", path, 0),
    })?;
    let shared = Arc::new(file.try_clone().map_err(|e| failed(e, "opening", path, 0))?);
    let length = file.metadata().map_err(|e| failed(e, "reading", path, 0))?.len();
    let wrong = |why: String| Error::Malformed { what: path.display().to_string(), why };
    let bad = |e: io::Error| wrong(format!("it is not a tar archive of an image, or damaged: {e}"));
    let mut archive = ::tar::Archive::new(file);
    let (mut found, mut links) = (HashMap::new(), Vec::new());
    for entry in archive.entries_with_seek().map_err(bad)? {
        let entry = entry.map_err(bad)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if found.len() + links.len() > MAX_MEMBERS {
            return Err(wrong(format!("more than {MAX_MEMBERS} members")));
        }
        if kind.is_file() {
            let section = Section { file: shared.clone(), offset: entry.raw_file_position(), size: entry.size() };
            if section.offset.checked_add(section.size).is_none_or(|end| end > length) {
                return Err(wrong(format!("{name} ends behind the file's {length} bytes: it is cut off")));
            }
            found.insert(name, section);
        } else if kind.is_symlink() || kind.is_hard_link() {
            let to = entry.link_name_bytes().unwrap_or_default();
            let to = String::from_utf8_lossy(&to).into_owned();
            let base = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            links.push((name.clone(), crate::tar::clean(&format!("{base}/{to}"))));
        }
    }
    for (name, to) in links {
        if let Some(section) = found.get(&to).cloned() {
            found.entry(name).or_insert(section);
        }
    }
    Ok(found)
}

fn small(section: &Section, what: &str) -> Result<Vec<u8>, Error> {
    select::check_json_size(section.size, || what.into())?;
    let mut bytes = vec![0; usize::try_from(section.size).unwrap_or_default()];
    section.read_exact_at(&mut bytes, 0).map_err(|e| Error::from_io(e, what))?;
    Ok(bytes)
}

fn parsed(section: &Section, what: &str) -> Result<Value, Error> {
    let bytes = small(section, what)?;
    Ok(serde_json::from_slice(&bytes).map_err(|source| crate::image::Error::Json { what: what.into(), source })?)
}

impl Archive {
    /// Opens a tar file of an OCI layout.
    pub fn oci(path: &Path, tag: Option<&str>) -> Result<Self, Error> {
        let name = format!("oci-archive:{}{}", path.display(), tag.map(|t| format!(":{t}")).unwrap_or_default());
        let members = members(path)?;
        let Some(index) = members.get("index.json") else {
            let docker = members.contains_key("manifest.json");
            let hint = if docker { ": this is what docker save writes, name it docker-archive:" } else { "" };
            return Err(Error::NotFound {
                what: "an OCI image layout".into(),
                place: name,
                why: format!(" (no member index.json{hint})"),
            });
        };
        let index = parsed(index, &format!("index.json in {name}"))?;
        Ok(Self { name, blobs: layout_blobs(&members), index, tag: tag.map(Into::into) })
    }

    /// Opens what `docker save` or `podman save` wrote.
    pub fn docker(path: &Path, wanted: Option<&str>) -> Result<Self, Error> {
        let name = format!("docker-archive:{}{}", path.display(), wanted.map(|t| format!(":{t}")).unwrap_or_default());
        let members = members(path)?;
        let not_found = |what: &str, why: String| Error::NotFound { what: what.into(), place: name.clone(), why };
        let list = members.get("manifest.json").ok_or_else(|| {
            not_found("an image", " (no member manifest.json: is this what docker save wrote?)".into())
        })?;
        let what = format!("manifest.json in {name}");
        let malformed = |why: &str| Error::Malformed { what: what.clone(), why: why.into() };
        let list = parsed(list, &what)?;
        let images = list.as_array().ok_or_else(|| malformed("not a list of images"))?;
        let tags = |image: &Value| -> Vec<String> {
            let tags = image.get("RepoTags").and_then(Value::as_array);
            tags.into_iter().flatten().filter_map(|t| t.as_str().map(Into::into)).collect()
        };
        let there = || images.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        let is_wanted = |image: &&Value| wanted.is_none_or(|w| tags(image).iter().any(|t| same_name(t, w)));
        let image = match images.iter().filter(is_wanted).collect::<Vec<_>>()[..] {
            [one] => one,
            [] => return Err(not_found("the image", format!(" (names there: {})", there()))),
            _ => return Err(not_found("the one image", format!(" (there are several, add one of: {})", there()))),
        };
        let text =
            |key: &str| image.get(key).and_then(Value::as_str).ok_or_else(|| malformed("an image without config"));
        let member = |path: &str| {
            members.get(path).ok_or_else(|| not_found(&format!("member {path}"), " (manifest.json names it)".into()))
        };
        let config = small(member(text("Config")?)?, &format!("{} in {name}", text("Config")?))?;
        let ids = crate::image::Config::parse(&config, &name)?.diff_ids;
        let layers =
            image.get("Layers").and_then(Value::as_array).ok_or_else(|| malformed("an image without layers"))?;
        if layers.len() != ids.len() {
            return Err(malformed(&format!("{} layers, and {} diffIDs in the config", layers.len(), ids.len())));
        }
        let mut blobs = layout_blobs(&members);
        let config_descriptor = Descriptor::new(names::DOCKER_CONFIG, Digest::of(&config), config.len() as u64);
        blobs.insert(config_descriptor.digest, member(text("Config")?)?.clone());
        let mut descriptors = Vec::new();
        for (layer, diff_id) in layers.iter().zip(ids) {
            let path = layer.as_str().ok_or_else(|| malformed("a layer that is no path"))?;
            let section = member(path)?;
            let mut magic = [0; 4];
            let _short = section.read_exact_at(&mut magic, 0);
            // An uncompressed layer is its diffID; what is compressed has to be read to know its digest.
            let (media_type, digest) = match magic {
                [0x1f, 0x8b, ..] => (names::DOCKER_LAYER_GZIP, hashed(section, path)?),
                [0x28, 0xb5, 0x2f, 0xfd] => (names::LAYER_ZSTD, hashed(section, path)?),
                _ => (names::DOCKER_LAYER_TAR, diff_id),
            };
            descriptors.push(Descriptor::new(media_type, digest, section.size).to_json());
            blobs.insert(digest, section.clone());
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": names::DOCKER_MANIFEST, "config": config_descriptor.to_json(),
            "layers": descriptors,
        });
        Ok(Self { name, blobs, index: manifest, tag: None })
    }

    fn blob(&self, blob: &Descriptor) -> Result<Section, Error> {
        let section = self.blobs.get(&blob.digest).ok_or_else(|| Error::NotFound {
            what: format!("blob {}", blob.digest),
            place: self.name.clone(),
            why: String::new(),
        })?;
        if section.size != blob.size {
            return Err(Error::Corrupt {
                what: format!("blob {} in {}", blob.digest, self.name),
                expected: format!("{} bytes", blob.size),
                found: format!("{} bytes", section.size),
            });
        }
        Ok(section.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        Ok(Document { descriptor: descriptor.clone(), bytes: select::read_json(self, descriptor, &self.name)? })
    }
}

/// Members under `blobs/sha256/`.
fn layout_blobs(members: &HashMap<String, Section>) -> HashMap<Digest, Section> {
    let blob = |(path, section): (&String, &Section)| {
        let hex = path.strip_prefix("blobs/sha256/")?;
        Some((format!("sha256:{hex}").parse().ok()?, section.clone()))
    };
    members.iter().filter_map(blob).collect()
}

/// Whether a name of an archive is the one that was asked for: `docker save x` may have written `docker.io/library/x:latest`.
fn same_name(there: &str, wanted: &str) -> bool {
    let short = |n: &str| {
        let n = n.strip_prefix("docker.io/").unwrap_or(n);
        let n = n.strip_prefix("library/").unwrap_or(n).to_owned();
        if n.rsplit('/').next().is_some_and(|last| last.contains(':')) { n } else { n + ":latest" }
    };
    short(there) == short(wanted)
}

fn hashed(section: &Section, what: &str) -> Result<Digest, Error> {
    let mut hasher = Hasher::default();
    let mut stream = Stream { section: section.clone(), at: 0 };
    let mut buf = vec![0; PIECE];
    loop {
        match stream.read(&mut buf).map_err(|e| Error::from_io(e, what))? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buf[..n]),
        }
    }
}

impl Blobs for Archive {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(Verified::new(Stream { section: self.blob(blob)?, at: 0 }, blob, &self.name)))
    }

    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        Ok(Box::new(self.blob(blob)?))
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.blobs.contains_key(digest))
    }

    fn put(&self, _: &Descriptor, _: &dyn ReadAt) -> Result<(), Error> {
        Err(read_only(&self.name))
    }
}

fn read_only(name: &str) -> Error {
    Error::Unsupported { what: format!("writing to {name}"), why: "it is open for reading".into() }
}

impl Images for Archive {
    fn image(&self, platform: &str) -> Result<Image, Error> {
        select::image(self, self.manifest(None)?, platform, &self.name, &|d| self.document(d))
    }

    fn manifest(&self, of: Option<&Descriptor>) -> Result<Document, Error> {
        if let Some(descriptor) = of {
            return self.document(descriptor);
        }
        // A docker archive has no index: the manifest was made of what it says.
        if self.index.get("layers").is_some() {
            let bytes = self.index.to_string().into_bytes();
            let descriptor = Descriptor::new(names::DOCKER_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
            return Ok(Document { descriptor, bytes });
        }
        select::tagged(&self.index, self.tag.as_deref(), &self.name, &|d| self.document(d))
    }

    fn put_part(&self, _: &str, _: &[u8]) -> Result<Digest, Error> {
        Err(read_only(&self.name))
    }

    fn put_manifest(&self, _: &str, _: &[u8]) -> Result<Digest, Error> {
        Err(read_only(&self.name))
    }
}

/// An OCI archive that is being written.
pub struct Writer {
    path: PathBuf,
    name: String,
    tag: Option<String>,
    state: Mutex<State>,
}

struct State {
    /// Gone when the archive has its name.
    file: Option<Unnamed>,
    there: HashSet<Digest>,
}

impl Writer {
    /// Begins an archive. A file of that name stays as it is until the new one is complete.
    pub fn create(path: &Path, tag: Option<&str>) -> Result<Self, Error> {
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if fs::metadata(path).is_ok_and(|m| m.is_dir()) {
            let why = "it is a folder".into();
            return Err(Error::Unsupported { what: format!("writing to {}", path.display()), why });
        }
        let file = Unnamed::create(dir).map_err(|e| failed(e, "creating a file in", dir, 0))?;
        Ok(Self {
            path: path.into(),
            name: format!("oci-archive:{}", path.display()),
            tag: tag.map(Into::into),
            state: Mutex::new(State { file: Some(file), there: HashSet::new() }),
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a member.
    fn append(&self, state: &State, path: &str, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        let file = state.file.as_ref().ok_or_else(|| read_only(&self.name))?.file();
        let mut file = io::BufWriter::with_capacity(64 << 10, file);
        let io = |e| failed(e, "writing", &self.path, blob.size);
        file.write_all(&regular_header(path, blob.size, 0)).map_err(io)?;
        copy(content, blob, &mut file, &self.path, &format!("blob {} for {}", blob.digest, self.name))?;
        file.write_all(&vec![0; padding(blob.size)]).and_then(|()| file.flush()).map_err(io)
    }

    fn json(&self, state: &State, path: &str, value: &Value) -> Result<(), Error> {
        let bytes = value.to_string().into_bytes();
        self.append(state, path, &Descriptor::new("", Digest::of(&bytes), bytes.len() as u64), &bytes)
    }
}

impl Blobs for Writer {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        Err(self.unread(&blob.digest))
    }

    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        Err(self.unread(&blob.digest))
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.locked().there.contains(digest))
    }

    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        let mut state = self.locked();
        if !state.there.contains(&blob.digest) {
            // A member that was cut short spoils the archive: it gets no name then.
            if let Err(e) = self.append(&state, &format!("blobs/sha256/{}", blob.digest.hex()), blob, content) {
                state.file = None;
                return Err(e);
            }
            state.there.insert(blob.digest);
        }
        Ok(())
    }
}

impl Writer {
    fn unread(&self, digest: &Digest) -> Error {
        Error::NotFound {
            what: format!("blob {digest}"),
            place: self.name.clone(),
            why: " (it is being written)".into(),
        }
    }

    fn no_image(&self) -> Error {
        Error::NotFound { what: "an image".into(), place: self.name.clone(), why: " (it is being written)".into() }
    }

    /// Stores a manifest as a blob. What it names must be there first.
    fn put_checked(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        select::check_json_size(bytes.len() as u64, || self.name.clone())?;
        for blob in select::referred(bytes, &format!("the manifest for {}", self.name))? {
            if !self.has(&blob.digest)? {
                return Err(self.unread(&blob.digest));
            }
        }
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        self.put(&descriptor, &bytes.to_vec())?;
        Ok(descriptor)
    }
}

impl Images for Writer {
    fn image(&self, _: &str) -> Result<Image, Error> {
        Err(self.no_image())
    }

    fn manifest(&self, _: Option<&Descriptor>) -> Result<Document, Error> {
        Err(self.no_image())
    }

    fn put_part(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        Ok(self.put_checked(media_type, bytes)?.digest)
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let mut descriptor = self.put_checked(media_type, bytes)?;
        if let Some(tag) = &self.tag {
            descriptor.annotations.push((REF_NAME.into(), tag.clone()));
        }
        let digest = descriptor.digest;
        let index = json!({ "schemaVersion": 2, "mediaType": names::INDEX, "manifests": [descriptor.to_json()] });
        let mut state = self.locked();
        self.json(&state, "index.json", &index)?;
        self.json(&state, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        let file = state.file.take().ok_or_else(|| read_only(&self.name))?;
        let publish = file.file().write_all(&END).and_then(|()| file.publish(&self.path));
        publish.map_err(|e| failed(e, "writing", &self.path, 0))?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::build::{Item, archive};

    fn blob(content: &[u8], media_type: &str) -> Descriptor {
        Descriptor::new(media_type, Digest::of(content), content.len() as u64)
    }

    fn read(store: &dyn Blobs, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        store.open(blob)?.read_to_end(&mut bytes).map_err(|e| Error::from_io(e, "it"))?;
        Ok(bytes)
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let ids: Vec<_> = layers.iter().map(|l| Digest::of(l)).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": ids });
        json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs }).to_string().into_bytes()
    }

    /// Puts an image of one layer into a store; gives its manifest.
    fn fill(store: &dyn Images, layer: &[u8]) -> Vec<u8> {
        let config = config(&[layer]);
        let descriptors = [blob(&config, names::CONFIG), blob(layer, names::LAYER_TAR)];
        for (descriptor, bytes) in descriptors.iter().zip([config, layer.to_vec()]) {
            store.put(descriptor, &bytes).expect("put");
            store.put(descriptor, &bytes).expect("put is idempotent");
        }
        json!({
            "schemaVersion": 2, "mediaType": names::MANIFEST, "config": descriptors[0].to_json(),
            "layers": [descriptors[1].to_json()],
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn an_oci_archive_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.tar");
        let layer: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        let store = Writer::create(&path, Some("v1")).expect("created");
        let digest = store.put_manifest(names::MANIFEST, &fill(&store, &layer)).expect("written");
        store.put(&blob(b"x", ""), &b"x".to_vec()).expect_err("it is complete");

        for tag in [None, Some("v1")] {
            let store = Archive::oci(&path, tag).expect("an archive");
            let image = store.image("linux/amd64").expect("an image");
            assert_eq!(image.descriptor.digest, digest);
            let there = &image.manifest.layers[0];
            assert_eq!(read(&store, there).expect("there"), layer);
            let mut buf = [0; 5];
            store.open_at(there).expect("there").read_exact_at(&mut buf, 7).expect("inside");
            assert_eq!(buf, layer[7..12]);
            store.open_at(there).expect("there").read_exact_at(&mut buf, there.size - 4).expect_err("outside");
            store.put(there, &layer).expect_err("read only");
        }
        let error = Archive::oci(&path, Some("v2")).expect("an archive").image("linux/amd64").expect_err("no such tag");
        assert!(error.to_string().contains("tags there: v1"), "{error}");
    }

    #[test]
    fn an_archive_that_is_not_complete_has_no_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.tar");
        fs::write(&path, "old").expect("written");
        let names = || fs::read_dir(dir.path()).expect("a folder").count();

        let store = Writer::create(&path, None).expect("created");
        let manifest = fill(&store, b"layer");
        drop(store);
        // Content that is another, and a manifest without its blobs.
        let store = Writer::create(&path, None).expect("created");
        let error = store.put(&blob(b"right", ""), &b"wrong".to_vec()).expect_err("another content");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let store = Writer::create(&path, None).expect("created");
        store.put_manifest(names::MANIFEST, &manifest).expect_err("blobs are missing");
        drop(store);
        assert_eq!((fs::read(&path).expect("there"), names()), (b"old".to_vec(), 1));
    }

    /// `docker save` as it was up to version 24: folders of layers, a repeated one as a symlink.
    fn docker(dir: &Path, layer: &[u8], names: &[&str]) -> PathBuf {
        let config = config(&[layer, layer]);
        let manifest = json!([{
            "Config": "c.json", "RepoTags": names, "Layers": ["1/layer.tar", "2/layer.tar"],
        }]);
        let path = dir.join("d.tar");
        let items = [
            Item::file("c.json", config),
            Item::dir("1"),
            Item::file("1/layer.tar", layer),
            Item::symlink("2/layer.tar", "../1/layer.tar"),
            Item::file("manifest.json", manifest.to_string()),
        ];
        fs::write(&path, archive(&items)).expect("written");
        path
    }

    #[test]
    fn a_docker_archive_is_an_image() {
        let dir = tempfile::tempdir().expect("a folder");
        let layer = archive(&[Item::file("a", "content")]);
        let gzip = {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(&layer).and_then(|()| out.finish()).expect("memory")
        };
        let path = docker(dir.path(), &layer, &["docker.io/library/x:latest", "h.io:5000/y:v1"]);
        for name in [None, Some("x"), Some("h.io:5000/y:v1"), Some("docker.io/library/x:latest")] {
            let store = Archive::docker(&path, name).expect("an archive");
            let image = store.image("linux/amd64").expect("an image");
            let layers = &image.manifest.layers;
            assert_eq!((layers.len(), layers[0].media_type.as_str()), (2, names::DOCKER_LAYER_TAR));
            assert_eq!(read(&store, &layers[1]).expect("there"), layer);
        }
        let error = Archive::docker(&path, Some("z")).expect_err("no such name").to_string();
        assert!(error.contains("names there: docker.io/library/x:latest, h.io:5000/y:v1"), "{error}");
        let error = Archive::oci(&path, None).expect_err("not a layout").to_string();
        assert!(error.contains("docker-archive:"), "{error}");

        // Compressed layers, which some tools put there.
        let manifest = json!([{ "Config": "c.json", "Layers": ["l"] }]).to_string();
        let items =
            [Item::file("c.json", config(&[&layer])), Item::file("l", &gzip), Item::file("manifest.json", manifest)];
        fs::write(&path, archive(&items)).expect("written");
        let store = Archive::docker(&path, None).expect("an archive");
        let image = store.image("linux/amd64").expect("an image");
        assert_eq!(image.manifest.layers[0], blob(&gzip, names::DOCKER_LAYER_GZIP));
        assert_eq!(read(&store, &image.manifest.layers[0]).expect("there"), gzip);
    }

    #[test]
    fn damaged_archives_are_errors() {
        let dir = tempfile::tempdir().expect("a folder");
        let layer = archive(&[Item::file("a", bytes())]);
        let path = docker(dir.path(), &layer, &[]);
        let whole = fs::read(&path).expect("there");
        assert_eq!(
            Archive::docker(&dir.path().join("no"), None).expect_err("missing").kind(),
            super::super::Kind::NotFound
        );
        for cut in [100, 513, whole.len() / 2, whole.len() - 2000] {
            fs::write(&path, &whole[..cut]).expect("written");
            Archive::docker(&path, None).and_then(|a| a.image("linux/amd64")).expect_err("cut off");
        }
        // A layer with other content.
        let at = whole.windows(8).position(|w| w == b"somebyte").expect("the layer");
        let mut other = whole.clone();
        other[at] ^= 1;
        fs::write(&path, &other).expect("written");
        let store = Archive::docker(&path, None).expect("an archive");
        let image = store.image("linux/amd64").expect("an image");
        assert!(matches!(read(&store, &image.manifest.layers[0]).expect_err("altered"), Error::Corrupt { .. }));
        for text in ["", "{}", "[]", "[{}]", r#"[{"Config":"x","Layers":[]}]"#, "no json"] {
            fs::write(&path, archive(&[Item::file("manifest.json", text)])).expect("written");
            Archive::docker(&path, None).expect_err(text);
        }
    }

    proptest::proptest! {
        #[test]
        fn damage_anywhere_is_an_error_or_harmless(
            cut in 0_usize..12_000, at in 0_usize..12_000, value in proptest::prelude::any::<u8>(),
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let layer = archive(&[Item::file("a", bytes())]);
            let path = docker(dir.path(), &layer, &["x:y"]);
            let mut damaged = fs::read(&path).expect("there");
            let length = damaged.len();
            damaged[at % length] = value;
            damaged.truncate(cut.max(length / 2));
            fs::write(&path, &damaged).expect("written");
            if let Ok(store) = Archive::docker(&path, None)
                && let Ok(image) = store.image("linux/amd64")
            {
                for there in &image.manifest.layers {
                    if let Ok(read) = read(&store, there) {
                        proptest::prop_assert_eq!(Digest::of(&read), there.digest);
                    }
                }
            }
            let _ = Archive::oci(&path, None);
        }
    }

    fn bytes() -> Vec<u8> {
        b"somebytes of a file that is not read whole by anybody".repeat(100)
    }
}
