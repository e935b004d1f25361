//! The read-ahead put into a container without a change to its image: the static binary and a profile as read-only mounts, a folder for
//! what it says of itself, and the image's own command behind it. Hidden here: where all that lies in the container, and how a
//! static program is told from one that would look for the image's libraries.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Error;
use crate::elf;

/// Where binary and profile lie in the container.
const BINARY: &str = "/.esgz-warm/esgz";
const PROFILE: &str = "/.esgz-warm/profile.json";
/// The folder that is written to, and the file in it.
const OUT: &str = "/.esgz-warm-out";
const REPORT: &str = "warm.json";
/// Largest report that is read, bytes.
const LIMIT: u64 = 16 << 20;

/// What is put into one container.
#[derive(Debug)]
pub struct Injection {
    /// A static `esgz`.
    pub binary: PathBuf,
    /// The profile.
    pub profile: PathBuf,
    /// A folder for its report, new for each run.
    pub out: PathBuf,
    /// The workload's own command.
    pub command: Vec<String>,
}

impl Injection {
    /// Makes the folder; anybody may write there, since the workload may be any user.
    pub fn new(binary: &Path, profile: &Path, out: PathBuf, command: &[String]) -> Result<Self, Error> {
        let _gone = fs::remove_dir_all(&out);
        fs::create_dir(&out)
            .and_then(|()| fs::set_permissions(&out, Permissions::from_mode(0o777)))
            .map_err(Error::io(format!("making {}", out.display())))?;
        let absolute = |path: &Path| fs::canonicalize(path).map_err(Error::io(format!("finding {}", path.display())));
        Ok(Self { binary: absolute(binary)?, profile: absolute(profile)?, out, command: command.into() })
    }

    /// Program and arguments, as the CRI wants them.
    pub(super) fn words(&self) -> (Vec<String>, Vec<String>) {
        let report = format!("{OUT}/{REPORT}");
        let ours = ["warm", "--profile", PROFILE, "--json", &report, "--"];
        let args = ours.iter().map(|w| (*w).to_owned()).chain(self.command.iter().cloned()).collect();
        (vec![BINARY.into()], args)
    }

    /// Mounts, as the CRI wants them.
    pub(super) fn mounts(&self) -> Value {
        let mount = |to: &str, from: &Path, readonly: bool| json!({ "container_path": to, "host_path": from, "readonly": readonly });
        json!([mount(BINARY, &self.binary, true), mount(PROFILE, &self.profile, true), mount(OUT, &self.out, false)])
    }

    /// Its report, once it is whole.
    pub fn report(&self) -> Option<Value> {
        read(&self.out.join(REPORT))
    }
}

/// A JSON file that may not be there yet, or only in part.
pub(super) fn read(file: &Path) -> Option<Value> {
    let file = File::open(file).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > LIMIT {
        return None;
    }
    serde_json::from_reader(std::io::BufReader::new(file)).ok()
}

/// The command of an image: its entrypoint, then `args` or, when there are none, its cmd.
pub(super) fn command(config: &Value, args: &[String], image: &str) -> Result<Vec<String>, Error> {
    let words = |key: &str| -> Vec<String> {
        let list = config["config"][key].as_array();
        list.into_iter().flatten().filter_map(|w| w.as_str().map(Into::into)).collect()
    };
    let mut command = words("Entrypoint");
    command.extend(if args.is_empty() { words("Cmd") } else { args.to_vec() });
    if command.is_empty() {
        return Err(Error::Options(format!("{image} has neither entrypoint nor cmd: nothing to read ahead for")));
    }
    Ok(command)
}

/// Refuses a binary that asks for a dynamic linker, which the image may not have, or not the right one.
pub(super) fn must_be_static(binary: &Path) -> Result<(), Error> {
    let file = File::open(binary).map_err(Error::io(format!("opening {}", binary.display())))?;
    match elf::head(|buf, at| file.read_exact_at(buf, at)) {
        Ok(head) if head.interpreter.is_none() => Ok(()),
        Ok(_) => Err(Error::Dynamic(binary.into())),
        Err(source) => Err(Error::Io { what: format!("reading {} as an ELF program", binary.display()), source }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use std::io::Write;

    use super::*;

    fn elf(kinds: &[u32]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&elf::sample(62, kinds)).unwrap();
        file
    }

    #[test]
    fn a_program_that_wants_a_linker_is_refused() {
        assert!(must_be_static(elf(&[6, 1, 1]).path()).is_ok());
        let e = must_be_static(elf(&[6, 1, 3]).path()).unwrap_err();
        assert!(matches!(e, Error::Dynamic(_)), "{e}");
        let says = |file: &Path| must_be_static(file).unwrap_err().chain();
        assert!(says(elf(&[]).path()).contains("no program headers"));
        let cut = elf(&[6, 1]);
        cut.as_file().set_len(122).unwrap();
        assert!(says(cut.path()).contains("ELF"));
        let script = tempfile::NamedTempFile::new().unwrap();
        script.as_file().write_all_at(&[b'#'; 100], 0).unwrap();
        assert!(says(script.path()).contains("no 64-bit"));
        assert!(says(Path::new("/no/such")).contains("/no/such"));
        // Headers beyond the end of what an offset can say.
        let wild = elf(&[6, 1]);
        wild.as_file().write_all_at(&[0xff; 8], 32).unwrap();
        assert!(says(wild.path()).contains("ELF"));
    }

    #[test]
    fn the_images_own_command_comes_behind_the_reader() {
        let config = json!({ "config": { "Entrypoint": ["/bin/server", "run"], "Cmd": ["--host", "h"] } });
        assert_eq!(command(&config, &[], "i").unwrap(), ["/bin/server", "run", "--host", "h"]);
        assert_eq!(command(&config, &["--x".into()], "i").unwrap(), ["/bin/server", "run", "--x"]);
        assert_eq!(command(&json!({ "config": { "Cmd": ["sh"] } }), &[], "i").unwrap(), ["sh"]);
        assert!(command(&json!({ "config": null }), &[], "i").unwrap_err().to_string().contains("neither"));

        let dir = tempfile::tempdir().unwrap();
        let (binary, profile, out) = (dir.path().join("b"), dir.path().join("p"), dir.path().join("out"));
        assert!(Injection::new(&binary, &profile, out.clone(), &[]).is_err(), "nothing there");
        fs::write(&binary, "").unwrap();
        fs::write(&profile, "").unwrap();
        let injection = Injection::new(&binary, &profile, out.clone(), &["sh".into(), "-c".into()]).unwrap();
        let (program, args) = injection.words();
        assert_eq!(program, ["/.esgz-warm/esgz"]);
        let line = args.join(" ");
        assert_eq!(line, "warm --profile /.esgz-warm/profile.json --json /.esgz-warm-out/warm.json -- sh -c");
        let mounts = injection.mounts();
        let readonly: Vec<_> = mounts.as_array().unwrap().iter().map(|m| m["readonly"] == true).collect();
        assert_eq!(readonly, [true, true, false]);
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o777);

        assert_eq!(injection.report(), None);
        fs::write(out.join("warm.json"), "{\"read\":").unwrap();
        assert_eq!(injection.report(), None, "half a report");
        fs::write(out.join("warm.json"), "{\"read\":1}").unwrap();
        assert_eq!(injection.report(), Some(json!({ "read": 1 })));
        // A new run does not take the word of the last one.
        let again = Injection::new(&binary, &profile, out, &["sh".into()]).unwrap();
        assert_eq!(again.report(), None);
    }
}
