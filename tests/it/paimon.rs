//! Other readers read our tables while we write them.

use tests::{Freshet, need, read_paimon, run_directory};

/// Rows of a query as JSON objects, one per line, sorted: what the reader prints.
async fn ours(server: &Freshet, table: &str) -> Vec<String> {
    let rows = server.sql(&format!("SELECT * FROM {table} ORDER BY 1")).await;
    let mut rows: Vec<String> = rows.into_iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pypaimon_reads_what_select_reads() {
    if !need(&["python"]) {
        return;
    }
    let run = run_directory("paimon");
    let data = run.join("data");
    let server = Freshet::start(data.to_str().expect("text"), &[("flush_interval", "200ms")], &run);
    server
        .sql(
            "CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner TEXT, balance NUMERIC(12,2), opened TIMESTAMP);
             CREATE TABLE log (n INT, line TEXT);",
        )
        .await;
    for round in 0..8 {
        for id in 0..20 {
            server
                .sql(&format!(
                    "INSERT INTO log VALUES ({id}, 'round {round}');
                     DELETE FROM accounts WHERE id = {id};
                     INSERT INTO accounts VALUES ({id}, 'o{round}', {round}.25, TIMESTAMP '2026-01-0{} 00:00:00.123456');",
                    round + 1
                ))
                .await;
        }
        server.sql(&format!("DELETE FROM accounts WHERE id % 7 = {}", round % 7)).await;
        server.sql("CALL flush_tables()").await;
        // Counts only here: the reader prints values in its own words. The matrix of types is in the tables' own tests.
        let theirs = read_paimon(&data.join("warehouse"), "public.accounts");
        assert_eq!(theirs.len(), ours(&server, "accounts").await.len(), "round {round}");
        let theirs = read_paimon(&data.join("warehouse"), "public.log");
        assert_eq!(theirs.len(), ours(&server, "log").await.len(), "round {round}");
    }
}
