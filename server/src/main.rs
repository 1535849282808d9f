//! The command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use server::config::{LogFormat, Origin};
use server::{Config, Error, Result, Server, Settings, Signals, chain, demo};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// A streaming SQL database: Jetstream, Kafka and files as tables, views over them kept up to date, psql to look.
#[derive(Debug, Parser)]
#[command(name = "freshet", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Serve(ServerOptions),
    /// Runs the server with a stream to look at and views over it.
    Demo(DemoOptions),
    /// Reads every file of a data directory and says what is wrong; the server must not be running.
    Check(CheckOptions),
    /// Prints the version.
    Version,
}

#[derive(Debug, Args)]
struct ServerOptions {
    /// Where everything is kept: a directory, s3://, gs:// or az://  [default: ./freshet-data]
    #[arg(long, value_name = "DIR|URL")]
    data: Option<String>,
    /// A TOML file; server/src/default.toml names every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where psql connects; port 0 takes a free one  [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDR")]
    pg: Option<String>,
    /// Where HTTP is answered; port 0 takes a free one  [default: 127.0.0.1:8433]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Overrides a key of the configuration; may be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct DemoOptions {
    #[command(flatten)]
    server: ServerOptions,
    /// Reads the public Jetstream hosts instead of the simulator.
    #[arg(long)]
    live: bool,
    /// Events per second of the simulator.
    #[arg(long, default_value_t = demo::RATE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "live")]
    rate: u32,
}

#[derive(Debug, Args)]
struct CheckOptions {
    /// The data directory or its URL.
    #[arg(long, value_name = "DIR|URL")]
    data: String,
    /// A TOML file, for the keys of an object store.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides a key of the configuration; may be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ServerOptions {
    fn config(&self) -> Result<Config> {
        let mut settings = settings(self.config.as_ref(), &self.set)?;
        for (key, value) in [("data", &self.data), ("pg", &self.pg), ("http", &self.http)] {
            if let Some(value) = value {
                settings.set(key, value, Origin::CommandLine)?;
            }
        }
        Config::new(settings)
    }
}

fn settings(file: Option<&PathBuf>, pairs: &[String]) -> Result<Settings> {
    let mut settings = Settings::default();
    if let Some(file) = file {
        settings.add_file(file)?;
    }
    pairs.iter().try_for_each(|pair| settings.set_pair(pair))?;
    Ok(settings)
}

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            eprintln!("freshet: {}{hint}", chain(&error));
            ExitCode::from(if matches!(error, Error::Config { .. }) { WRONG_USAGE } else { FAILED })
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Version => {
            println!("freshet {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(options) => {
            let mut settings = settings(options.config.as_ref(), &options.set)?;
            settings.set("data", &options.data, Origin::CommandLine)?;
            runtime()?.block_on(check(Config::new(settings)?))
        }
        Command::Serve(options) => {
            let config = options.config()?;
            start_logs(&config)?;
            let runtime = runtime()?;
            let code = runtime.block_on(serve(config, None));
            runtime.shutdown_background();
            code
        }
        Command::Demo(options) => {
            let config = options.server.config()?;
            start_logs(&config)?;
            let stream = if options.live { demo::Stream::Live } else { demo::Stream::Simulated { rate: options.rate } };
            let runtime = runtime()?;
            let code = runtime.block_on(serve(config, Some(stream)));
            runtime.shutdown_background();
            code
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name("freshet-io").enable_all();
    builder.build().map_err(|source| Error::Io { action: "start the threads of the server".to_owned(), source })
}

async fn serve(config: Config, stream: Option<demo::Stream>) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let limit = config.shutdown_timeout;
    let starting = async {
        let server = Server::start(config).await?;
        // Nobody may read it: a closed pipe is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{}", server.ready_line());
        let demo = match stream {
            Some(stream) => Some(demo::start(&server, stream).await?),
            None => None,
        };
        Ok::<_, Error>((server, demo))
    };
    let (server, _demo) = tokio::select! {
        started = starting => started?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    tokio::select! {
        stopped = server.stop(limit) => stopped.map(|()| ExitCode::SUCCESS),
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once");
            Ok(ExitCode::from(FAILED))
        }
    }
}

async fn check(config: Config) -> Result<ExitCode> {
    let findings = server::check(&config).await?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("{}: every file is whole and every invariant holds", config.data);
        return Ok(ExitCode::SUCCESS);
    }
    let findings = match findings.len() {
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    eprintln!("freshet: {findings} in {}", config.data);
    Ok(ExitCode::from(FAILED))
}

/// Logs to stderr: text for people, JSON for machines. A panic is logged before its thread ends.
fn start_logs(config: &Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level).map_err(|error| Error::Config {
        message: format!("configuration key \"log.level\" has the value \"{}\": {error}", config.log_level),
        hint: Some("Write error, warn, info, debug or trace, or filters such as \"info,engine=debug\".".to_owned()),
    })?;
    let text = match config.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    if text {
        logs.with_ansi(std::io::stderr().is_terminal()).init();
    } else {
        logs.json().flatten_event(true).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(thread = thread.name().unwrap_or("?"), place, message, "a thread panicked; this is a fault of freshet");
    }));
    Ok(())
}
