//! The Nexmark queries against exact answers, for several layouts of the same events, as streams and as bounded queries.

use std::path::{Path, PathBuf};

use tests::{Freshet, Nexmark, need, nexmark, python, run_directory, shared};

/// Events per run: 10 s of event time, so that windows open and close.
const EVENTS: u32 = 100_000;

/// Query file and the oracle's name for its answer.
const QUERIES: [(&str, &str); 13] = [
    ("q0", "q0"),
    ("q1", "q1"),
    ("q2", "q2"),
    ("q10", "q10"),
    ("q11", "q11"),
    ("q12", "q12"),
    ("q12_short", "q12"),
    ("q14", "q14"),
    ("q15", "q15"),
    ("q16", "q16"),
    ("q17", "q17"),
    ("q21", "q21"),
    ("q22", "q22"),
];

/// The hop count inside q5.
const HOP: &str = "SELECT auction, count(*) AS num, window_start, window_end \
FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end";

fn query(name: &str) -> String {
    std::fs::read_to_string(shared(&format!("nexmark/freshet/{name}.sql")).expect("need() was asked")).expect("a query")
}

/// The statement that makes `bid`, and only that one, over a data set.
fn bid_table(data: &Path) -> String {
    let tables = std::fs::read_to_string(shared("nexmark/freshet/tables.sql").expect("need() was asked")).expect("tables");
    let tables = tables.replace(":dir", data.to_str().expect("a temporary path is text"));
    let begin = tables.find("CREATE STREAMING TABLE bid").expect("bid is there");
    tables[begin..].split(';').next().expect("a statement").to_owned()
}

fn verify(answers: &Path, oracle: &str, csv: &Path) {
    let script = shared("nexmark/oracle.py").expect("need() was asked");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    python(&[&text(&script), "verify", &text(answers), oracle, &text(csv)]);
}

/// Writes the rows of a query as CSV through psql, as a user would.
fn export(server: &Freshet, sql: &str, to: PathBuf) -> PathBuf {
    let out = server
        .psql(&["-v", "ON_ERROR_STOP=1", "-q"], &format!("\\copy ({sql}) TO '{}' WITH (FORMAT csv, HEADER)\n", to.display()));
    assert!(!out.contains("ERROR"), "{sql}\n{out}");
    to
}

/// The hop count by DuckDB, compared row by row.
const HOP_CHECK: &str = r#"
import sys, duckdb
data, result = sys.argv[1:3]
con = duckdb.connect()
con.execute(f"""CREATE VIEW want AS
  SELECT auction, count(*) AS num, window_start, window_start + INTERVAL 10 SECOND AS window_end
  FROM (SELECT b.auction, time_bucket(INTERVAL 2 SECOND, b.date_time) - h.k * INTERVAL 2 SECOND AS window_start
        FROM read_parquet('{data}/parquet/bid/*.parquet') b, (SELECT unnest([0, 1, 2, 3, 4]) AS k) h)
  GROUP BY auction, window_start""")
con.execute(f"""CREATE VIEW got AS SELECT auction::BIGINT AS auction, num::BIGINT AS num, window_start::TIMESTAMP AS window_start,
  window_end::TIMESTAMP AS window_end FROM read_csv('{result}', header = true, all_varchar = true)""")
lost = con.execute("SELECT * FROM want EXCEPT ALL SELECT * FROM got LIMIT 3").fetchall()
extra = con.execute("SELECT * FROM got EXCEPT ALL SELECT * FROM want LIMIT 3").fetchall()
assert not lost and not extra, (lost, extra)
assert con.execute("SELECT count(*) FROM got").fetchone()[0] > 1000
"#;

async fn streams_equal_the_oracle(parts: u32, ooo: u32) {
    if !need(&["shared", "python", "psql"]) {
        return;
    }
    let Nexmark { data, answers } = nexmark(EVENTS, parts, ooo);
    let run = run_directory("nexmark");
    let mut server = Freshet::start(run.join("data").to_str().expect("text"), &[], &run);
    server.sql(&bid_table(&data)).await;
    for (name, oracle) in QUERIES {
        server.sql(&format!("CREATE STREAMING VIEW {name} AS {}", query(name))).await;
        server.wait(name).await;
        verify(&answers, oracle, &export(&server, &format!("SELECT * FROM {name}"), run.join(format!("{name}.csv"))));
    }
    server.sql(&format!("CREATE STREAMING VIEW hop AS {HOP}")).await;
    server.wait("hop").await;
    let csv = export(&server, "SELECT * FROM hop", run.join("hop.csv"));
    python(&["-c", HOP_CHECK, data.to_str().expect("text"), csv.to_str().expect("text")]);
    assert_eq!(server.value("SELECT count(*) FROM freshet.errors").await, "0", "no row is late or bad");
    // What is on the disk alone gives the same answers.
    server.sql("FLUSH").await;
    server.restart();
    for (name, oracle) in QUERIES {
        verify(&answers, oracle, &export(&server, &format!("SELECT * FROM {name}"), run.join(format!("{name}-again.csv"))));
    }
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_per_table() {
    streams_equal_the_oracle(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_files_per_table() {
    streams_equal_the_oracle(2, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_files_per_table() {
    streams_equal_the_oracle(4, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disordered_events() {
    streams_equal_the_oracle(2, 1000).await;
}

/// The same queries, each run once over the bounded input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_queries_equal_the_oracle() {
    if !need(&["shared", "python", "psql"]) {
        return;
    }
    let Nexmark { data, answers } = nexmark(EVENTS, 2, 1);
    let run = run_directory("nexmark-batch");
    let server = Freshet::start(run.join("data").to_str().expect("text"), &[], &run);
    server.sql(&bid_table(&data)).await;
    for (name, oracle) in QUERIES {
        let sql = query(name).replace('\n', " ");
        verify(&answers, oracle, &export(&server, &sql, run.join(format!("{name}.csv"))));
    }
    let csv = export(&server, HOP, run.join("hop.csv"));
    python(&["-c", HOP_CHECK, data.to_str().expect("text"), csv.to_str().expect("text")]);
}
