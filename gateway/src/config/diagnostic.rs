//! What is wrong with a configuration file, where, and what would be right: one value per finding, and
//! its rendering with the line and a caret underline.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The gateway does not start with it.
    Error,
    /// It starts, and this is worth knowing.
    Warning,
}

/// One finding. Its place is a key, such as `vpn.site[0].endpoint`, whose position [`Places`] knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// The key, with the (zero-based) index of array elements.
    pub key: String,
    /// Where in the file: a byte range.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub title: String,
    /// What was found, beside the underline.
    pub found: String,
    /// What is allowed.
    pub allowed: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Another place that plays a part, and which.
    pub also: Option<(Range<usize>, String)>,
}

/// Where each key of a file stands, and which keys are known to be wrong already.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    spans: BTreeMap<String, Range<usize>>,
    /// Of the elements of a list, which may be a million: a key for each would take longer than all else.
    lists: BTreeMap<String, Vec<Range<usize>>>,
    wrong: BTreeSet<String>,
}

impl Places {
    /// Remembers where `key` has its value.
    pub(super) fn insert(&mut self, key: String, span: Range<usize>) {
        self.spans.insert(key, span);
    }

    /// Remembers where the elements of the list `key` stand.
    pub(super) fn insert_elements(&mut self, key: String, spans: Vec<Range<usize>>) {
        self.lists.insert(key, spans);
    }

    /// Where the element of a list stands whose key this is.
    fn element(&self, key: &str) -> Option<&Range<usize>> {
        let (list, index) = key.strip_suffix(']')?.rsplit_once('[')?;
        self.lists.get(list)?.get(index.parse::<usize>().ok()?)
    }

    /// Where `key` stands; a key that the file does not have, where its nearest table stands.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        let mut key = key;
        loop {
            if let Some(span) = self.spans.get(key).or_else(|| self.element(key)) {
                return span.clone();
            }
            match key.rfind(['.', '[']).and_then(|end| key.get(..end)) {
                Some(parent) => key = parent,
                None => return 0..0,
            }
        }
    }

    /// Whether the file has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.spans.contains_key(key) || self.element(key).is_some()
    }

    /// Notes that `key` is wrong: no rule needs to look at it any more.
    pub(super) fn mark_wrong(&mut self, key: &str) {
        self.wrong.insert(key.to_owned());
    }

    /// Whether any key that is known to be wrong is such a one.
    pub(super) fn any_wrong(&self, such: impl Fn(&str) -> bool) -> bool {
        self.wrong.iter().any(|key| such(key))
    }

    /// Whether neither `key` nor anything inside it is known to be wrong.
    pub(super) fn sound(&self, key: &str) -> bool {
        !self
            .wrong
            .range(key.to_owned()..)
            .take_while(|wrong| wrong.starts_with(key))
            .any(|wrong| matches!(wrong.as_bytes().get(key.len()), None | Some(b'.' | b'[')))
    }
}

/// A file with everything that was found in it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file's name as given.
    pub file: PathBuf,
    /// Its text.
    pub source: String,
    /// Errors first, each kind in the file's order; at most [`MOST_FINDINGS`] of each.
    pub findings: Vec<Finding>,
    /// Errors and warnings beyond those.
    omitted: [usize; 2],
    /// Whether the rest of the file was left unread for its many errors.
    is_cut: bool,
}

/// Findings of each severity that are kept: nobody reads more, and a file that is no configuration at all has
/// one in each line.
pub const MOST_FINDINGS: usize = 100;
/// Findings that are shown with their lines, and those whose lines are looked for.
const MOST_SHOWN: usize = 20;

/// A finding as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingView<'a> {
    /// `error` or `warning`.
    pub severity: Severity,
    /// The file.
    pub file: &'a Path,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key.
    pub key: &'a str,
    /// What is wrong.
    pub message: &'a str,
    /// What was found.
    pub found: &'a str,
    /// What is allowed.
    pub allowed: Option<&'a str>,
    /// What to do.
    pub help: Option<&'a str>,
}

impl Report {
    /// A report in order: errors before warnings, then by place.
    pub fn new(file: &Path, source: String, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| (finding.severity, finding.span.start));
        let errors = findings.partition_point(|finding| finding.severity == Severity::Error);
        let warnings = findings.len() - errors;
        let omitted = [errors, warnings].map(|count| count.saturating_sub(MOST_FINDINGS));
        findings.truncate(errors + warnings.min(MOST_FINDINGS));
        findings.drain(errors.min(MOST_FINDINGS)..errors);
        Self {
            file: file.to_owned(),
            source,
            findings,
            omitted,
            is_cut: false,
        }
    }

    /// The same with so many errors more that were counted and not kept.
    #[must_use]
    pub(super) fn and_errors(mut self, more: usize) -> Self {
        let [errors, _] = &mut self.omitted;
        *errors += more;
        self
    }

    /// The same of a file whose rest was left unread.
    #[must_use]
    pub(super) fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let [errors, warnings] = self.omitted;
        let omitted = match severity {
            Severity::Error => errors,
            Severity::Warning => warnings,
        };
        let kept = self.findings.iter().filter(|one| one.severity == severity);
        kept.count() + omitted
    }

    /// The warnings, each in one line: where, what, and what helps.
    pub fn warnings_in_lines(&self) -> Vec<String> {
        let warnings = self.findings.iter();
        let mut lines: Vec<String> = warnings
            .filter(|finding| finding.severity == Severity::Warning)
            .map(|finding| {
                let (line, column) = self.position(finding.span.start);
                let file = self.file.display();
                let mut text = format!("{file}:{line}:{column}: {}", finding.title);
                let allowed = finding
                    .allowed
                    .iter()
                    .map(|text| format!("allowed: {text}"));
                let rest = [Some(finding.found.clone())].into_iter().flatten();
                for more in rest.chain(allowed).chain(finding.help.clone()) {
                    text.push_str("; ");
                    text.push_str(&more);
                }
                text
            })
            .collect();
        let [_, omitted] = self.omitted;
        if omitted > 0 {
            lines.push(format!("and {omitted} more"));
        }
        lines
    }

    /// Line and column, from 1, of a byte position; the column counts characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = self
            .source
            .get(..at.min(self.source.len()))
            .unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// The findings for `--json`.
    pub fn views(&self) -> Vec<FindingView<'_>> {
        let mut views = Vec::with_capacity(self.findings.len());
        for finding in &self.findings {
            let (line, column) = self.position(finding.span.start);
            views.push(FindingView {
                severity: finding.severity,
                file: &self.file,
                line,
                column,
                key: &finding.key,
                message: &finding.title,
                found: &finding.found,
                allowed: finding.allowed.as_deref(),
                help: finding.help.as_deref(),
            });
        }
        views
    }

    /// The report for people: each finding with its line and underline, and a count at the end.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        // Errors first, so that what is left out is the least.
        for finding in self.findings.iter().take(MOST_SHOWN) {
            text.push_str(&renderer.render(&[self.group(finding)]));
            text.push_str("\n\n");
        }
        let all = self.errors() + self.warnings();
        if self.is_cut {
            text.push_str("the rest of the file was not read\n");
        } else if all > MOST_SHOWN {
            let _ = writeln!(text, "and {} more", all - MOST_SHOWN);
        }
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let counts: Vec<String> = [(self.errors(), "error"), (self.warnings(), "warning")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| plural(n, what))
            .collect();
        if !counts.is_empty() {
            let least = if self.is_cut { "at least " } else { "" };
            let counts = counts.join(", ");
            let _ = writeln!(text, "{}: {least}{counts}", self.file.display());
        }
        text
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> Group<'a> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let primary = self.underlined(&finding.span);
        let also = finding.also.as_ref();
        let also = also.map(|(span, label)| (self.underlined(span), label));
        // The lines that are shown, and not the whole file, which is looked through for each finding.
        let (mut from, mut to) = (primary.start, primary.end);
        if let Some((span, _)) = &also {
            (from, to) = (from.min(span.start), to.max(span.end));
        }
        let before = self.source.get(..from).unwrap_or_default();
        let from = before.rfind('\n').map_or(0, |newline| newline + 1);
        let behind = self.source.get(to..).unwrap_or_default();
        let to = behind
            .find('\n')
            .map_or(self.source.len(), |newline| to + newline);
        let lines = self.source.get(from..to).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let moved = |span: Range<usize>| span.start - from..span.end - from;
        let mut snippet = Snippet::source(lines)
            .line_start(number)
            .path(self.file.to_string_lossy())
            .annotation(
                AnnotationKind::Primary
                    .span(moved(primary))
                    .label(finding.found.as_str()),
            );
        if let Some((span, label)) = also {
            let place = AnnotationKind::Context.span(moved(span));
            snippet = snippet.annotation(place.label(label.as_str()));
        }
        let mut group = level.primary_title(finding.title.as_str()).element(snippet);
        if let Some(allowed) = &finding.allowed {
            let note = Level::NOTE.with_name(Some("allowed"));
            group = group.element(note.message(allowed.as_str()));
        }
        if let Some(help) = &finding.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    /// The part of a span that is underlined: its first line, on character boundaries of the text.
    fn underlined(&self, span: &Range<usize>) -> Range<usize> {
        let text = &self.source;
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
        let first = text.get(start..end).unwrap_or_default();
        let length = first.find('\n').unwrap_or(first.len());
        start..start + first.get(..length).unwrap_or_default().trim_end().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_absent_stands_where_its_table_stands() {
        let mut places = Places::default();
        places.insert("vpn.site[0]".into(), 10..20);
        assert_eq!(places.span("vpn.site[0].endpoint"), 10..20);
        assert_eq!(places.span("route"), 0..0);
    }

    #[test]
    fn a_wrong_element_makes_its_list_unsound_but_not_its_neighbours() {
        let mut places = Places::default();
        places.mark_wrong("vpn.site[1].prefixes[2]");
        assert!(!places.sound("vpn.site[1].prefixes"));
        assert!(!places.sound("vpn"));
        assert!(places.sound("vpn.site[1].pre"));
        assert!(places.sound("vpn.site[11]"));
        assert!(places.sound("vpn.site[0]"));
    }

    #[test]
    fn columns_count_characters() {
        let report = Report::new(Path::new("f"), "a\nkey = \"ü\" x".into(), Vec::new());
        assert_eq!(report.position(0), (1, 1));
        assert_eq!(report.position(12), (2, 10));
        assert_eq!(report.position(999), (2, 12));
    }
}
