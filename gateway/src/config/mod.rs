//! The configuration file: one TOML file, every error of it reported at once.
//!
//! In the order in which a file meets them:
//! - [`value`]: the kinds of values and what each allows.
//! - [`walk`]: a walk over the document that notes what does not fit and goes on.
//! - [`read`], [`mod@matches`]: the sections, made into [`schema::Config`].
//! - [`rule`]: policy rules with their prefix sets looked up, as the data path compiles them.
//! - [`validate`]: the rules that hold between values.
//! - [`pool`]: who of the point-to-site clients has which address.
//! - [`key_file`]: secrets, read only from private files.
//! - [`diagnostic`]: findings with file, line, column, and how they are shown.

pub mod diagnostic;
pub mod key_file;
pub(crate) mod matches;
pub mod pool;
pub mod read;
pub(crate) mod rule;
pub mod schema;
mod validate;
pub(crate) mod value;
mod walk;

pub use diagnostic::{Finding, Report, Severity};
pub use validate::KeyFiles;

use schema::Config;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// A file that may run: no errors, perhaps warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, with the file's text.
    pub report: Report,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file has errors; all of them are in the report.
    Wrong(Report),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { file, error } => write!(formatter, "{}: {error}", file.display()),
            Self::Wrong(report) => write!(formatter, "{}", report.render(false).trim_end()),
        }
    }
}

impl std::error::Error for LoadError {}

/// The longest file that is read, bytes: 1,000 prefixes for each of 100 sites fit ten times.
const LONGEST: u64 = 64 << 20;

/// Reads and checks the file at `path`; with its key files also what this machine says of the way to the far ends.
///
/// # Errors
/// That the file cannot be read, or everything that is wrong with it.
pub fn load(path: &Path, key_files: KeyFiles) -> Result<Loaded, LoadError> {
    let unreadable = |error| LoadError::Unreadable {
        file: path.to_owned(),
        error,
    };
    let mut source = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let read = std::io::Read::read_to_string(&mut std::io::Read::take(file, LONGEST), &mut source);
    read.map_err(unreadable)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let is_here = key_files == KeyFiles::Checked;
    read_in(path, source, directory, (key_files, is_here)).map_err(LoadError::Wrong)
}

/// Checks the text of a file, but not what this machine says of the way to the far ends; `name` stands in messages, relative paths begin at `directory`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    name: &Path,
    source: String,
    directory: &Path,
    key_files: KeyFiles,
) -> Result<Loaded, Report> {
    read_in(name, source, directory, (key_files, false))
}

fn read_in(
    name: &Path,
    source: String,
    directory: &Path,
    (key_files, is_here): (KeyFiles, bool),
) -> Result<Loaded, Report> {
    let mut walk = walk::Walk::default();
    let (document, syntax) = DeTable::parse_recoverable(&source);
    if !syntax.is_empty() {
        // What is recovered of a broken document misleads: its syntax comes first, all of it.
        walk.findings = syntax_findings(&source, &syntax);
        drop(document);
        return Err(Report::new(name, source, walk.findings));
    }
    let root = walk::Section::root(document.get_ref());
    let mut config = read::config(&mut walk, root, directory);
    drop(document);
    let is_wrong = |finding: &Finding| finding.severity == Severity::Error;
    let is_here = is_here && !walk.findings.iter().any(is_wrong);
    let rules = validate::check(&config, &walk.places, key_files, is_here);
    walk.findings.extend(rules);
    let report = Report::new(name, source, walk.findings);
    if report.errors() > 0 {
        return Err(report);
    }
    pool::assign(&mut config);
    Ok(Loaded { config, report })
}

/// The errors of a document that is not TOML. Behind an error the parser finds others that are none:
/// the rest of a line, and the keys of a table that stands a second time.
fn syntax_findings(source: &str, errors: &[toml::de::Error]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut last_line, mut in_duplicate) = (None, false);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line_start = source
            .get(..span.start)
            .and_then(|before| before.rfind('\n'));
        let line_start = line_start.map_or(0, |newline| newline + 1);
        let line = source.get(line_start..).unwrap_or_default().trim_start();
        let duplicate = error.message() == "duplicate key";
        let is_header = line.starts_with('[');
        let follows = in_duplicate && duplicate && !is_header;
        in_duplicate = duplicate && (is_header || in_duplicate);
        if last_line == Some(line_start) || follows {
            continue;
        }
        last_line = Some(line_start);
        findings.push(Finding {
            severity: Severity::Error,
            key: String::new(),
            span,
            title: "not TOML".to_owned(),
            found: error.message().to_owned(),
            allowed: None,
            help: duplicate.then(|| {
                "a key and a [table] stand once; each [[table]] in double brackets is one more of \
                 a list"
                    .to_owned()
            }),
            also: None,
        });
    }
    findings
}
