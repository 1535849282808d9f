//! The same server on an S3-speaking store: commits, kills, tables.

use tests::{Freshet, S3, need, run_directory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_on_s3_survives_a_kill() {
    if !need(&["python"]) {
        return;
    }
    let run = run_directory("s3");
    let store = S3::start(&run);
    let settings = store.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut server = Freshet::start("s3://freshet/kill", &settings, &run);
    server
        .sql(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT);
             CREATE STREAMING TABLE bids (auction BIGINT, price BIGINT, date_time TIMESTAMP, WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
               WITH (connector = 'nexmark', table = 'bid', rows = 20000, rate = 20000);
             CREATE STREAMING VIEW totals AS SELECT auction % 10 AS a, count(*) AS n, sum(price) AS s FROM bids GROUP BY auction % 10;",
        )
        .await;
    for id in 0..5 {
        server.sql(&format!("INSERT INTO t VALUES ({id}, 'v{id}')")).await;
        server.kill();
        server.restart();
        assert_eq!(server.value("SELECT count(*) FROM t").await, (id + 1).to_string(), "an acknowledged row stays");
    }
    server.wait("totals").await;
    let stream = server.sql("SELECT a, n, s FROM totals ORDER BY a").await;
    let batch =
        server.sql("SELECT auction % 10 AS a, count(*) AS n, sum(price) AS s FROM bids GROUP BY auction % 10 ORDER BY a").await;
    assert_eq!(stream, batch);
}
