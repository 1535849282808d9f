//! What is seen from outside: system relations, HTTP, the command line.

use std::io::{Read, Write};
use std::net::TcpStream;

use tests::{Freshet, run_directory};

fn get(server: &Freshet, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).expect("the HTTP port is open");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_relations_and_http() {
    let run = run_directory("system");
    let mut server = Freshet::start(run.join("data").to_str().expect("text"), &[], &run);
    server
        .sql(
            "CREATE STREAMING TABLE bids (auction BIGINT, date_time TIMESTAMP, WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
               WITH (connector = 'nexmark', table = 'bid', rows = 10000);
             CREATE STREAMING VIEW counts AS SELECT window_start, count(*) AS n FROM TUMBLE(bids, date_time, INTERVAL '1 second') GROUP BY window_start, window_end;
             CREATE SINK nothing AS SELECT auction FROM bids WITH (connector = 'blackhole');",
        )
        .await;
    server.wait("counts").await;
    server.wait("nothing").await;
    let job =
        server.sql("SELECT state, rows_in, late_rows, error_rows, last_error FROM freshet.jobs WHERE name = 'counts'").await;
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(job, vec![vec![text("finished"), text("9200"), text("0"), text("0"), None]]);
    assert_eq!(server.value("SELECT sum(n) FROM counts").await, "9200");
    assert_eq!(server.value("SELECT rows_in FROM freshet.jobs WHERE name = 'nothing'").await, "9200");
    assert_eq!(
        server.value("SELECT count(*) FROM freshet.splits WHERE source = 'public.bids' AND job = 'public.counts'").await,
        "1"
    );
    assert_ne!(server.value("SELECT count(*) FROM freshet.checkpoints").await, "0");
    assert_eq!(server.value("SELECT count(*) FROM freshet.tables WHERE name = 'counts'").await, "1");
    assert_eq!(
        server.value("SELECT value FROM freshet.settings WHERE name = 'max_connections'").await,
        server.value("SHOW max_connections").await
    );
    for path in ["/healthz", "/readyz"] {
        assert!(get(&server, path).starts_with("HTTP/1.1 200"), "{path}");
    }
    let metrics = get(&server, "/metrics");
    assert!(metrics.contains("# HELP freshet_") && metrics.contains("counts"), "{metrics}");
    // Another server on the same directory is refused; this one does not notice.
    let refused = std::panic::catch_unwind(|| {
        let other = run_directory("second");
        Freshet::start(run.join("data").to_str().expect("text"), &[], &other)
    });
    assert!(refused.is_err(), "a second server on the same data");
    assert_eq!(server.value("SELECT 1").await, "1");
    assert_eq!(server.stop(), Some(0), "SIGTERM ends it cleanly");
}
