//! Other readers read our tables while we write them.

use tests::{Freshet, need, read_paimon, run_directory};

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
        // Files follow the commit by at most the flush interval; each state the reader sees on the way is whole, not torn.
        for table in ["accounts", "log"] {
            let wanted = server.value(&format!("SELECT count(*) FROM {table}")).await;
            let mut tries = 0;
            while read_paimon(&data.join("warehouse"), &format!("public.{table}")).len().to_string() != wanted {
                tries += 1;
                assert!(tries < 100, "{table}, round {round}: pypaimon never saw {wanted} rows");
            }
        }
    }
}
