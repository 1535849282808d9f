//! psql and a driver, as people use them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::{Freshet, need, run_directory};

const TABLES: &str = "
CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT NOT NULL, born DATE, score DOUBLE PRECISION);
INSERT INTO people VALUES (1, 'Ada', DATE '1815-12-10', 1.5), (2, 'Grace', NULL, NULL);
CREATE VIEW named AS SELECT name FROM people;
CREATE STREAMING TABLE ticks (auction BIGINT, price BIGINT, date_time TIMESTAMP, WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
  WITH (connector = 'nexmark', table = 'bid', rows = 5000);
CREATE STREAMING VIEW per_auction AS SELECT auction, count(*) AS n FROM ticks GROUP BY auction;
";

fn start(name: &str) -> Freshet {
    let run = run_directory(name);
    Freshet::start(run.join("data").to_str().expect("text"), &[], &run)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backslash_commands() {
    if !need(&["psql"]) {
        return;
    }
    let server = start("psql");
    server.sql(TABLES).await;
    let cases: [(&str, &[&str]); 9] = [
        ("\\d", &["people", "named", "per_auction", "materialized view", "view"]),
        ("\\dt", &["people"]),
        ("\\dm", &["per_auction"]),
        ("\\dv", &["named"]),
        ("\\l", &["freshet"]),
        ("\\dn", &["public"]),
        ("\\d people", &["id", "bigint", "not null", "name", "text", "born", "date", "double precision", "people_pkey"]),
        ("\\d per_auction", &["auction", "bigint", "n"]),
        ("\\conninfo", &["freshet", "127.0.0.1"]),
    ];
    for (command, wanted) in cases {
        let out = server.psql(&[], &format!("{command}\n"));
        assert!(!out.contains("ERROR"), "{command}\n{out}");
        for word in wanted {
            assert!(out.contains(word), "{command}: {word} is not in\n{out}");
        }
    }
    let out = server.psql(&[], "\\dt\n");
    assert!(!out.contains("per_auction") && !out.contains("named"), "{out}");
    let out = server.psql(&[], "SELECT id, name, born, score FROM people ORDER BY id;\n");
    let table = " id | name  |    born    | score \n----+-------+------------+-------\n  1 | Ada   | 1815-12-10 |   1.5\n  2 | Grace |            |      \n(2 rows)\n";
    assert_eq!(out.trim_end(), table.trim_end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_out_and_in() {
    if !need(&["psql"]) {
        return;
    }
    let server = start("copy");
    server.sql(TABLES).await;
    let out = server.psql(&["-q"], "COPY (SELECT id, name, born FROM people ORDER BY id) TO STDOUT;\n");
    assert_eq!(out, "1\tAda\t1815-12-10\n2\tGrace\t\\N\n");
    let out = server.psql(&["-q"], "COPY people (id, name) TO STDOUT WITH (FORMAT csv, HEADER);\n");
    assert!(out.starts_with("id,name\n") && out.contains("1,Ada\n"), "{out}");
    let script = "COPY people (id, name, born) FROM STDIN WITH (FORMAT csv);\n3,\"Hopper, G.\",1906-12-09\n4,\"\"\"quoted\"\"\",\n\\.\nSELECT name FROM people WHERE id > 2 ORDER BY id;\n";
    let out = server.psql(&["-q", "-A", "-t"], script);
    assert_eq!(out, "Hopper, G.\n\"quoted\"\n");
    let out = server.psql(&["-q"], "COPY people (id, name) FROM STDIN;\n5\tgood\nsix\tbad\n\\.\nSELECT count(*) FROM people;\n");
    assert!(out.contains("invalid input syntax for type bigint: \"six\"") && out.contains("line 2"), "{out}");
    assert!(out.contains(" 4\n"), "nothing of a failed COPY stays\n{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_code_position_and_hint() {
    let server = start("errors");
    server.sql(TABLES).await;
    let cases = [
        ("SELEC 1", "42601", "syntax error at or near \"SELEC\"", Some(1)),
        ("SELECT nme FROM people", "42703", "column \"nme\" does not exist", Some(8)),
        ("SELECT * FROM peple", "42P01", "relation \"peple\" does not exist", Some(15)),
        ("SELECT 1 / 0", "22012", "division by zero", None),
        ("SELECT 'x'::bigint", "22P02", "invalid input syntax for type bigint: \"x\"", None),
        ("CREATE TABLE people (id BIGINT)", "42P07", "relation \"people\" already exists", None),
        (
            "INSERT INTO people VALUES (1, 'again', NULL, NULL)",
            "23505",
            "duplicate key value violates unique constraint \"people_pkey\"",
            None,
        ),
        (
            "INSERT INTO people (id) VALUES (9)",
            "23502",
            "null value in column \"name\" of relation \"people\" violates not-null constraint",
            None,
        ),
        ("DROP TABLE people", "2BP01", "cannot drop table people because other objects depend on it", None),
        ("DROP TABLE nothing", "42P01", "table \"nothing\" does not exist", None),
        ("SELECT nofunction(1)", "42883", "function nofunction(", None),
        ("CREATE STREAMING TABLE s (a INT) WITH (connector = 'kafka', topc = 'x')", "22023", "topc", None),
        (
            "CREATE STREAMING TABLE s (a INT) WITH (connector = 'files', path = '/nowhere/*.json')",
            "58P01",
            "/nowhere/*.json",
            None,
        ),
        (
            "CREATE STREAMING TABLE s (a TEXT, WATERMARK FOR a AS a - INTERVAL '1 second') WITH (connector = 'nexmark', table = 'bid')",
            "42804",
            "a",
            None,
        ),
        ("CREATE STREAMING VIEW v AS SELECT auction FROM ticks ORDER BY auction", "0A000", "ORDER BY", None),
        (
            "CREATE STREAMING TABLE s (a INT) WITH (connector = 'kafka', topic = 'x', properties.bootstrap.server = '127.0.0.1:1')",
            "08001",
            "127.0.0.1:1",
            None,
        ),
    ];
    for (sql, code, message, position) in cases {
        let error = server.try_sql(sql).await.expect_err(sql);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
        assert_eq!(error.code().code(), code, "{sql}: {}", error.message());
        assert!(error.message().contains(message), "{sql}: {}", error.message());
        if let Some(position) = position {
            let found = error.position().map(|found| match found {
                tokio_postgres::error::ErrorPosition::Original(at) => *at,
                tokio_postgres::error::ErrorPosition::Internal { position, .. } => *position,
            });
            assert_eq!(found, Some(position), "{sql}");
        }
    }
    // Nothing is half created.
    assert_eq!(server.value("SELECT count(*) FROM freshet.jobs WHERE name IN ('s', 'v')").await, "0");
    server.try_sql("SELECT * FROM s").await.expect_err("s was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_prepares_binds_and_reads_binary() {
    let server = start("driver");
    server.sql(TABLES).await;
    let client = server.connect().await;
    let statement = client.prepare("SELECT id, name, score FROM people WHERE id = $1").await.expect("prepared");
    let row = client.query_one(&statement, &[&1_i64]).await.expect("a row");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1), row.get::<_, Option<f64>>(2)), (1, "Ada", Some(1.5)));
    let row = client.query_one(&statement, &[&2_i64]).await.expect("a row");
    assert_eq!(row.get::<_, Option<f64>>(2), None);
    let changed = client.execute("UPDATE people SET score = $1 WHERE name = $2", &[&2.5_f64, &"Grace"]).await.expect("updated");
    assert_eq!(changed, 1);
    assert_eq!(client.execute("DELETE FROM people WHERE id = $1", &[&1_i64]).await.expect("deleted"), 1);
    assert_eq!(server.value("SELECT score FROM people").await, "2.5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_block_waits_for_its_end() {
    let server = start("block");
    server.sql(TABLES).await;
    let client = server.connect().await;
    client.batch_execute("BEGIN").await.expect("begun");
    client.batch_execute("SELECT * FROM nowhere").await.expect_err("no such table");
    let error = client.batch_execute("SELECT 1").await.expect_err("the block has failed");
    assert_eq!(error.code().map(|code| code.code()), Some("25P02"));
    client.batch_execute("ROLLBACK").await.expect("ended");
    client.batch_execute("SELECT 1").await.expect("fine again");
    client.batch_execute("BEGIN; INSERT INTO people VALUES (7, 'x', NULL, NULL); ROLLBACK").await.expect("rolled back");
    assert_eq!(server.value("SELECT count(*) FROM people").await, "2");
    client
        .batch_execute(
            "BEGIN; INSERT INTO people VALUES (7, 'x', NULL, NULL); INSERT INTO people VALUES (8, 'y', NULL, NULL); COMMIT",
        )
        .await
        .expect("committed");
    assert_eq!(server.value("SELECT count(*) FROM people").await, "4");
}

/// Ctrl-C in psql: a query that would run for ever ends, and the connection goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_ends_a_running_query() {
    if !need(&["psql"]) {
        return;
    }
    let server = start("cancel");
    let endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b;\nSELECT 'still here';\n";
    let mut child = Command::new("psql")
        .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &server.pg_port().to_string(), "-U", "freshet", "-d", "freshet", "-c"])
        .arg(endless.lines().next().expect("a statement"))
        .args(["-c", "SELECT 'still here'"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql is installed");
    while server.value("SELECT count(*) FROM freshet.queries WHERE sql LIKE '%generate_series(1, 1000000)%' AND sql NOT LIKE '%freshet.queries%'").await == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill is there");
    let start = Instant::now();
    while child.try_wait().expect("a child can be asked").is_none() {
        assert!(start.elapsed() < Duration::from_secs(30), "psql does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let out = child.wait_with_output().expect("psql ended");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("canceling statement due to user request"), "{text}");
    assert_eq!(server.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_poll() {
    let server = start("polling");
    server.sql(TABLES).await;
    server.wait("per_auction").await;
    let wanted = server.value("SELECT sum(n) FROM per_auction").await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(server.connect().await);
    }
    let polls = clients.iter().map(|client| async {
        for _ in 0..3 {
            let rows = client.query("SELECT sum(n)::text FROM per_auction", &[]).await.expect("an answer");
            assert_eq!(rows[0].get::<_, &str>(0), wanted);
        }
    });
    futures::future::join_all(polls).await;
}
