//! Which processes belong to the recorded command: it, and whatever descends from it.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// Whose an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The command's.
    Command,
    /// Ours, or that of a process that has nothing to do with it.
    Other,
    /// That of a process which has ended and was never looked at.
    Gone,
}

/// The processes that were looked at.
#[derive(Debug)]
pub(super) struct Tree {
    child: i32,
    ours: i32,
    looked: HashMap<i32, Process>,
}

#[derive(Debug)]
struct Process {
    owner: Owner,
    name: Option<String>,
    until: Instant,
}

/// A number may be used again by another process.
const TRUST: Duration = Duration::from_secs(1);
/// Deeper than processes are nested; a race with their ends must not make it endless.
const DEPTH: usize = 256;

impl Tree {
    /// The tree of `child`. We are its reaper: what its processes leave behind becomes our child, and we have no others.
    pub(super) fn of(child: Pid) -> Self {
        Self { child: child.as_raw(), ours: std::process::id().cast_signed(), looked: HashMap::new() }
    }

    /// Whose process that is. The number is as seen from here: 0 is a process of another PID namespace.
    pub(super) fn owner(&mut self, pid: i32) -> Owner {
        if pid <= 0 || pid == self.ours {
            return Owner::Other;
        }
        let now = Instant::now();
        if self.looked.get(&pid).is_none_or(|p| p.until < now) {
            match self.look(pid) {
                (Owner::Gone, _) if self.looked.contains_key(&pid) => {}
                (owner, name) => {
                    self.looked.insert(pid, Process { owner, name, until: now + TRUST });
                }
            }
        }
        self.looked.get(&pid).map_or(Owner::Gone, |p| p.owner)
    }

    /// A process's name now, or when it was last looked at: `exec` changes it.
    pub(super) fn name(&self, pid: i32) -> Option<String> {
        stat(pid).map(|(name, _)| name).or_else(|| self.looked.get(&pid)?.name.clone())
    }

    fn look(&self, pid: i32) -> (Owner, Option<String>) {
        let Some((name, mut parent)) = stat(pid) else { return (Owner::Gone, None) };
        if pid == self.child {
            return (Owner::Command, Some(name));
        }
        for _ in 0..DEPTH {
            if parent == self.child || parent == self.ours {
                return (Owner::Command, Some(name));
            }
            if parent <= 1 {
                break;
            }
            match stat(parent) {
                Some((_, next)) => parent = next,
                // It has ended since: its child has another parent now.
                None => match stat(pid) {
                    Some((_, next)) if next != parent => parent = next,
                    Some(_) => break,
                    None => return (Owner::Gone, None),
                },
            }
        }
        (Owner::Other, Some(name))
    }
}

/// Name and parent of a process.
fn stat(pid: i32) -> Option<(String, i32)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `1 (name) S 0 …`: the name may hold anything, brackets and blanks too.
fn parse(stat: &str) -> Option<(String, i32)> {
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(start + 1..end)?.to_owned();
    Some((name, stat.get(end + 1..)?.split_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_may_look_like_anything() {
        assert_eq!(parse("7 (a) b (c)) S 42 7 0"), Some(("a) b (c)".into(), 42)));
        for bad in ["", "7 ", "7 )(", "7 (x)", "7 (x) S", "7 (x) S y"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn descendants_belong_to_the_command_and_others_do_not() {
        let script = ["-c", "sleep 30 & echo $!; wait"];
        let mut child = Command::new("sh").args(script).stdout(Stdio::piped()).spawn().expect("sh runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        let grandchild: i32 = line.trim().parse().expect("a pid");
        let mut tree = Tree::of(Pid::from_raw(child.id().cast_signed()));
        assert_eq!(tree.owner(child.id().cast_signed()), Owner::Command);
        assert_eq!(tree.name(child.id().cast_signed()).as_deref(), Some("sh"));
        assert_eq!(tree.owner(grandchild), Owner::Command);
        assert_eq!(tree.owner(1), Owner::Other);
        assert_eq!(tree.owner(std::process::id().cast_signed()), Owner::Other);
        assert_eq!(tree.owner(0), Owner::Other);
        assert_eq!(tree.owner(i32::MAX), Owner::Gone);
        nix::sys::signal::kill(Pid::from_raw(grandchild), nix::sys::signal::Signal::SIGKILL).expect("alive");
        child.wait().expect("ended");
        assert_eq!(tree.owner(grandchild), Owner::Command, "what is known is not forgotten");
    }
}
