//! What tells links, servers, users and resources apart without naming them: hashes, which may be
//! kept, logged and shown.

use super::token::{Claims, Resource};

/// A hash of what must not be kept in the clear: a link's `unique_id`, a server.
pub type Key = [u8; 16];

/// What tells a token from others, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId {
    /// The hash of its `unique_id`, or of the whole token if it has none.
    pub link: Key,
    /// The hash of its server, if it names one.
    pub server: Option<Key>,
    /// The hash of its user, if it names one.
    pub user: Option<Key>,
    /// The hash of its `jti`: another name of its user, or of its user on its server.
    pub jti: Option<Key>,
    /// Its `iat`, in seconds since the epoch.
    pub issued: Option<u64>,
}

impl LinkId {
    /// The identity of `token`, whose claims are `claims`.
    pub fn of(claims: &Claims, token: &str) -> LinkId {
        LinkId {
            link: key_of(claims.unique_id.as_deref().unwrap_or(token)),
            server: claims.resource.server().map(|server| key_of(&server.to_string())),
            user: claims.user.as_deref().map(user_key),
            jti: claims.jti.as_deref().map(user_key),
            issued: claims.issued,
        }
    }
}

/// The key of a user, whom a token names by UUID, by its `jti` or, if it is an older one, by number.
pub fn user_key(text: &str) -> Key {
    key_of(&text.to_ascii_lowercase())
}

/// The key of `text`: a `unique_id`, or a server's UUID.
pub fn key_of(text: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&hmac_sha256::Hash::hash(text.as_bytes())[..16]);
    key
}

/// The hash that tells resources apart without naming them.
pub fn hash_of(resource: &Resource) -> [u8; 16] {
    // A server's UUID has one length, so that nothing needs to stand between it and the rest.
    let (kind, name) = match resource {
        Resource::File { path, .. } => ("file", path.clone()),
        Resource::Backup { backup, .. } => ("backup", backup.to_string()),
        // Each path with its length: no two lists are spelt alike. The format of an archive is left
        // out, as the token does not say it: another one is another version of the same thing.
        Resource::Directory { path, .. } => ("directory", measured(path)),
        Resource::Files { path, files, .. } => {
            let files: String = files.iter().map(|file| measured(file)).collect();
            ("files", measured(path) + &files)
        }
    };
    let server = resource.server().map(|server| server.to_string()).unwrap_or_default();
    key_of(&format!("{kind}\0{server}{name}"))
}

fn measured(path: &str) -> String {
    format!("{}:{path}", path.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::link::Uuid;

    #[test]
    fn keys_tell_links_apart_and_resources_endpoints() {
        let keys: HashSet<Key> = (0..10_000).map(|i: u32| key_of(&i.to_string())).collect();
        assert_eq!(keys.len(), 10_000);
        let server: Uuid = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
        let backup: Uuid = "3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6".parse().unwrap();
        let path = backup.to_string();
        let file = hash_of(&Resource::File { server, path });
        assert_ne!(file, hash_of(&Resource::Backup { server: Some(server), backup }));
        let mut hashes = HashSet::new();
        for path in ["a", "a1:b", "b", ""] {
            hashes.insert(hash_of(&Resource::Directory { server, path: path.into() }));
            hashes.insert(hash_of(&Resource::File { server, path: path.into() }));
            for files in [&[][..], &["a"], &["b"], &["a", "b"], &["ab"], &["a1:b"], &["1:a"]] {
                let files = files.iter().map(ToString::to_string).collect();
                hashes.insert(hash_of(&Resource::Files { server, path: path.into(), files }));
            }
        }
        assert_eq!(hashes.len(), 4 * (2 + 7));
    }
}
