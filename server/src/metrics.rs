//! `/metrics`: the numbers of the system relations in Prometheus's text format.

use std::fmt::{Display, Write};

use engine::status::{JobState, JobStatus, SplitStatus};

use crate::Database;
use crate::session::Backend;
use crate::system;

/// What is measured at one moment.
pub(crate) fn render(database: &Database) -> String {
    let mut text = Exposition::default();
    let jobs = system::jobs(database);
    jobs_metrics(&mut text, &jobs);
    splits_metrics(&mut text, &database.engine().splits());
    storage_metrics(&mut text, database);
    server_metrics(&mut text, database);
    text.text
}

fn jobs_metrics(text: &mut Exposition, jobs: &[JobStatus]) {
    let names: Vec<String> = jobs.iter().map(|job| label("job", &job.name)).collect();
    let jobs = || names.iter().zip(jobs);
    text.family("freshet_job_rows_in_total", "counter", "Rows a job has read.", jobs().map(|(n, j)| (n, j.rows_in as f64)));
    text.family("freshet_job_rows_out_total", "counter", "Rows a job has written.", jobs().map(|(n, j)| (n, j.rows_out as f64)));
    text.family(
        "freshet_job_late_rows_total",
        "counter",
        "Rows that came too late.",
        jobs().map(|(n, j)| (n, j.late_rows as f64)),
    );
    text.family(
        "freshet_job_error_rows_total",
        "counter",
        "Records set aside as errors.",
        jobs().map(|(n, j)| (n, j.error_rows as f64)),
    );
    text.family("freshet_job_restarts_total", "counter", "Restarts after failures.", jobs().map(|(n, j)| (n, j.restarts as f64)));
    text.family("freshet_job_epoch", "gauge", "Last committed epoch.", jobs().map(|(n, j)| (n, j.epoch as f64)));
    text.family("freshet_job_state_bytes", "gauge", "Bytes of operator state.", jobs().map(|(n, j)| (n, j.state_bytes as f64)));
    text.family(
        "freshet_job_checkpoint_seconds",
        "gauge",
        "Time from the last barrier to its commit.",
        jobs().map(|(n, j)| (n, j.checkpoint_ms / 1e3)),
    );
    text.family(
        "freshet_job_freshness_seconds",
        "gauge",
        "Wall time less the newest event time committed.",
        jobs().filter_map(|(n, j)| Some((n, j.freshness_ms? as f64 / 1e3))),
    );
    text.family(
        "freshet_job_up",
        "gauge",
        "1 while a job runs, backfills or has finished, 0 otherwise.",
        jobs().map(|(n, j)| (n, f64::from(u8::from(is_up(j.state))))),
    );
}

/// Whether a job does what it is there for.
pub(crate) fn is_up(state: JobState) -> bool {
    matches!(state, JobState::Running | JobState::Backfilling | JobState::Finished)
}

fn splits_metrics(text: &mut Exposition, splits: &[SplitStatus]) {
    let names: Vec<String> = splits
        .iter()
        .map(|split| format!("{},{},{}", label("job", &split.job), label("source", &split.source), label("split", &split.split)))
        .collect();
    let splits = || names.iter().zip(splits);
    text.family("freshet_split_rows_total", "counter", "Rows read from a split.", splits().map(|(n, s)| (n, s.rows as f64)));
    text.family("freshet_split_bytes_total", "counter", "Bytes read from a split.", splits().map(|(n, s)| (n, s.bytes as f64)));
    text.family(
        "freshet_split_reconnects_total",
        "counter",
        "Reconnects of a split.",
        splits().map(|(n, s)| (n, s.reconnects as f64)),
    );
    text.family(
        "freshet_split_duplicates_total",
        "counter",
        "Records dropped as duplicates.",
        splits().map(|(n, s)| (n, s.duplicates as f64)),
    );
    text.family("freshet_split_gaps_total", "counter", "Gaps seen in a split.", splits().map(|(n, s)| (n, s.gaps as f64)));
    text.family(
        "freshet_split_lag_rows",
        "gauge",
        "Rows between what was read and the end of a split.",
        splits().filter_map(|(n, s)| Some((n, s.lag_rows? as f64))),
    );
}

fn storage_metrics(text: &mut Exposition, database: &Database) {
    let version = database.catalog().version();
    let tables: Vec<_> = version
        .objects
        .values()
        .filter_map(|definition| Some((label("table", &definition.name.to_string()), version.statistics(definition.id)?)))
        .collect();
    let tables = || tables.iter().map(|(name, statistics)| (name, statistics));
    text.family("freshet_table_file_rows", "gauge", "Rows in files, unmerged.", tables().map(|(n, t)| (n, t.file_rows as f64)));
    text.family("freshet_table_file_bytes", "gauge", "Bytes in files.", tables().map(|(n, t)| (n, t.file_bytes as f64)));
    text.family("freshet_table_files", "gauge", "Live files.", tables().map(|(n, t)| (n, t.files as f64)));
    text.family("freshet_table_memtable_rows", "gauge", "Rows in memory.", tables().map(|(n, t)| (n, t.memtable_rows as f64)));
    text.family("freshet_table_memtable_bytes", "gauge", "Bytes in memory.", tables().map(|(n, t)| (n, t.memtable_bytes as f64)));
    text.single("freshet_commit_seq", "gauge", "Number of the last commit.", version.seq.0 as f64);
    let failing = database.catalog().commit_error().is_some();
    text.single("freshet_commit_failing", "gauge", "1 while the store refuses commits.", f64::from(u8::from(failing)));
    if let Some(last) = database.catalog().recent_commits().last() {
        text.single("freshet_commit_seconds", "gauge", "Time the last commit took.", last.duration_ms / 1e3);
        text.single("freshet_commit_bytes", "gauge", "Size of the last commit.", last.bytes as f64);
    }
}

fn server_metrics(text: &mut Exposition, database: &Database) {
    text.single("freshet_sessions", "gauge", "Connections open.", database.sessions().len() as f64);
    let reserved = database.runtime_env().memory_pool.reserved();
    text.single("freshet_query_memory_bytes", "gauge", "Memory taken by queries.", reserved as f64);
    text.single("freshet_start_time_seconds", "gauge", "When the server was started.", database.started_us() as f64 / 1e6);
    if let Some(bytes) = resident_bytes() {
        text.single("process_resident_memory_bytes", "gauge", "Resident memory of the process.", bytes as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

#[derive(Debug, Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn family<L: Display>(&mut self, name: &str, kind: &str, help: &str, samples: impl Iterator<Item = (L, f64)>) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            let _ = writeln!(self.text, "{name}{{{labels}}} {value}");
        }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        let _ = writeln!(self.text, "{name} {value}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_help_type_and_escaped_labels() {
        let mut text = Exposition::default();
        text.family("freshet_x_total", "counter", "Xs.", [(label("job", "a\"b\\c\nd"), 3.0)].into_iter());
        text.single("freshet_y", "gauge", "Y.", 0.25);
        let expected = "# HELP freshet_x_total Xs.\n# TYPE freshet_x_total counter\nfreshet_x_total{job=\"a\\\"b\\\\c\\nd\"} 3\n\
                        # HELP freshet_y Y.\n# TYPE freshet_y gauge\nfreshet_y 0.25\n";
        assert_eq!(text.text, expected);
    }
}
