//! Mistakes in policies, routes and SKUs, and what each is told: every file in `mistakes/` makes one, and
//! `docs/mistakes.md` has the message as `vng check` prints it, with its position. When a message changes,
//! `VNG_WRITE=1 cargo test -p gateway --test mistakes` writes the page anew; what has changed in it is to be
//! read before it is kept.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use gateway::config::{self, KeyFiles, Report};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "../docs/mistakes.md";
const INTRODUCTION: &str = "# Mistakes, and what `vng check` says

Policies, routes and SKUs that do not hold together, one mistake each. The files are in
`gateway/tests/mistakes/`; the messages below are what each of them got, and a test holds them to that.
All that is wrong with a file is told at once. Errors end `vng check`, `vng run` and `vng reload` with status 2, and a
running gateway goes on as it was; warnings do not.
";

fn at_home(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn mistakes() -> Vec<PathBuf> {
    let entries = fs::read_dir(at_home("tests/mistakes")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What a file is told, warnings alone or errors as well.
fn told(path: &Path) -> (String, Report) {
    let source = fs::read_to_string(path).unwrap();
    let title = source.lines().next().unwrap();
    let title = title
        .trim_start_matches("# ")
        .trim_end_matches('.')
        .to_owned();
    let name = path.file_name().unwrap();
    let directory = Path::new("/etc/vng");
    let report = match config::parse(Path::new(name), source, directory, KeyFiles::Skipped) {
        Ok(loaded) => loaded.report,
        Err(report) => report,
    };
    (title, report)
}

#[test]
fn every_mistake_is_told_once_at_its_place() {
    let files = mistakes();
    assert!(files.len() >= 20, "{}", files.len());
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (_, report) = told(&path);
        let views = report.views();
        // What a file says of features that are still to come is no mistake of it.
        let findings = views
            .iter()
            .filter(|view| !view.message.ends_with("has no effect yet"));
        let findings: Vec<_> = findings.collect();
        let [finding] = findings.as_slice() else {
            panic!("{name}: {}", report.render(false));
        };
        let source = fs::read_to_string(&path).unwrap();
        let line = source.lines().nth(finding.line - 1).unwrap();
        assert!(
            finding.line > 1 && finding.column <= line.len(),
            "{name}: {finding:?}"
        );
        assert!(
            !finding.message.is_empty() && !finding.found.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn the_page_has_the_message_of_every_mistake() {
    let mut page = INTRODUCTION.to_owned();
    for path in mistakes() {
        let (title, report) = told(&path);
        write!(
            page,
            "\n## {title}\n\n```\n{}\n```\n",
            report.render(false).trim_end()
        )
        .unwrap();
    }
    let kept = at_home(PAGE);
    if std::env::var_os("VNG_WRITE").is_some() {
        fs::write(&kept, &page).unwrap();
    }
    let kept = fs::read_to_string(&kept).unwrap();
    for (line, (kept, now)) in kept.lines().zip(page.lines()).enumerate() {
        assert_eq!(kept, now, "line {} of docs/mistakes.md", line + 1);
    }
    assert_eq!(kept, page, "docs/mistakes.md");
}
