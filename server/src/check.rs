//! `freshet check`: reads everything of a data directory and says what is wrong.

use catalog::{Catalog, Storage};

use crate::{Config, Error, Result};

/// What is wrong, one line each; nothing when all is well. Changes nothing.
///
/// # Errors
/// Storage that is not there or cannot be reached, and a directory that a server is using.
pub async fn check(config: &Config) -> Result<Vec<String>> {
    // To open a directory is to make it.
    if !config.data.contains("://")
        && let Err(source) = std::fs::metadata(&config.data)
    {
        return Err(Error::Io { action: format!("read the data directory {}", config.data), source });
    }
    let storage = Storage::open(&config.data, &config.storage)?;
    let findings = Catalog::check(&storage).await?;
    Ok(findings.iter().map(|finding| format!("{}: {}", finding.path, finding.problem)).collect())
}
