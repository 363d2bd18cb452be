//! The payload of a token: the claims that are used, of whichever Panel.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::{Endpoint, Resource, TokenFault};
use crate::link::Uuid;
use crate::link::date::Date;

/// The claims that are used. Everything else that a Panel puts in is ignored, and a claim that is
/// `null` counts as absent.
#[derive(Deserialize)]
pub(super) struct Payload<'a> {
    pub(super) exp: Option<Date>,
    pub(super) nbf: Option<Date>,
    #[serde(borrow)]
    pub(super) scope: Option<Cow<'a, str>>,
    #[serde(borrow)]
    server_uuid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    file_path: Option<Cow<'a, str>>,
    file_paths: Option<Vec<String>>,
    pub(super) ignored_files: Option<Vec<String>>,
    #[serde(borrow)]
    backup_uuid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unique_id: Option<Cow<'a, str>>,
    /// Of any type, as all that follow.
    database: Option<Value>,
    iat: Option<Value>,
    jti: Option<Value>,
    user_uuid: Option<Value>,
    user_id: Option<Value>,
}

impl Payload<'_> {
    /// Reads a decoded payload.
    ///
    /// # Errors
    /// [`TokenFault::Malformed`] if it is no object, or a claim has another type.
    pub(super) fn parse(json: &[u8]) -> Result<Payload<'_>, TokenFault> {
        serde_json::from_slice(json).map_err(|_| TokenFault::Malformed)
    }

    /// Refuses what this program cannot honour: a link must not open something else instead.
    ///
    /// # Errors
    /// [`TokenFault::Database`].
    pub(super) fn check_support(&self) -> Result<(), TokenFault> {
        match self.database {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(_) => Err(TokenFault::Database),
        }
    }

    pub(super) fn user(&self) -> Option<String> {
        let uuid = || self.jti().filter(|jti| jti.parse::<Uuid>().is_ok());
        text(&self.user_uuid).or_else(uuid).or_else(|| text(&self.user_id))
    }

    pub(super) fn jti(&self) -> Option<String> {
        text(&self.jti)
    }

    /// `iat`, in seconds since the epoch.
    pub(super) fn issued(&self) -> Option<u64> {
        self.iat.as_ref().and_then(Value::as_f64).map(|date| date as u64)
    }

    pub(super) fn unique_id(self) -> Option<String> {
        self.unique_id.filter(|id| !id.is_empty()).map(Cow::into_owned)
    }

    /// What a token with these claims opens at `endpoint`.
    ///
    /// # Errors
    /// If a claim of that endpoint is missing, or names something else.
    pub(super) fn resource(&mut self, endpoint: Endpoint) -> Result<Resource, TokenFault> {
        if endpoint == Endpoint::Backup {
            // A backup is found by its own UUID: Calagopus leaves the server out.
            let server = match &self.server_uuid {
                None => None,
                server => Some(uuid("server_uuid", server)?),
            };
            return Ok(Resource::Backup {
                server,
                backup: uuid("backup_uuid", &self.backup_uuid)?,
            });
        }
        let server = uuid("server_uuid", &self.server_uuid)?;
        // A link to some of a directory's files must not open the others.
        if endpoint != Endpoint::Files && self.file_paths.is_some() {
            return Err(TokenFault::WrongEndpoint);
        }
        let path = self.file_path.take().ok_or(TokenFault::NoClaim("file_path"))?.into_owned();
        Ok(match endpoint {
            Endpoint::Directory => Resource::Directory { server, path },
            Endpoint::Files => {
                let files = self.file_paths.take().ok_or(TokenFault::NoClaim("file_paths"))?;
                Resource::Files { server, path, files }
            }
            Endpoint::File | Endpoint::Backup => Resource::File { server, path },
        })
    }
}

fn uuid(name: &'static str, value: &Option<Cow<'_, str>>) -> Result<Uuid, TokenFault> {
    let text = value.as_deref().ok_or(TokenFault::NoClaim(name))?;
    text.parse().map_err(|_| TokenFault::NotUuid(name))
}

fn text(value: &Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    }
}
