//! The files and directories that a link names, as paths from one directory.

use std::collections::BTreeMap;

use super::WalkError;

/// The chosen paths as a tree of names. One without children is taken whole.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// By node and name, the node below; 0 is the root.
    below: BTreeMap<(u32, Vec<u8>), u32>,
    /// Whether each node is taken whole.
    whole: Vec<bool>,
}

impl Chosen {
    /// Adds `path`; true if it is the root.
    pub(super) fn add(&mut self, path: &str) -> Result<bool, WalkError> {
        if self.whole.is_empty() {
            self.whole.push(false);
        }
        let mut node = 0;
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            if name == ".." || name.contains('\0') {
                return Err(WalkError::BadPath);
            }
            let next = self.whole.len() as u32;
            node = *self.below.entry((node, name.as_bytes().to_vec())).or_insert(next);
            if node == next {
                self.whole.push(false);
            }
        }
        self.whole[node as usize] = true;
        Ok(node == 0)
    }

    /// What is to be listed of a node, in the order of the names' bytes.
    pub(super) fn names(&self, node: u32) -> impl Iterator<Item = (&[u8], Take)> {
        let below = self.below.range((node, Vec::new())..(node + 1, Vec::new()));
        below.map(|((_, name), &node)| {
            (&name[..], if self.whole[node as usize] { Take::All } else { Take::Part(node) })
        })
    }
}

/// What of a directory is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    All,
    /// What the chosen paths name below this node.
    Part(u32),
}
