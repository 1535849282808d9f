//! SQL as the test language: every file under `slt/` over the wire, by the simple protocol.
//!
//! Each `CREATE STREAMING VIEW v AS query` in them is also a test by itself: once v has read its input, its rows must equal those of the
//! same query run once as a bounded query, and again after the server was killed and started.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqllogictest::{DBOutput, DefaultColumnType, Runner};
use tokio::sync::Mutex;

use tests::{Freshet, Rows, run_directory};

/// A server under the scripts, with the streaming views they made.
struct Database {
    server: Arc<Mutex<Freshet>>,
    /// Name and query.
    views: Arc<Mutex<Vec<(String, String)>>>,
}

#[derive(Debug)]
struct SqlError(String);

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SqlError {}

/// `CREATE STREAMING VIEW name AS query` without options or EMIT: the name and the query.
fn plain_view(sql: &str) -> Option<(String, String)> {
    let rest = sql.trim().strip_prefix("CREATE STREAMING VIEW ")?;
    let (name, query) = rest.split_once(" AS ")?;
    let plain = !name.contains(' ') && !query.contains("EMIT ");
    plain.then(|| (name.to_owned(), query.to_owned()))
}

async fn sorted(server: &Freshet, sql: &str) -> Rows {
    let mut rows = server.sql(sql).await;
    rows.sort();
    rows
}

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Database {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SqlError> {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let sql = sql.replace('\n', " ").replace(":data", data.to_str().expect("the checkout's path is text"));
        let server = self.server.lock().await;
        let rows = server.try_sql(&sql).await.map_err(|error| {
            SqlError(error.as_db_error().map_or(error.to_string(), |db| format!("{}: {}", db.code().code(), db.message())))
        })?;
        if let Some((name, query)) = plain_view(&sql) {
            server.wait(&name).await;
            assert_eq!(
                sorted(&server, &format!("SELECT * FROM {name}")).await,
                sorted(&server, &query).await,
                "stream = batch: {query}"
            );
            self.views.lock().await.push((name, query));
        }
        if sql.trim_start().starts_with("DROP ") {
            let left: Vec<String> = server.sql("SELECT name FROM freshet.jobs").await.into_iter().flatten().flatten().collect();
            self.views.lock().await.retain(|(name, _)| left.contains(name));
        }
        let value = |value: Option<String>| match value {
            None => "NULL".to_owned(),
            Some(text) if text.is_empty() => "(empty)".to_owned(),
            Some(text) => text,
        };
        let types = vec![DefaultColumnType::Text; rows.first().map_or(0, Vec::len)];
        Ok(match types.is_empty() {
            true => DBOutput::StatementComplete(0),
            false => DBOutput::Rows { types, rows: rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect() },
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "freshet"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(scripts(&path)),
            path if path.extension().is_some_and(|extension| extension == "slt") => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_over_the_wire() {
    let scripts = scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("slt"));
    assert!(scripts.len() >= 4, "the scripts are there");
    for script in scripts {
        let run = run_directory("slt");
        let server = Arc::new(Mutex::new(Freshet::start(run.join("data").to_str().expect("text"), &[], &run)));
        let views = Arc::new(Mutex::new(Vec::new()));
        let mut runner = Runner::new(|| async { Ok(Database { server: Arc::clone(&server), views: Arc::clone(&views) }) });
        runner.run_file_async(&script).await.unwrap_or_else(|error| panic!("{}", error.display(false)));
        drop(runner);
        let mut server = server.lock().await;
        server.kill();
        server.restart();
        for (name, query) in views.lock().await.iter() {
            server.wait(name).await;
            let stored = sorted(&server, &format!("SELECT * FROM {name}")).await;
            assert_eq!(stored, sorted(&server, query).await, "{}: after a kill, {query}", script.display());
        }
    }
}
