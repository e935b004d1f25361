//! The files of an image, by path: what lists of paths are looked up in.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::tar::clean;

/// Symlinks that are followed for one path, as many as Linux does.
const MAX_LINKS: usize = 40;
/// Longest path that is followed, in bytes (`PATH_MAX` of Linux).
pub(super) const MAX_PATH: usize = 4096;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
    },
    /// A symlink with its text.
    Link(String),
    /// A folder.
    Dir,
}

/// The files of an image.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// By path without the leading `/`.
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Adds what a path is, without the leading `/`. Folders above it need not be added.
    pub fn add(&mut self, path: &str, node: Node) {
        let path = clean(path);
        if !path.is_empty() {
            self.nodes.insert(path, node);
        }
    }

    /// The path at the end of all symlinks, with what it is; absolute. None for what is not there or leads in a circle.
    pub fn resolve(&self, path: &str) -> Option<(String, Node)> {
        if path.len() > MAX_PATH {
            return None;
        }
        let mut at = String::new();
        let mut left: Vec<String> = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = if at.is_empty() { part } else { format!("{at}/{part}") };
            if let Some(Node::Link(text)) = self.nodes.get(&next) {
                links += 1;
                if links > MAX_LINKS || text.len() > MAX_PATH {
                    return None;
                }
                if text.starts_with('/') {
                    at.clear();
                }
                left.extend(parts(text));
            } else if next.len() > MAX_PATH {
                return None;
            } else {
                at = next;
            }
        }
        let node = self.nodes.get(&at).cloned();
        let node = node.or_else(|| (at.is_empty() || self.below(&at).next().is_some()).then_some(Node::Dir))?;
        Some((format!("/{at}"), node))
    }

    /// The regular files below a folder, in byte order: absolute path and size.
    pub fn files_below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (String, u64)> + use<'a> {
        self.below(&clean(dir)).filter_map(file)
    }

    /// The regular files whose absolute path begins so, in byte order.
    pub fn files_with_prefix<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (String, u64)> + use<'a> {
        self.starting(prefix.trim_start_matches('/').to_owned()).filter_map(file)
    }

    fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        self.starting(if dir.is_empty() { String::new() } else { format!("{dir}/") })
    }

    fn starting(&self, prefix: String) -> impl Iterator<Item = (&String, &Node)> {
        let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
        self.nodes.range::<String, _>(from).take_while(move |(p, _)| p.starts_with(&prefix))
    }
}

/// Parts of a path, last one first.
fn parts(path: &str) -> Vec<String> {
    path.rsplit('/').map(Into::into).collect()
}

fn file((path, node): (&String, &Node)) -> Option<(String, u64)> {
    match node {
        Node::File { size } => Some((format!("/{path}"), *size)),
        Node::Link(_) | Node::Dir => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `path` (a file of as many bytes as its path has), `path/` or `path=>text`.
    pub(crate) fn tree(specs: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for spec in specs {
            match spec.split_once("=>") {
                Some((path, text)) => tree.add(path, Node::Link(text.into())),
                None if spec.ends_with('/') => tree.add(spec, Node::Dir),
                None => tree.add(spec, Node::File { size: spec.len() as u64 }),
            }
        }
        tree
    }

    #[test]
    fn symlinks_are_followed_inside_the_root() {
        let t = tree(&[
            "usr/bin/python3=>python3.11",
            "usr/bin/python3.11",
            "bin=>usr/bin",
            "abs=>/usr/bin/python3",
            "up=>../../usr/bin/../bin/python3",
            "gone=>nothing",
            "a=>b",
            "b=>a",
        ]);
        let real = |p: &str| t.resolve(p).map(|(path, _)| path);
        for path in ["/usr/bin/python3", "/bin/python3", "abs", "/up", "//bin/./python3.11"] {
            assert_eq!(real(path).as_deref(), Some("/usr/bin/python3.11"), "{path}");
        }
        assert_eq!(t.resolve("/bin").map(|r| r.1), Some(Node::Dir), "a folder that only its files tell of");
        assert_eq!([real("/gone"), real("/a"), real("/none"), real("/usr/bin/python3.11/x")], [None, None, None, None]);
        assert_eq!(real("/").as_deref(), Some("/"));
    }

    #[test]
    fn what_is_below_a_folder_is_no_namesake() {
        let t = tree(&["lib/a", "lib/b/c", "lib64/d", "lib", "lib/l=>a"]);
        let below: Vec<String> = t.files_below("/lib/").map(|(p, _)| p).collect();
        assert_eq!(below, ["/lib/a", "/lib/b/c"]);
        assert_eq!(t.files_with_prefix("/lib").count(), 4);
    }
}
