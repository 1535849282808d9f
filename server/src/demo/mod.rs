//! `freshet demo`: a stream of invented posts and likes (or the real one), and views that move while one looks.
//!
//! The stream comes over a websocket in Jetstream's own protocol, so that the demo runs the code that reads the public
//! hosts. Everything is made with plain statements: what is in `views.sql` can be typed in psql.

use std::io::Write;
use std::time::Duration;

use catalog::ObjectName;
use engine::source::generator::bluesky::Settings;
use sql::Statement;

use crate::execute::own_session;
use crate::session::{Backend, SessionInfo};
use crate::simulator::{Simulator, SimulatorOptions};
use crate::{Database, Error, Result, Server, chain};

/// Events per second of the simulator: about what the real network has.
pub const RATE_DEFAULT: u32 = 400;

/// The invented log begins with 2020: any clock that is about right is past it, and a demo started again goes on in it.
const START_US: i64 = 1_577_836_800_000_000;

/// As on the real network, some of what comes is not as it should be; `freshet.errors` keeps it.
const ODD_RECORDS: f64 = 0.001;
const BROKEN_FRAMES: f64 = 0.0002;

const VIEWS: &str = include_str!("views.sql");
const LIVE_HOSTS: &str = "wss://jetstream.us-east.bsky.network,wss://jetstream.us-west.bsky.network";

/// How much of the invented past can be read: enough to fill every window of the views at once, and little enough that
/// a demo started again after a night is up to date within seconds.
const HISTORY: Duration = Duration::from_secs(180);

/// Where the demo's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The bundled simulator.
    Simulated {
        /// Events per second.
        rate: u32,
    },
    /// The public hosts.
    Live,
}

/// What the demo keeps running.
#[derive(Debug)]
pub struct Demo {
    _simulator: Option<Simulator>,
}

/// Wait between attempts to reach the public hosts for the first time.
const UNREACHED_WAIT: Duration = Duration::from_secs(5);

/// Starts the stream, makes what is not there yet, and says what to look at. With [`Stream::Live`] it waits until a
/// public host can be reached, and says so.
///
/// # Errors
/// A statement of the demo that is refused, as on a data directory where something else has its names.
pub async fn start(server: &Server, stream: Stream) -> Result<Demo> {
    let database = server.database();
    let (simulator, endpoints, startup) = match stream {
        Stream::Simulated { rate } => {
            let settings = Settings {
                rate: f64::from(rate),
                start_us: START_US,
                odd_records: ODD_RECORDS,
                broken_frames: BROKEN_FRAMES,
                ..Settings::default()
            };
            let simulator = start_simulator(database, settings).await?;
            let endpoints = format!("ws://{}", simulator.address());
            (Some(simulator), endpoints, "earliest")
        }
        Stream::Live => (None, LIVE_HOSTS.to_owned(), "latest"),
    };
    while let Err(error) = point_stream(database, &endpoints, startup).await {
        if stream != Stream::Live || !is_unreached(&error) {
            return Err(error);
        }
        tracing::warn!(error = %chain(&error), "Bluesky's Jetstream hosts cannot be reached; trying again until they can");
        tokio::time::sleep(UNREACHED_WAIT).await;
    }
    for parsed in sql::parse(VIEWS)? {
        if !matches!(parsed.statement, Statement::Empty) {
            run(database, &parsed).await?;
        }
    }
    // Nobody may read it: a closed pipe is no reason to stop.
    let _ = std::io::stdout().write_all(introduction(server, stream).as_bytes());
    Ok(Demo { _simulator: simulator })
}

/// On the port it had before when that is free: the same host, so that the stream goes on right where it stood.
async fn start_simulator(database: &Database, settings: Settings) -> Result<Simulator> {
    let options = SimulatorOptions { settings, lookback: HISTORY, ..SimulatorOptions::default() };
    let version = database.catalog().version();
    let before = version.object(&stream_name()).and_then(|stream| stream.options.get("endpoints")?.strip_prefix("ws://"));
    if let Some(address) = before {
        let again = SimulatorOptions { address: address.to_owned(), ..options.clone() };
        if let Ok(simulator) = Simulator::start(again).await {
            return Ok(simulator);
        }
    }
    Simulator::start(options).await
}

fn stream_name() -> ObjectName {
    ObjectName { schema: "public".to_owned(), name: "jetstream".to_owned() }
}

/// Makes the stream, or points the one that is there to where its events come from this time.
async fn point_stream(database: &Database, endpoints: &str, startup: &str) -> Result<()> {
    let version = database.catalog().version();
    let text = match version.object(&stream_name()) {
        Some(there) if there.options.get("endpoints").is_some_and(|old| old == endpoints) => return Ok(()),
        Some(_) => format!("ALTER STREAMING TABLE jetstream SET (endpoints = '{endpoints}')"),
        None => format!(
            "CREATE STREAMING TABLE jetstream (*, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds') \
             WITH (connector = 'jetstream', endpoints = '{endpoints}', scan.startup.mode = '{startup}', \
             cursor.too_old = 'clamp', retention = '1 day')"
        ),
    };
    for parsed in sql::parse(&text)? {
        run(database, &parsed).await?;
    }
    Ok(())
}

/// Whether the outside did not answer: SQLSTATE's class of connections.
fn is_unreached(error: &Error) -> bool {
    error.sqlstate().starts_with("08")
}

/// Runs a definition statement; what is there already stays.
async fn run(database: &Database, parsed: &sql::Parsed) -> Result<()> {
    const DUPLICATE: &str = "42P07";
    let session = SessionInfo { application: "demo".to_owned(), ..own_session() };
    let planner = database.planner(&session);
    match database.execute_ddl(&session, &planner, parsed).await {
        Err(error) if error.sqlstate != DUPLICATE => Err(error.into()),
        _ => Ok(()),
    }
}

fn introduction(server: &Server, stream: Stream) -> String {
    let what = match stream {
        Stream::Simulated { rate } => format!("{rate} invented events a second come from a simulator in Jetstream's protocol"),
        Stream::Live => "Bluesky's public Jetstream hosts are read".to_owned(),
    };
    let pg = server.pg();
    format!(
        "\n\
         {what}; views over them are kept up to date.\n\
         \n\
         \x20   psql -h {} -p {} -d freshet\n\
         \x20   http://{}/\n\
         \n\
         Three queries to paste, each with \\watch 1 after it instead of the semicolon to see it move:\n\
         \n\
         \x20   SELECT * FROM posts_per_minute ORDER BY window_start DESC, posts DESC LIMIT 10;\n\
         \x20   SELECT * FROM top_hashtags ORDER BY window_end DESC, uses DESC LIMIT 10;\n\
         \x20   SELECT * FROM rate_by_collection ORDER BY window_start DESC, events_per_second DESC LIMIT 10;\n\n",
        pg.ip(),
        pg.port(),
        server.http(),
    )
}
