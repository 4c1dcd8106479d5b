//! The files that README and docs/ name are there: a page that leads nowhere is worse than none.
#![allow(clippy::unwrap_used)] // a test that fails is a test that fails

use std::fs;
use std::path::Path;

/// Where a page may begin a path: the repository, a crate, the gateway's source.
const ROOTS: [&str; 8] = [
    "",
    "gateway",
    "gateway/src",
    "gateway/src/pipeline",
    "routing/src",
    "crypto/src",
    "integration/src",
    "docs",
];

/// Whether something between backticks is meant as a file or folder of the repository.
fn is_place(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let has_known_end = [".rs", ".md", ".toml", "/"]
        .iter()
        .any(|end| code.ends_with(end));
    !code.starts_with("target/")
        && code.contains('/')
        && has_known_end
        && code.chars().all(plain)
        && !code.starts_with('/')
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let docs = fs::read_dir(repository.join("docs")).unwrap();
    let mut pages: Vec<_> = docs.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(repository.join("README.md"));
    let (mut named, mut missing) = (0, Vec::new());
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for code in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| is_place(code))
        {
            named += 1;
            let there = |root: &&str| repository.join(root).join(code).exists();
            if !ROOTS.iter().any(there) {
                missing.push(format!("{}: {code}", page.display()));
            }
        }
    }
    assert!(named > 50, "{named}");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_drop_reason_has_its_row() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(repository.join("docs/states.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    for reason in routing::reason::DropReason::ALL {
        let code = format!("`{}`", reason.name());
        let is_named = |row: &&&str| {
            row.split('|')
                .nth(1)
                .is_some_and(|cell| cell.contains(&code))
        };
        assert!(
            rows.iter().any(|row| is_named(&row)),
            "docs/states.md has no row for {code}"
        );
    }
}
