//! An image whose entrypoint first starts the read-ahead that the image carries. The entrypoint is wrapped, and the original kept in
//! an annotation of the manifest, so that it can be put back.

use serde_json::{Value, json};

use super::names;

/// Folder of the image that holds program and profile.
pub const FOLDER: &str = "/.esgz";
/// Name of the program in it.
pub const PROGRAM: &str = "esgz";
/// Name of the profile in it.
pub const PROFILE: &str = "profile.json";
/// What stands in front of the original entrypoint.
const PREFIX: [&str; 3] = ["/.esgz/esgz", "warm", "--"];

/// Wraps the entrypoint of a config and gives the original for the annotation; `None` where the config starts nothing.
pub fn wrap(config: &mut Value) -> Option<String> {
    let inner = config.get("config")?;
    let list = |key: &str| inner.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    // Nothing for none, which is not the same text as null.
    let (entrypoint, original) = (list("Entrypoint"), inner.get("Entrypoint").map(Value::to_string));
    if entrypoint.is_empty() && list("Cmd").is_empty() {
        return None;
    }
    let wrapped: Vec<Value> = PREFIX.iter().map(|s| json!(s)).chain(entrypoint).collect();
    config["config"]["Entrypoint"] = json!(wrapped);
    Some(original.unwrap_or_default())
}

/// Puts the original back where a manifest says that it was wrapped and the config shows it; whether it did.
pub fn unwrap(manifest: &Value, config: &mut Value) -> bool {
    let original = manifest.get("annotations").and_then(|a| a.get(names::ENTRYPOINT)).and_then(Value::as_str);
    let original = match original {
        None => return false,
        Some("") => None,
        Some(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => Some(value),
            Err(_) => return false,
        },
    };
    let Some(inner) = config.get_mut("config").and_then(Value::as_object_mut) else { return false };
    let kept = original.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let wrapped: Vec<Value> = PREFIX.iter().map(|s| json!(s)).chain(kept).collect();
    if inner.get("Entrypoint") != Some(&json!(wrapped)) {
        return false;
    }
    match original {
        None => inner.shift_remove("Entrypoint"),
        Some(value) => inner.insert("Entrypoint".into(), value),
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(original: &str) -> Value {
        json!({ "annotations": { names::ENTRYPOINT: original } })
    }

    #[test]
    fn what_is_wrapped_is_put_back_as_it_was() {
        for inner in [
            json!({ "Entrypoint": ["python3", "-m", "x"], "Cmd": ["--y"], "Env": ["A=b"] }),
            json!({ "Cmd": ["sh"], "Entrypoint": [] }),
            json!({ "Cmd": ["sh"], "Entrypoint": null }),
            json!({ "Cmd": ["sh"] }),
            json!({ "Entrypoint": ["only"] }),
        ] {
            let before = json!({ "config": inner, "os": "linux" });
            let mut config = before.clone();
            let original = wrap(&mut config).expect("it starts something");
            assert_eq!(config["config"]["Entrypoint"][0], "/.esgz/esgz");
            assert!(unwrap(&manifest(&original), &mut config));
            assert_eq!(config, before);
        }
    }

    #[test]
    fn an_image_that_starts_nothing_is_not_wrapped() {
        for mut config in [json!({}), json!({ "config": {} }), json!({ "config": { "Cmd": [], "Entrypoint": [] } })] {
            assert_eq!(wrap(&mut config), None);
        }
    }

    #[test]
    fn another_entrypoint_than_ours_is_left_alone() {
        let before = json!({ "config": { "Entrypoint": ["/.esgz/esgz", "warm", "--", "other"] } });
        let mut config = before.clone();
        for manifest in [manifest("[\"mine\"]"), manifest("no json"), json!({})] {
            assert!(!unwrap(&manifest, &mut config));
            assert_eq!(config, before);
        }
    }
}
