//! `freshet check`: reads everything that a data directory holds, and says what is wrong with it.

use std::collections::BTreeSet;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::log::{Section, StateFile, log_path, manifest_path, rows};
use crate::recovery::{self, list_names, list_seqs, read_commit, read_manifest};
use crate::version::Needs;
use crate::{Catalog, Error, Finding, Result, Seq, Storage, Version, table};

impl Catalog {
    /// Looks at every log object, manifest, state file and table of a directory that no server holds; empty when all is well.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`Error::InUse`] for a local directory with a live server, [`Error::Store`] when it cannot even be listed.
    pub async fn check(storage: &Storage) -> Result<Vec<Finding>> {
        let _lock = storage.lock()?;
        let mut findings = Vec::new();
        let log = list_seqs(storage, "log").await?;
        let manifests = list_seqs(storage, "manifest").await?;
        check_commits(storage, &log, &mut findings).await;
        for seq in &manifests {
            match read_manifest(storage, *seq).await {
                Ok((version, _, unflushed)) => {
                    // Older ones are being deleted and owe nothing.
                    if manifests.range(*seq..).count() <= 2 {
                        check_needs(storage, *seq, &version, unflushed, &log, &mut findings).await?;
                    }
                }
                Err(error) => findings.push(finding(manifest_path(*seq).as_ref(), &error)),
            }
        }
        match recovery::recover(storage).await {
            Ok(recovered) => {
                for table in recovered.version.tables.values() {
                    // Its first file is written by the next server, should a kill have come before.
                    let begun = storage.store.head(&table.schema.object("schema/schema-0")).await.is_ok();
                    if !begun && table.files.is_empty() {
                        continue;
                    }
                    findings.extend(table::check(storage, &table.schema, &table.files).await);
                }
            }
            Err(error) => findings.push(finding(&storage.url, &error)),
        }
        findings.sort_by(|left, right| (&left.path, &left.problem).cmp(&(&right.path, &right.problem)));
        findings.dedup();
        Ok(findings)
    }
}

/// Each commit by itself, and against the one before it.
async fn check_commits(storage: &Storage, log: &BTreeSet<Seq>, findings: &mut Vec<Finding>) {
    let mut before: Option<(String, u64)> = None;
    for seq in log {
        let path = log_path(*seq);
        let (head, sections) = match read_commit(storage, *seq).await {
            Ok(read) => read,
            Err(error) => {
                findings.push(finding(path.as_ref(), &error));
                continue;
            }
        };
        for section in &sections {
            if let Section::Rows(section) = section {
                match rows::decode(path.as_ref(), section) {
                    Ok(changes) => {
                        let found: usize = changes.iter().map(|changes| changes.len()).sum();
                        if found as u64 != section.rows {
                            let problem = format!("table {}: {} rows said, {found} found", section.table.0, section.rows);
                            findings.push(Finding { path: path.to_string(), problem });
                        }
                    }
                    Err(error) => findings.push(finding(path.as_ref(), &error)),
                }
            }
        }
        if let Some((database, generation)) = before
            && (database != head.database || generation > head.generation)
        {
            let problem = "it belongs to another database or an older generation than the commit before it".to_owned();
            findings.push(Finding { path: path.to_string(), problem });
        }
        before = Some((head.database, head.generation));
    }
}

/// Everything that a manifest refers to.
async fn check_needs(
    storage: &Storage,
    seq: Seq,
    version: &Version,
    unflushed: Option<Seq>,
    log: &BTreeSet<Seq>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut missing: BTreeSet<Seq> = Needs::of(version).exact.into_iter().filter(|needed| !log.contains(needed)).collect();
    missing.extend(recovery::plan(log, seq, unflushed).err());
    for needed in missing {
        let problem = format!("it is missing, and manifest {} needs it", seq.0);
        findings.push(Finding { path: log_path(needed).to_string(), problem });
    }
    let names = list_names(storage, "state").await?;
    for file in version.dataflows.values().flat_map(|dataflow| dataflow.state_files()) {
        if !names.contains(&file.path) {
            let problem = format!("it is missing, and manifest {} needs it", seq.0);
            findings.push(Finding { path: file.path.clone(), problem });
        } else if let Err(error) = check_state_file(storage, file).await {
            findings.push(finding(&file.path, &error));
        }
    }
    Ok(())
}

async fn check_state_file(storage: &Storage, file: &StateFile) -> Result<()> {
    let content = storage.read(&Path::from(file.path.as_str())).await?;
    file.verify(&content)
}

fn finding(path: &str, error: &Error) -> Finding {
    match error {
        Error::Corrupt { path, reason } => Finding { path: path.clone(), problem: reason.clone() },
        error => {
            let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            Finding { path: path.to_owned(), problem: format!("{error}{detail}") }
        }
    }
}
