//! `sql/REFERENCE.md` says what is true: its examples run, and its list of functions is the one that is built in.

use std::path::{Path, PathBuf};

use tests::{Freshet, run_directory};

const BEGIN: &str = "<!-- functions: written by BLESS=1 make test -->\n";
const END: &str = "<!-- end of functions -->";

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/REFERENCE.md")
}

/// One line for each function of the built-in packages, overloads together.
fn functions() -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for entry in udfs::catalog() {
        let call = format!("`{}({}) → {}`", entry.name, entry.signature, entry.returns);
        match lines.last_mut() {
            Some((name, line)) if *name == entry.name => *line = format!("{call}, {line}"),
            _ => lines.push((entry.name, format!("{call}: {}", entry.doc))),
        }
    }
    lines.into_iter().map(|(_, line)| format!("- {line}\n")).collect()
}

#[test]
fn the_list_of_functions_is_complete() {
    let text = std::fs::read_to_string(reference()).expect("the reference");
    let (before, rest) = text.split_once(BEGIN).expect("the list begins with its mark");
    let (list, after) = rest.split_once(END).expect("the list ends with its mark");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(reference(), format!("{before}{BEGIN}{}{END}{after}", functions())).expect("the checkout can be written");
    } else {
        assert!(
            list == functions(),
            "sql/REFERENCE.md does not list the functions there are; run with BLESS=1 and read the difference"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_run() {
    let text = std::fs::read_to_string(reference()).expect("the reference");
    let run = run_directory("reference");
    let rows =
        [r#"{"boat_id":1,"speed":5.5,"ts":"2026-01-01T00:00:01Z"}"#, r#"{"boat_id":2,"speed":12,"ts":"2026-01-01T00:02:01Z"}"#];
    std::fs::write(run.join("readings.jsonl"), rows.join("\n")).expect("a file");
    let server = Freshet::start(run.join("data").to_str().expect("text"), &[], &run);
    let mut examples = 0;
    for example in text.split("```sql\n").skip(1) {
        let example = example.split("```").next().expect("split gives one part at least");
        server.sql(&example.replace("/tmp/readings", run.to_str().expect("text"))).await;
        examples += 1;
    }
    assert!(examples >= 5, "the examples were found");
    server.wait("speed_1m").await;
    assert_eq!(server.value("SELECT sum(n) FROM speed_1m").await, "2");
}
