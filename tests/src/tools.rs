//! What tests are given from outside: installed servers and readers, the shared Nexmark generator and its answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// Where an installed server is; `tests/servers/install.sh` puts it there.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("FRESHET_IT_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/freshet-it")))?;
    let path = home.join(name);
    path.join(".ok").exists().then_some(path)
}

/// A directory for what tests write; those of test binaries that are gone are removed first.
pub(crate) fn run_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let all = std::env::temp_dir().join("freshet-it");
        for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        let root = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&root).expect("a temporary directory");
        root
    })
}

/// A fresh directory for one test.
pub fn run_directory(name: &str) -> PathBuf {
    let directory = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(run_root());
    directory.expect("a temporary directory").keep()
}

/// Whether a test can run with what it needs: `kafka`, `python`, `psql`, `shared`.
///
/// # Panics
/// Under `FRESHET_IT=require` when a server is missing: CI must not skip in silence. The shared folder may always be absent.
pub fn need(names: &[&str]) -> bool {
    for name in names {
        let there = match *name {
            "shared" => shared("nexmark/gen.py").is_some(),
            "psql" => Command::new("psql").arg("--version").output().is_ok(),
            server => installed(server).is_some(),
        };
        if there {
            continue;
        }
        let required = std::env::var("FRESHET_IT").is_ok_and(|value| value == "require");
        assert!(!required || *name == "shared", "needs {name}: run tests/servers/install.sh {name}");
        eprintln!("SKIPPED {}: needs {name}", std::thread::current().name().unwrap_or("a test"));
        return false;
    }
    true
}

/// A file of the folder `shared` beside the checkout, where there is one.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let path = root.parent()?.join("shared").join(path);
    path.exists().then_some(path)
}

/// Runs a Python script with the readers installed; its standard output.
pub fn python(arguments: &[&str]) -> String {
    let home = installed("python").expect("need() was asked before");
    let output = Command::new(home.join("venv/bin/python")).args(arguments).output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Rows of a Paimon table as pypaimon reads them, JSON objects one per line, sorted.
pub fn read_paimon(warehouse: &Path, table: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/read_paimon.py");
    let text = python(&[script, warehouse.to_str().expect("a temporary path is text"), table]);
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// A generated Nexmark data set with exact answers.
#[derive(Debug, Clone)]
pub struct Nexmark {
    /// The generator's output folder.
    pub data: PathBuf,
    /// The oracle's answers: the same for every layout and disorder.
    pub answers: PathBuf,
}

/// Nexmark events by the shared generator: `events` rows in `parts` files per table, disordered by groups of `ooo`.
/// Made once per layout and test binary.
pub fn nexmark(events: u32, parts: u32, ooo: u32) -> Nexmark {
    static LOCK: Mutex<()> = Mutex::new(());
    let root = run_root();
    let _made_once = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let generator = shared("nexmark/gen.py").expect("need() was asked before");
    let oracle = shared("nexmark/oracle.py").expect("beside the generator");
    let text = |path: &Path| path.to_str().expect("a temporary path is text").to_owned();
    let data = root.join(format!("{events}-{parts}-{ooo}"));
    if !data.exists() {
        let (events, parts, ooo) = (events.to_string(), parts.to_string(), ooo.to_string());
        python(&[&text(&generator), "--events", &events, "--parts", &parts, "--ooo", &ooo, "--out", &text(&data)]);
    }
    let answers = root.join(format!("{events}-answers"));
    if !answers.exists() {
        let queries = "q0,q1,q2,q10,q11,q12,q14,q15,q16,q17,q21,q22";
        python(&[&text(&oracle), "make", &text(&data), &text(&answers), "--queries", queries]);
    }
    Nexmark { data, answers }
}
