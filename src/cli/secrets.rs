//! Secrets' values, read where the fleet says each time they are asked for.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use crate::{
    model::{SecretFrom, SecretName, SecretSource},
    ports::{Credential, SecretError, Secrets},
};

/// Reads files and the environment. Holds sources, never values.
#[derive(Default)]
pub struct LocalSecrets(RwLock<BTreeMap<SecretName, SecretSource>>);

impl Secrets for LocalSecrets {
    fn follow(&self, sources: &BTreeMap<SecretName, SecretSource>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clone_from(sources);
    }

    fn credential(&self, name: &SecretName) -> Result<Credential, SecretError> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let source = known.get(name).ok_or_else(|| SecretError { message: format!("the fleet has no secret {name}") })?;
        let password = match &source.from {
            SecretFrom::Env(variable) => std::env::var(variable).map_err(|_| SecretError {
                message: format!("secret {name} comes from the environment variable {variable}, which the controller does not have"),
            })?,
            SecretFrom::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| SecretError {
                    message: format!("secret {name} comes from the file {path}, which the controller can't read: {error}"),
                })?;
                text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text).to_owned()
            }
        };
        Ok(Credential { username: source.username.clone().unwrap_or_default(), password })
    }
}

/// One credential under any name, for commands that take it on the command line.
pub struct OneSecret(pub Credential);

impl Secrets for OneSecret {
    fn credential(&self, _: &SecretName) -> Result<Credential, SecretError> {
        Ok(self.0.clone())
    }
}
