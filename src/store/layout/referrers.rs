//! Artifacts in a layout folder: entries of `index.json` without a tag, as OCI tools write them, so that a copy of the folder takes
//! them along. Tools that keep the tag schema in folders too are understood.

use serde_json::Value;

use super::super::referrers::{self, Referrer, Referrers};
use super::{Layout, REF_NAME, replace};
use crate::digest::Digest;
use crate::store::{Error, Images, select};

impl Referrers for Layout {
    fn referrers(&self, subject: &Digest, artifact_type: &str) -> Result<Vec<Referrer>, Error> {
        let what = self.index_path().display().to_string();
        let tag = referrers::tag(subject);
        let mut all = Vec::new();
        for entry in select::entries(&self.index()?, &what)? {
            match entry.descriptor.annotation(REF_NAME) {
                Some(name) if name == tag => {
                    let document = self.document(&entry.descriptor)?;
                    if let Some(index) = select::as_index(&document, &what)? {
                        all.extend(referrers::listed(&index, artifact_type, &format!("tag {tag} in {}", self.name))?);
                    }
                }
                Some(_) => {}
                None => all.extend(Some(Referrer::of(&entry)).filter(|r| r.may_be(artifact_type))),
            }
        }
        referrers::bounded(all.len(), &what)?;
        Ok(all)
    }

    fn put_referrer(
        &self,
        _subject: &Digest,
        referrer: &Referrer,
        manifest: &[u8],
        replaced: &[Digest],
    ) -> Result<Vec<Error>, Error> {
        self.put_part(&referrer.descriptor.media_type, manifest)?;
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let what = self.index_path().display().to_string();
        let list = index.get_mut("manifests").and_then(Value::as_array_mut);
        let list = list.ok_or_else(|| Error::Malformed { what, why: "no list of manifests".into() })?;
        referrers::merge(list, referrer, replaced);
        replace(&self.index_path(), index.to_string().as_bytes())?;
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, image};
    use super::*;
    use crate::image::{Descriptor, names};
    use crate::store::Blobs;

    const KIND: &str = "a/b";

    fn artifact(layout: &Layout, subject: &Digest, text: &str, replaced: &[Digest]) -> Referrer {
        let empty = Descriptor::new(names::EMPTY, Digest::of(b"{}"), 2);
        layout.put(&empty, &b"{}".to_vec()).expect("put");
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": names::MANIFEST, "artifactType": KIND, "config": empty.to_json(),
            "layers": [empty.to_json()], "annotations": {"about": text},
        });
        let bytes = manifest.to_string().into_bytes();
        let descriptor = Descriptor::new(names::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        let referrer = Referrer { descriptor, artifact_type: Some(KIND.into()) };
        layout.put_referrer(subject, &referrer, &bytes, replaced).expect("put");
        referrer
    }

    #[test]
    fn an_artifact_is_listed_and_takes_no_image_away() {
        let folder = Folder::new();
        let (_, subject) = image(&folder.open(Some("v1")), "one");
        let old = artifact(&folder.open(None), &subject, "old", &[]);
        let new = artifact(&folder.open(Some("v1")), &subject, "new", &[old.descriptor.digest]);
        let typed = |kind| {
            let mut list = folder.open(None).referrers(&subject, kind).expect("a list");
            list.retain(|r| r.artifact_type.is_some());
            list
        };
        assert_eq!(typed(KIND), std::slice::from_ref(&new));
        assert!(typed("c/d").is_empty());
        for tag in [Some("v1"), None] {
            assert_eq!(folder.open(tag).image("linux/amd64").expect("the image").descriptor.digest, subject);
        }
        // An image without a tag takes the place of the one before it, not of what is about it.
        let (_, untagged) = image(&folder.open(None), "two");
        assert_eq!(typed(KIND), [new]);
        let (_, last) = image(&folder.open(None), "three");
        let digests: Vec<_> = folder.index()["manifests"].as_array().expect("a list").clone();
        let has = |d: Digest| digests.iter().any(|e| e["digest"] == d.to_string());
        assert!(has(last) && has(subject) && !has(untagged));
    }

    #[test]
    fn a_list_under_the_tag_of_the_schema_is_read_too() {
        let folder = Folder::new();
        let (_, subject) = image(&folder.open(Some("v1")), "one");
        let listed = artifact(&folder.open(None), &subject, "it", &[]);
        let mut index = referrers::empty();
        index["manifests"] = serde_json::json!([listed.to_json()]);
        let tag = referrers::tag(&subject);
        folder.open(Some(&tag)).put_manifest(names::INDEX, index.to_string().as_bytes()).expect("put");
        let mut json = folder.index();
        json["manifests"].as_array_mut().expect("a list").retain(|e| e.get("artifactType").is_none());
        std::fs::write(folder.path().join("index.json"), json.to_string()).expect("written");
        assert_eq!(folder.open(None).referrers(&subject, KIND).expect("a list"), [listed]);
        assert_eq!(folder.open(None).image("linux/amd64").expect("the only image").descriptor.digest, subject);
    }
}
