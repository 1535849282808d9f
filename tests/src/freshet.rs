//! The server under test: the built binary, on a data directory that outlives it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::process::Process;

/// Rows as text, `None` for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// A `freshet serve` process.
#[derive(Debug)]
pub struct Freshet {
    process: Process,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    pg_port: u16,
    http_port: u16,
}

/// The built binary: beside the test binary's `deps` folder.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let path = test.parent().and_then(Path::parent).expect("target/<profile>/deps/it").join("freshet");
    assert!(path.exists(), "{} is missing: build the workspace first (make test does)", path.display());
    path
}

impl Freshet {
    /// Starts a server on a data directory (path or URL) with `--set` settings; its log goes into `run`.
    pub fn start(data: &str, settings: &[(&str, &str)], run: &Path) -> Freshet {
        Self::start_with(data, settings, &[], run)
    }

    /// The same with environment variables.
    pub fn start_with(data: &str, settings: &[(&str, &str)], environment: &[(&str, &str)], run: &Path) -> Freshet {
        let mut arguments: Vec<String> =
            ["serve", "--data", data, "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"].map(str::to_owned).into();
        for (key, value) in settings {
            arguments.push("--set".into());
            arguments.push(format!("{key}={value}"));
        }
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::launch(arguments, environment, run.join("freshet.log"))
    }

    fn launch(arguments: Vec<String>, environment: Vec<(String, String)>, log: PathBuf) -> Freshet {
        std::fs::remove_file(&log).ok();
        let mut command = Command::new(binary());
        command.args(&arguments).envs(environment.iter().map(|(key, value)| (key, value)));
        let mut process = Process::start(&mut command, &log);
        let (pg_port, http_port) = process.wait_ready(Duration::from_secs(60), |process| ready_line(&process.log()));
        Freshet { process, arguments, environment, log, pg_port, http_port }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same data, after [`Freshet::kill`] or [`Freshet::stop`].
    pub fn restart(&mut self) {
        self.process.kill();
        *self = Self::launch(self.arguments.clone(), self.environment.clone(), self.log.clone());
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.terminate()
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Port of the Postgres wire.
    pub fn pg_port(&self) -> u16 {
        self.pg_port
    }

    /// Port of HTTP.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A connection by a real driver.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let config = format!("host=127.0.0.1 port={} user=freshet dbname=freshet", self.pg_port);
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("the server takes connections");
        tokio::spawn(connection);
        client
    }

    /// Runs statements by the simple protocol on a connection of their own; rows of all of them.
    ///
    /// # Panics
    /// When the server reports an error.
    pub async fn sql(&self, text: &str) -> Rows {
        self.try_sql(text).await.unwrap_or_else(|error| panic!("{text}\n{}", describe(&error)))
    }

    /// The same, with the error.
    pub async fn try_sql(&self, text: &str) -> Result<Rows, tokio_postgres::Error> {
        let client = self.connect().await;
        rows(&client, text).await
    }

    /// One value.
    pub async fn value(&self, text: &str) -> String {
        let rows = self.sql(text).await;
        rows.first().and_then(|row| row.first().cloned()).flatten().unwrap_or_else(|| panic!("{text}: no value in {rows:?}"))
    }

    /// Waits until a job is finished, or running and caught up.
    pub async fn wait(&self, job: &str) {
        self.sql(&format!("SELECT * FROM freshet.wait('{job}', INTERVAL '120 seconds')")).await;
    }

    /// Output of psql for a script, standard error after standard output.
    pub fn psql(&self, arguments: &[&str], script: &str) -> String {
        use std::io::Write;
        let mut child = Command::new("psql")
            .args(["-X", "-h", "127.0.0.1", "-p", &self.pg_port.to_string(), "-U", "freshet", "-d", "freshet"])
            .args(arguments)
            .env("PAGER", "cat")
            .env("PSQL_PAGER", "cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("psql is installed");
        child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("psql reads its input");
        let output = child.wait_with_output().expect("psql ends");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

/// Rows of a simple query.
pub(crate) async fn rows(client: &tokio_postgres::Client, text: &str) -> Result<Rows, tokio_postgres::Error> {
    let messages = client.simple_query(text).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {} {:?} {:?}", db.code().code(), db.message(), db.detail(), db.hint()),
        None => error.to_string(),
    }
}

/// The two ports of `freshet ready pg=… http=… data=…`.
fn ready_line(log: &str) -> Option<(u16, u16)> {
    let line = log.lines().find(|line| line.starts_with("freshet ready "))?;
    let port = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.rsplit(':').next()?.parse().ok());
    Some((port("pg=")?, port("http=")?))
}
