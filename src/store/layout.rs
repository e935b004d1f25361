//! An OCI image layout folder (OCI image spec, "Image Layout").
//!
//! Blobs appear by link or rename when they are complete and hashed; `index.json` is replaced by rename under a lock. A
//! process that is killed leaves at most a nameless or a dotted temporary file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::file::{Unnamed, copy, failed, temporary};
use super::select::{self, Document};
use super::verified::Verified;
use super::{Blobs, Error, FileAt, Images, ReadAt};
use crate::digest::Digest;
use crate::image::manifest::MAX_JSON_BYTES;
use crate::image::{Descriptor, Image, names};

mod referrers;

/// Annotation of an `index.json` entry: the tag.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const VERSION: &str = "1.0.0";

/// An image layout folder, and in it one image by its tag.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    tag: Option<String>,
    /// `oci:DIR[:TAG]`, as it stands in messages.
    name: String,
}

impl Layout {
    /// Opens a folder. `write`: creates it when it is missing or empty.
    pub fn open(dir: &Path, tag: Option<&str>, write: bool) -> Result<Self, Error> {
        let name = tag.map_or_else(|| format!("oci:{}", dir.display()), |t| format!("oci:{}:{t}", dir.display()));
        let layout = Self { dir: dir.into(), tag: tag.map(Into::into), name };
        if write {
            layout.create()?;
        }
        layout.check_version()?;
        Ok(layout)
    }

    fn create(&self) -> Result<(), Error> {
        let marker = self.marker();
        let missing = !marker.exists();
        let foreign = || fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_some());
        if missing && foreign() {
            return Err(Error::Unsupported {
                what: format!("writing to {}", self.dir.display()),
                why: "the folder is neither empty nor an OCI image layout (no file oci-layout)".into(),
            });
        }
        let blobs = self.blobs();
        fs::create_dir_all(&blobs).map_err(|e| failed(e, "creating", &blobs, 0))?;
        if missing {
            let content = format!("{}\n", json!({ "imageLayoutVersion": VERSION }));
            replace(&marker, content.as_bytes())?;
        }
        let _lock = self.lock()?;
        let index = self.index_path();
        if !index.exists() {
            let empty = json!({ "schemaVersion": 2, "mediaType": names::INDEX, "manifests": [] });
            replace(&index, empty.to_string().as_bytes())?;
        }
        Ok(())
    }

    fn check_version(&self) -> Result<(), Error> {
        let marker = self.marker();
        let what = || marker.display().to_string();
        let bytes = read_small(&marker).map_err(|e| self.missing(e, &marker))?;
        let version = serde_json::from_slice::<Value>(&bytes)
            .map_err(|source| crate::image::Error::Json { what: what(), source })?
            .get("imageLayoutVersion")
            .and_then(|v| v.as_str().map(ToOwned::to_owned));
        // Every 1.x is readable by a reader of 1.0 (semantic versioning; there has been none other).
        if version.as_deref().is_none_or(|v| !v.starts_with("1.")) {
            let found = version.unwrap_or_else(|| "none".into());
            return Err(Error::Unsupported {
                what: what(),
                why: format!("imageLayoutVersion is {found}: expected {VERSION}"),
            });
        }
        Ok(())
    }

    fn missing(&self, e: io::Error, path: &Path) -> Error {
        if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            return Error::NotFound {
                what: "an OCI image layout".into(),
                place: self.dir.display().to_string(),
                why: format!(" (no file {file})"),
            };
        }
        failed(e, "reading", path, 0)
    }

    fn marker(&self) -> PathBuf {
        self.dir.join("oci-layout")
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    /// Hex digits of a parsed digest: no path can lead out of the folder.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Keeps other writers of the index out while the value lives; the lock ends with the process.
    fn lock(&self) -> Result<File, Error> {
        let path = self.marker();
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.and_then(|f| f.lock().map(|()| f));
        file.map_err(|e| failed(e, "locking", &path, 0))
    }

    fn index(&self) -> Result<Value, Error> {
        let path = self.index_path();
        let bytes = read_small(&path).map_err(|e| self.missing(e, &path))?;
        let what = || path.display().to_string();
        Ok(serde_json::from_slice(&bytes).map_err(|source| crate::image::Error::Json { what: what(), source })?)
    }

    fn no_blob(&self, digest: &Digest) -> Error {
        Error::NotFound { what: format!("blob {digest}"), place: self.name.clone(), why: String::new() }
    }

    /// Opens a blob file of the right size.
    fn blob_file(&self, blob: &Descriptor) -> Result<FileAt, Error> {
        let path = self.blob_path(&blob.digest);
        let file = File::open(&path).and_then(FileAt::new).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => self.no_blob(&blob.digest),
            _ => failed(e, "opening", &path, 0),
        })?;
        if file.size != blob.size {
            return Err(Error::Corrupt {
                what: format!("blob {} in {}", blob.digest, self.name),
                expected: format!("{} bytes", blob.size),
                found: format!("{} bytes", file.size),
            });
        }
        Ok(file)
    }

    /// Stores a manifest as a blob. What it names must be there first.
    fn put_checked(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        for blob in select::referred(bytes, &format!("the manifest for {}", self.name))? {
            // Opening checks the size too.
            self.blob_file(&blob)?;
        }
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        self.put(&descriptor, &bytes.to_vec())?;
        Ok(descriptor)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        Ok(Document { descriptor: descriptor.clone(), bytes: select::read_json(self, descriptor, &self.name)? })
    }
}

impl Blobs for Layout {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let file = self.blob_file(blob)?.file;
        Ok(Box::new(Verified::new(file, blob, &self.name)))
    }

    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        Ok(Box::new(self.blob_file(blob)?))
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.blob_path(digest);
        path.try_exists().map_err(|e| failed(e, "looking for", &path, 0))
    }

    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        let path = self.blob_path(&blob.digest);
        let size_there = fs::metadata(&path).map(|m| m.len());
        if size_there.is_ok_and(|s| s == blob.size) {
            return Ok(());
        }
        let what = format!("blob {} for {}", blob.digest, self.name);
        if let Some(new) = content.give_away().and_then(|file| Unnamed::of(file, &self.blobs())) {
            copy(content, blob, io::sink(), &path, &what)?;
            if new.publish(&path).is_ok() {
                return Ok(());
            }
        }
        let new =
            Unnamed::create(&self.blobs()).map_err(|e| failed(e, "creating a file in", &self.blobs(), blob.size))?;
        copy(content, blob, new.file(), &path, &what)?;
        new.publish(&path).map_err(|e| failed(e, "writing", &path, blob.size))
    }
}

impl Images for Layout {
    fn image(&self, platform: &str) -> Result<Image, Error> {
        select::image(self, self.manifest(None)?, platform, &self.name, &|d| self.document(d))
    }

    fn manifest(&self, of: Option<&Descriptor>) -> Result<Document, Error> {
        match of {
            Some(descriptor) => self.document(descriptor),
            None => select::tagged(&self.index()?, self.tag.as_deref(), &self.name, &|d| self.document(d)),
        }
    }

    fn put_part(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        Ok(self.put_checked(media_type, bytes)?.digest)
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let mut descriptor = self.put_checked(media_type, bytes)?;
        let digest = descriptor.digest;
        if let Some(tag) = &self.tag {
            descriptor.annotations.push((REF_NAME.into(), tag.clone()));
        }
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let what = self.index_path().display().to_string();
        let list = index.get_mut("manifests").and_then(Value::as_array_mut);
        let list = list.ok_or_else(|| Error::Malformed { what, why: "no list of manifests".into() })?;
        let tag_of = |entry: &Value| Some(entry.get("annotations")?.get(REF_NAME)?.as_str()?.to_owned());
        let is_artifact = |entry: &Value| self.tag.is_none() && entry.get("artifactType").is_some();
        // The new entry stands where the first of its tag stood; what was said about the old manifest goes with it.
        let mut new = Some(descriptor.to_json());
        for entry in std::mem::take(list) {
            if tag_of(&entry) == self.tag && !is_artifact(&entry) {
                list.extend(new.take());
            } else {
                list.push(entry);
            }
        }
        list.extend(new);
        replace(&self.index_path(), index.to_string().as_bytes())?;
        Ok(digest)
    }
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {MAX_JSON_BYTES} bytes of JSON")));
    }
    Ok(bytes)
}

/// Puts a whole file in the place of another.
fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = temporary(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(content)?;
        file.persist(path).map(drop).map_err(io::Error::from)
    };
    write().map_err(|e| failed(e, "writing", path, content.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    pub(super) struct Folder(tempfile::TempDir);

    impl Folder {
        pub(super) fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        pub(super) fn path(&self) -> PathBuf {
            self.0.path().join("layout")
        }

        pub(super) fn open(&self, tag: Option<&str>) -> Layout {
            Layout::open(&self.path(), tag, true).expect("a layout")
        }

        pub(super) fn index(&self) -> Value {
            serde_json::from_slice(&fs::read(self.path().join("index.json")).expect("an index")).expect("JSON")
        }

        fn files(&self) -> Vec<String> {
            let mut names: Vec<_> = [self.path(), self.path().join("blobs/sha256")]
                .iter()
                .flat_map(|d| fs::read_dir(d).expect("a folder"))
                .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    fn put(layout: &Layout, content: &[u8]) -> Descriptor {
        let blob = Descriptor::new(names::LAYER_TAR, Digest::of(content), content.len() as u64);
        layout.put(&blob, &content.to_vec()).expect("put");
        blob
    }

    pub(super) fn image(layout: &Layout, text: &str) -> (Vec<u8>, Digest) {
        let layer = put(layout, text.as_bytes());
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.digest.to_string()]}});
        let mut config = put(layout, config.to_string().as_bytes());
        config.media_type = names::CONFIG.into();
        let manifest = json!({"schemaVersion": 2, "mediaType": names::MANIFEST, "config": config.to_json(), "layers": [layer.to_json()]});
        let bytes = manifest.to_string().into_bytes();
        let digest = layout.put_manifest(names::MANIFEST, &bytes).expect("put");
        (bytes, digest)
    }

    #[test]
    fn a_tag_is_replaced_and_the_rest_of_the_index_stays() {
        let folder = Folder::new();
        image(&folder.open(Some("a")), "one");
        let (_, kept) = image(&folder.open(Some("b")), "two");
        let mut index = folder.index();
        index["vendor"] = json!({"unknown": [1]});
        index["manifests"][0]["annotations"]["about"] = "the old one".into();
        index["manifests"][1]["future"] = true.into();
        fs::write(folder.path().join("index.json"), index.to_string()).expect("written");
        let (_, new) = image(&folder.open(Some("a")), "three");
        let after = folder.index();
        assert_eq!(after["vendor"], index["vendor"]);
        assert_eq!(after["manifests"][1], index["manifests"][1]);
        assert_eq!(after["manifests"][0]["digest"], new.to_string());
        assert_eq!(after["manifests"][0]["annotations"], json!({REF_NAME: "a"}));
        assert_eq!(after["manifests"].as_array().expect("a list").len(), 2);
        assert_eq!(folder.open(Some("a")).image("linux/amd64").expect("an image").descriptor.digest, new);
        assert_eq!(folder.open(Some("b")).image("linux/amd64").expect("an image").descriptor.digest, kept);
    }

    #[test]
    fn without_a_tag_there_must_be_one_image() {
        let folder = Folder::new();
        let error = folder.open(None).image("linux/amd64").expect_err("nothing there");
        assert_eq!(error.kind(), super::super::Kind::NotFound);
        let (_, digest) = image(&folder.open(Some("b")), "one");
        assert_eq!(folder.open(None).image("linux/amd64").expect("the only one").descriptor.digest, digest);
        image(&folder.open(Some("a")), "two");
        let error = folder.open(None).image("linux/amd64").expect_err("which").to_string();
        assert!(error.contains("several") && error.contains("a, b"), "{error}");
        let error = folder.open(Some("c")).image("linux/amd64").expect_err("none").to_string();
        assert!(error.contains("layout:c") && error.contains("tags there: a, b"), "{error}");
    }

    #[test]
    fn an_image_without_a_tag_is_replaced_by_the_next() {
        let folder = Folder::new();
        image(&folder.open(None), "one");
        let (_, digest) = image(&folder.open(None), "two");
        assert_eq!(folder.open(None).image("linux/amd64").expect("the only one").descriptor.digest, digest);
    }

    #[test]
    fn an_index_in_the_index_is_followed() {
        let folder = Folder::new();
        let (bytes, digest) = image(&folder.open(Some("plain")), "one");
        let mut entry = Descriptor::new(names::MANIFEST, digest, bytes.len() as u64).to_json();
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let index = json!({"schemaVersion": 2, "mediaType": names::INDEX, "manifests": [entry]});
        let layout = folder.open(Some("multi"));
        layout.put_manifest(names::INDEX, index.to_string().as_bytes()).expect("put");
        assert_eq!(layout.image("linux/amd64").expect("an image").descriptor.digest, digest);
        let error = layout.image("linux/arm64").expect_err("not there");
        assert!(error.to_string().contains("found linux/amd64"), "{error}");
    }

    #[test]
    fn several_entries_of_one_tag_are_an_index_of_them() {
        let folder = Folder::new();
        image(&folder.open(Some("a")), "one");
        image(&folder.open(Some("b")), "two");
        let mut index = folder.index();
        for (i, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
            index["manifests"][i]["annotations"] = json!({REF_NAME: "t", "kept": "yes"});
            index["manifests"][i]["platform"] = json!({"os": "linux", "architecture": architecture});
        }
        fs::write(folder.path().join("index.json"), index.to_string()).expect("written");
        let layout = folder.open(Some("t"));
        let found: Value = serde_json::from_slice(&layout.manifest(None).expect("there").bytes).expect("JSON");
        assert_eq!(found["manifests"][1]["annotations"], json!({"kept": "yes"}));
        let picked = layout.image("linux/arm64").expect("an image").descriptor.digest.to_string();
        assert_eq!(found["manifests"][1]["digest"], picked);
    }

    #[test]
    fn a_folder_that_is_something_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Layout::open(folder.path(), None, false).expect_err("no layout").to_string();
        assert!(error.contains("no file oci-layout"), "{error}");
        fs::write(folder.path().join("letter.txt"), "dear").expect("written");
        assert!(matches!(Layout::open(folder.path(), None, true), Err(Error::Unsupported { .. })));
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).expect("written");
        assert!(matches!(Layout::open(folder.path(), None, false), Err(Error::Unsupported { .. })));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn a_failed_put_leaves_no_file() {
        let folder = Folder::new();
        let layout = folder.open(None);
        let before = folder.files();
        let blob = Descriptor::new("t", Digest::of(b"right"), 5);
        assert!(matches!(layout.put(&blob, &b"wrong".to_vec()), Err(Error::Corrupt { .. })));
        assert!(matches!(layout.put(&blob, &b"longer".to_vec()), Err(Error::Corrupt { .. })));
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn a_short_blob_is_put_again() {
        let folder = Folder::new();
        let layout = folder.open(None);
        let blob = Descriptor::new("t", Digest::of(b"right"), 5);
        fs::write(layout.blob_path(&blob.digest), "rig").expect("written");
        assert!(matches!(layout.open(&blob).map(drop), Err(Error::Corrupt { .. })));
        layout.put(&blob, &b"right".to_vec()).expect("put");
        assert_eq!(fs::read(layout.blob_path(&blob.digest)).expect("there"), b"right");
        assert_eq!(folder.files().iter().filter(|f| f.starts_with('.')).count(), 0);
    }

    #[test]
    fn a_file_with_a_name_is_published_as_a_nameless_one() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, new) in [
            ("nameless", Unnamed::create(folder.path()).expect("a file")),
            ("temporary", Unnamed::Temporary(temporary(folder.path()).expect("a file"))),
        ] {
            new.file().write_all(b"x").expect("written");
            let path = folder.path().join(name);
            assert!(!path.exists());
            new.publish(&path).expect("published");
            assert_eq!(fs::read(&path).expect("there"), b"x");
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o444, 0o444, "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn a_full_disk_names_path_and_bytes() {
        let error = failed(io::ErrorKind::StorageFull.into(), "writing", Path::new("/a/b"), 7);
        assert_eq!(error.kind(), super::super::Kind::Full);
        assert_eq!(error.to_string(), "no space left for 7 bytes at /a/b");
    }

    /// Runs in a process of its own, below: content that never ends.
    #[test]
    #[ignore = "a part of the next test"]
    fn a_put_that_hangs_in_the_middle() {
        struct Hangs(PathBuf);
        impl ReadAt for Hangs {
            fn size(&self) -> u64 {
                5 << 20
            }
            fn read_exact_at(&self, _: &mut [u8], offset: u64) -> io::Result<()> {
                if offset >= 3 << 20 {
                    fs::write(&self.0, "")?;
                    std::thread::sleep(std::time::Duration::from_mins(1));
                }
                Ok(())
            }
        }
        let dir = PathBuf::from(std::env::var_os("ESGZ_TEST_DIR").expect("ESGZ_TEST_DIR"));
        let layout = Layout::open(&dir.join("layout"), None, true).expect("a layout");
        let _killed = layout.put(&Descriptor::new("t", Digest::of(b""), 5 << 20), &Hangs(dir.join("half way")));
    }

    #[test]
    fn a_writer_that_is_killed_leaves_no_half_blob() {
        let folder = Folder::new();
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "--ignored", "store::layout::tests::a_put_that_hangs_in_the_middle"])
            .env("ESGZ_TEST_DIR", folder.0.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("this test again");
        let half_way = folder.0.path().join("half way");
        for _ in 0..1000 {
            if half_way.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        child.kill().and_then(|()| child.wait()).expect("killed");
        assert!(half_way.exists(), "it was writing");
        assert_eq!(folder.files(), ["blobs", "index.json", "oci-layout"]);
    }

    #[test]
    #[ignore = "needs a folder on a file system of 1 MB: ESGZ_TEST_SMALL=dir"]
    fn a_disk_that_fills_up_leaves_nothing_behind() {
        let dir = PathBuf::from(std::env::var_os("ESGZ_TEST_SMALL").expect("ESGZ_TEST_SMALL")).join("layout");
        let layout = Layout::open(&dir, None, true).expect("a layout");
        let content = vec![7; 2_000_000];
        let blob = Descriptor::new("t", Digest::of(&content), 2_000_000);
        let error = layout.put(&blob, &content).expect_err("full");
        let path = layout.blob_path(&blob.digest);
        assert_eq!(error.to_string(), format!("no space left for 2000000 bytes at {}", path.display()));
        assert_eq!(fs::read_dir(layout.blobs()).expect("a folder").count(), 0);
        put(&layout, b"there is space again");
    }

    #[test]
    fn writers_of_one_folder_do_not_lose_each_others_tags() {
        let folder = Folder::new();
        folder.open(None);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let folder = &folder;
                scope.spawn(move || image(&folder.open(Some(&format!("t{i}"))), &format!("layer {}", i / 2)));
            }
        });
        assert_eq!(folder.index()["manifests"].as_array().expect("a list").len(), 8);
    }

    #[test]
    fn altered_json_is_corrupt() {
        let folder = Folder::new();
        let layout = folder.open(Some("a"));
        let (bytes, digest) = image(&layout, "one");
        fs::write(layout.blob_path(&digest), [b" ", &bytes[1..]].concat()).expect("written");
        let error = layout.image("linux/amd64").expect_err("altered");
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }

    /// A file that may be kept.
    struct Given(File);

    impl ReadAt for Given {
        fn size(&self) -> u64 {
            self.0.metadata().expect("a file").len()
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset)
        }

        fn give_away(&self) -> Option<&File> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_file_without_a_name_on_the_same_file_system_becomes_the_blob() {
        use std::os::unix::fs::MetadataExt;
        let folder = Folder::new();
        let layout = folder.open(None);
        let given = |dir: &Path| {
            let file = super::super::nameless(dir).expect("a file");
            (&file).write_all(b"content").expect("written");
            Given(file)
        };
        let blob = Descriptor::new(names::LAYER_TAR, Digest::of(b"content"), 7);
        let other = Descriptor::new(names::LAYER_TAR, Digest::of(b"another"), 7);
        let error = layout.put(&other, &given(folder.0.path())).expect_err("not what it should be");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(!layout.has(&other.digest).expect("asked"));

        let file = given(folder.0.path());
        layout.put(&blob, &file).expect("put");
        let there = fs::metadata(layout.blob_path(&blob.digest)).expect("the blob");
        assert_eq!(there.ino(), file.0.metadata().expect("a file").ino(), "not a copy");
        assert_eq!(there.nlink(), 1);

        // A file that had a name and lost it cannot get another one, nor can one of another file system: they are copied.
        for dir in [folder.0.path(), Path::new("/dev/shm")] {
            fs::remove_file(layout.blob_path(&blob.digest)).expect("removed");
            let mut lost = tempfile::NamedTempFile::new_in(dir).expect("a file");
            lost.write_all(b"content").expect("written");
            let lost = lost.into_file();
            layout.put(&blob, &Given(lost)).expect("put");
            assert_eq!(fs::read(layout.blob_path(&blob.digest)).expect("the blob"), b"content");
        }
    }
}
