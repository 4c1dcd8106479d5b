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
    wrong: BTreeSet<String>,
}

impl Places {
    /// Remembers where `key` has its value.
    pub(super) fn insert(&mut self, key: String, span: Range<usize>) {
        self.spans.insert(key, span);
    }

    /// Where `key` stands; a key that the file does not have, where its nearest table stands.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        let mut key = key;
        loop {
            if let Some(span) = self.spans.get(key) {
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
        self.spans.contains_key(key)
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
    /// Errors first, each kind in the file's order.
    pub findings: Vec<Finding>,
}

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
        Self {
            file: file.to_owned(),
            source,
            findings,
        }
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
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
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
        for finding in &self.findings {
            text.push_str(&renderer.render(&[self.group(finding)]));
            text.push_str("\n\n");
        }
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let counts: Vec<String> = [(self.errors(), "error"), (self.warnings(), "warning")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| plural(n, what))
            .collect();
        if !counts.is_empty() {
            let _ = writeln!(text, "{}: {}", self.file.display(), counts.join(", "));
        }
        text
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> Group<'a> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut snippet = Snippet::source(self.source.as_str())
            .path(self.file.to_string_lossy())
            .annotation(
                AnnotationKind::Primary
                    .span(self.underlined(&finding.span))
                    .label(finding.found.as_str()),
            );
        if let Some((span, label)) = &finding.also {
            let place = AnnotationKind::Context.span(self.underlined(span));
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
