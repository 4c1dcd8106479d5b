//! The configuration file: one TOML file, every error of it reported at once.
//!
//! In the order in which a file meets them:
//! - [`mod@file`]: the file on disk: read, locked, replaced in one step.
//! - [`value`]: the kinds of values and what each allows.
//! - [`walk`]: a walk over the document that notes what does not fit and goes on.
//! - [`read`], [`mod@matches`]: the sections, made into [`schema::Config`].
//! - [`rule`]: policy rules with their prefix sets looked up, as the data path compiles them.
//! - [`validate`]: the rules that hold between values.
//! - [`pool`]: who of the point-to-site clients has which address.
//! - [`key_file`]: secrets, read only from private files.
//! - [`diagnostic`]: findings with file, line, column, and how they are shown.

pub mod diagnostic;
mod entries;
pub mod file;
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

use file::FileError;
use schema::Config;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Where the configuration and its key are, unless a command is told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/etc/vng";
/// The configuration file, unless a command is told otherwise.
pub const DEFAULT_FILE: &str = "/etc/vng/vng.toml";

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
        /// Why.
        error: FileError,
    },
    /// The file has errors; all of them are in the report.
    Wrong(Report),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { file, error } => formatter.write_str(&unreadable(file, error)),
            Self::Wrong(report) => write!(formatter, "{}", report.render(false).trim_end()),
        }
    }
}

impl std::error::Error for LoadError {}

/// Why a configuration file cannot be read, and what helps.
fn unreadable(file: &Path, error: &FileError) -> String {
    use std::io::ErrorKind;
    let shown = file.display();
    let error = match error {
        FileError::System(error) => error,
        FileError::NotAFile("a directory") => {
            return format!("{shown} is a directory: -c names the file in it");
        }
        other => return format!("{shown} {other}"),
    };
    match error.kind() {
        ErrorKind::NotFound if file == Path::new(DEFAULT_FILE) => {
            format!("{shown} is not there: vng init makes a first one, -c names another")
        }
        ErrorKind::NotFound => {
            format!("{shown} is not there: vng init DIR makes a first one, -c names the file")
        }
        ErrorKind::PermissionDenied => {
            format!("{shown} may not be read by this user: be its owner or root")
        }
        ErrorKind::InvalidData => format!("{shown} is no text in UTF-8, so it is no TOML"),
        _ => format!("{shown} cannot be read: {error}"),
    }
}

/// Reads and checks the file at `path`; with its key files also what this machine says of the way to the far ends.
///
/// # Errors
/// That the file cannot be read, or everything that is wrong with it.
pub fn load(path: &Path, key_files: KeyFiles) -> Result<Loaded, LoadError> {
    let source = file::read(path).map_err(|error| LoadError::Unreadable {
        file: path.to_owned(),
        error,
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let is_here = key_files == KeyFiles::Checked;
    read_in(path, source, directory, (key_files, is_here)).map_err(LoadError::Wrong)
}

/// The control socket that a file names; `None` if it cannot be read or names none. Nothing else of it is looked at.
pub fn socket_of(path: &Path) -> Option<PathBuf> {
    socket_in_table(path, &file::read(path).ok()?.parse().ok()?)
}

/// The control socket of a gateway that runs with the file at `path`: what the file says, else the usual one. Mistakes
/// elsewhere in it do not matter.
///
/// # Errors
/// That the file cannot be read or is no TOML.
pub fn socket_in(path: &Path) -> Result<PathBuf, LoadError> {
    let source = file::read(path).map_err(|error| LoadError::Unreadable {
        file: path.to_owned(),
        error,
    })?;
    match source.parse() {
        Ok(table) => Ok(socket_in_table(path, &table).unwrap_or(read::DEFAULT_SOCKET.into())),
        // What is no TOML is told as everywhere.
        Err(_) => load(path, KeyFiles::Skipped).map(|loaded| loaded.config.control.socket),
    }
}

fn socket_in_table(path: &Path, table: &toml::Table) -> Option<PathBuf> {
    let socket = table.get("control")?.get("socket")?.as_str()?;
    let directory = path.parent().unwrap_or(Path::new(""));
    Some(directory.join(socket))
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
    if let Some(findings) = no_toml_at_all(&source) {
        return Err(Report::new(name, source, findings).cut());
    }
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
    let report = Report::new(name, source, walk.findings).and_errors(walk.more);
    if report.errors() > 0 {
        return Err(report);
    }
    pool::assign(&mut config);
    Ok(Loaded { config, report })
}

/// Bytes of a long file that are read first.
const BEGINNING: usize = 256 << 10;
/// So many lines of these that are not TOML, and the rest need not be read.
const MOST_BROKEN: usize = 20;

/// The errors at the beginning of a long file, if there are many: another kind of file, most likely. Each byte
/// of such a one costs the parser a hundred, which is much if there are millions.
fn no_toml_at_all(source: &str) -> Option<Vec<Finding>> {
    let end = source
        .get(..source.floor_char_boundary(BEGINNING))?
        .rfind('\n')?;
    if source.len() <= BEGINNING {
        return None;
    }
    let beginning = source.get(..end)?;
    let (_, syntax) = DeTable::parse_recoverable(beginning);
    let mut findings = syntax_findings(beginning, &syntax);
    // What is open where the beginning ends may be closed behind it.
    findings.retain(|finding| finding.span.end < end);
    (findings.len() >= MOST_BROKEN).then_some(findings)
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
