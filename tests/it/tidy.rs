//! What a program can notice about the tree, a test notices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package in the workspace").to_owned()
}

/// Which packages each package may use (ARCHITECTURE.md, Packages).
const ALLOWED: [(&str, &[&str]); 6] = [
    ("catalog", &[]),
    ("engine", &["catalog"]),
    ("udfs", &[]),
    ("sql", &["catalog", "engine", "udfs"]),
    ("server", &["catalog", "engine", "sql", "udfs"]),
    ("tests", &["catalog", "engine", "server", "sql", "udfs"]),
];

#[test]
fn packages_depend_in_one_direction_only() {
    for (package, allowed) in ALLOWED {
        let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
        for (other, _) in ALLOWED {
            let uses =
                manifest.lines().any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ")));
            assert!(!uses || allowed.contains(&other), "{package} must not use {other}");
        }
    }
}

/// Crates that only one package (or one folder) may name, so that the boundary stays where ARCHITECTURE.md draws it.
#[test]
fn outside_clients_stay_behind_their_boundary() {
    let boundaries: BTreeMap<&str, &[&str]> = BTreeMap::from([
        // The crate, not the server's own module of that name.
        ("use pgwire::", &["server/src/pgwire"][..]),
        ("::pgwire::", &["server/src/pgwire"][..]),
        ("rdkafka::", &["engine/src/source/kafka", "tests/"][..]),
        ("tokio_tungstenite::", &["engine/src/source/jetstream", "server/src/simulator", "tests/"][..]),
        ("sqlparser::", &["sql/src", "server/src/session", "server/src/execute", "server/src/pg_catalog"][..]),
    ]);
    for file in rust_files() {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let relative = file.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        if relative == "tests/it/tidy.rs" {
            continue;
        }
        for (name, allowed) in &boundaries {
            let uses = text.lines().any(|line| {
                let code = line.trim_start();
                !code.starts_with("//")
                    && (code.starts_with(name) || code.contains(&format!(" {name}")) || code.contains(&format!("({name}")))
            });
            assert!(!uses || allowed.iter().any(|prefix| relative.starts_with(prefix)), "{relative} must not use {name}");
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for file in rust_files() {
        let text = std::fs::read_to_string(&file).expect("a source file");
        assert!(text.starts_with("//!"), "{} does not begin with //!", file.display());
    }
}

#[test]
fn documents_link_to_what_is_there() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "sql/REFERENCE.md", "catalog/FORMAT.md", "tests/README.md"] {
        let path = root().join(document);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{document} is missing"));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().expect("split gives one part at least");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(path.parent().expect("a folder").join(target).exists(), "{document} links to {target}");
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (package, _) in ALLOWED {
        let mut folders = vec![root().join(package)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    files.push(path);
                }
            }
        }
    }
    assert!(files.len() > 30, "the walk found the sources");
    files
}
