//! What orders to the control listener need of tokens: which link one is, whatever it opens, and that
//! whoever gives the order has the key.

use serde::Deserialize;

use super::date::Date;
use super::token::{TokenFault, Verifier};

/// A voucher is good for this many seconds at most.
const MAX_LIFE: u64 = 120;

/// The claims of a token that goes with an order. No link has them.
#[derive(Deserialize)]
struct Voucher {
    exp: Date,
    order: String,
}

/// What identifies a link.
#[derive(Deserialize)]
struct Identity {
    exp: Option<Date>,
    unique_id: Option<String>,
}

impl Verifier {
    /// Whether `token` goes with `order` and is good at `now`: whoever made it has the key.
    pub fn vouches(&self, token: &str, order: &str, now: u64) -> bool {
        let json = self.payload(token).unwrap_or_default();
        let Ok(Voucher { exp: Date(expires), order: meant }) = serde_json::from_slice(&json) else {
            return false;
        };
        now < expires && expires - now <= MAX_LIFE && meant == order
    }

    /// What identifies `token`, however old it is (its `unique_id`, or the token itself), and its
    /// `exp`.
    ///
    /// # Errors
    /// If it was not signed with this key, or has no `exp`.
    pub fn identify(&self, token: &str) -> Result<(String, u64), TokenFault> {
        let json = self.payload(token)?;
        let identity: Identity =
            serde_json::from_slice(&json).map_err(|_| TokenFault::Malformed)?;
        let Date(expires) = identity.exp.ok_or(TokenFault::NoExpiry)?;
        let unique_id = identity.unique_id.filter(|id| !id.is_empty());
        Ok((unique_id.unwrap_or_else(|| token.to_owned()), expires))
    }
}
