//! The files and directories that a link names, as paths from one directory.

use std::collections::BTreeMap;

use super::listing::WalkError;

/// The chosen paths as a tree of names. One without children is taken whole.
#[derive(Debug)]
pub(super) struct Chosen {
    /// By node and name, the node below; 0 is the root.
    below: BTreeMap<(u32, Vec<u8>), u32>,
    /// Which nodes are taken whole.
    whole: Vec<bool>,
}

impl Chosen {
    /// The `paths`, which are relative to the root. An empty one is all of it.
    pub(super) fn new(paths: &[String]) -> Result<Chosen, WalkError> {
        let mut chosen = Chosen { below: BTreeMap::new(), whole: vec![false] };
        for path in paths {
            chosen.add(path)?;
        }
        Ok(chosen)
    }

    fn add(&mut self, path: &str) -> Result<(), WalkError> {
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
        Ok(())
    }

    /// What is to be listed of the root.
    pub(super) fn root(&self) -> Take {
        self.take(0)
    }

    fn take(&self, node: u32) -> Take {
        if self.whole[node as usize] { Take::All } else { Take::Part(node) }
    }

    /// What is to be listed of a node, in the order of the names' bytes.
    pub(super) fn names(&self, node: u32) -> impl Iterator<Item = (&[u8], Take)> {
        let below = self.below.range((node, Vec::new())..(node + 1, Vec::new()));
        below.map(|((_, name), &node)| (&name[..], self.take(node)))
    }
}

/// Which part of a directory to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    All,
    /// What the chosen paths name below this node.
    Part(u32),
}
