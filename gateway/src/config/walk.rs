//! A walk over a TOML document that keeps going: every value that does not fit becomes a finding, every
//! key that was not asked for another, and the rest is read on.

use super::diagnostic::{Finding, MOST_FINDINGS, Places, Severity};
use super::value::{Kind, Wrong, described, nearest, quoted};
use std::cell::RefCell;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the walk has gathered.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Everything that did not fit.
    pub(super) findings: Vec<Finding>,
    /// Those beyond [`MOST`], counted only.
    pub(super) more: usize,
    /// Where everything stands.
    pub(super) places: Places,
}

/// Findings that are kept. A few more than are shown, which are the first in the file's order.
const MOST: usize = 10 * MOST_FINDINGS;

impl Walk {
    /// Notes a finding, and that no rule needs to look at its key.
    pub(super) fn error(
        &mut self,
        key: &str,
        span: Range<usize>,
        what: &str,
        found: String,
        allowed: Option<String>,
        help: Option<String>,
    ) {
        self.places.mark_wrong(key);
        if self.findings.len() >= MOST {
            self.more += 1;
            return;
        }
        self.findings.push(Finding {
            severity: Severity::Error,
            title: format!("{} {what}", title(key)),
            key: key.to_owned(),
            span,
            found,
            allowed,
            help,
            also: None,
        });
    }
}

/// A key as titles show it.
pub(super) fn title(key: &str) -> String {
    format!("`{}`", without_indices(key))
}

/// A key without the indices of arrays, which count from zero and help nobody who reads.
pub(super) fn without_indices(key: &str) -> String {
    let mut inside = false;
    let kept = |c: &char| {
        let index = inside || *c == '[';
        inside = index && *c != ']';
        !index
    };
    key.chars().filter(kept).collect()
}

/// One table of the document, and which of its keys were asked for.
pub(super) struct Section<'d> {
    /// The table's key; empty for the document.
    pub(super) key: String,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d> Section<'d> {
    /// The whole document.
    pub(super) fn root(table: &'d DeTable<'d>) -> Self {
        Self {
            key: String::new(),
            table,
            span: 0..0,
            asked: RefCell::default(),
        }
    }

    /// The full key of `name` in this table.
    pub(super) fn path(&self, name: &str) -> String {
        if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        }
    }

    /// The value of `name` as it stands, if the file has it.
    pub(super) fn value(
        &self,
        walk: &mut Walk,
        name: &'static str,
    ) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.borrow_mut().push(name);
        let value = self.table.get(name)?;
        walk.places.insert(self.path(name), value.span());
        Some(value)
    }

    /// The value of `name` without asking for it.
    pub(super) fn raw(&self, name: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.table.get(name)
    }

    /// The keys that were asked for and that the file has.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let asked = self.asked.borrow();
        let there = asked.iter().filter(|name| self.table.contains_key(**name));
        there.copied().collect()
    }

    /// Where the table stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether it has no key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The keys that were asked for, in words.
    pub(super) fn asked(&self) -> String {
        self.asked.borrow().join(", ")
    }

    /// The value of a key that may be absent; `None` also if it is wrong.
    pub(super) fn optional<K: Kind>(
        &self,
        walk: &mut Walk,
        name: &'static str,
        kind: &K,
    ) -> Option<K::Value> {
        let value = self.value(walk, name)?;
        convert(walk, &self.path(name), value, kind)
    }

    /// The value of a key that must be there.
    pub(super) fn required<K: Kind>(
        &self,
        walk: &mut Walk,
        name: &'static str,
        kind: &K,
    ) -> Option<K::Value> {
        if self.table.contains_key(name) {
            return self.optional(walk, name, kind);
        }
        self.missing(walk, name, kind.allowed());
        None
    }

    /// Says that `name` should be there.
    pub(super) fn missing(&self, walk: &mut Walk, name: &'static str, allowed: String) {
        self.asked.borrow_mut().push(name);
        walk.error(
            &self.path(name),
            self.span.clone(),
            "is missing",
            match self.key.as_str() {
                "" => format!("the file has no {name}"),
                _ => format!("has no key `{name}`"),
            },
            Some(allowed),
            None,
        );
    }

    /// The elements of an array, or the one value that stands for an array of one; empty if absent.
    /// Elements that are wrong are left out.
    pub(super) fn list<K: Kind>(
        &self,
        walk: &mut Walk,
        name: &'static str,
        kind: &K,
    ) -> Vec<K::Value> {
        let Some(value) = self.value(walk, name) else {
            return Vec::new();
        };
        let key = self.path(name);
        let DeValue::Array(elements) = value.get_ref() else {
            walk.places.insert(format!("{key}[0]"), value.span());
            return convert(walk, &key, value, kind).into_iter().collect();
        };
        let spans = elements.iter().map(Spanned::span).collect();
        walk.places.insert_elements(key.clone(), spans);
        let mut values = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            match kind.parse(element.get_ref()) {
                Ok(value) => values.push(value),
                Err(wrong) => {
                    let key = format!("{key}[{index}]");
                    wrong_value(walk, &key, element.span(), kind, wrong);
                }
            }
        }
        values
    }

    /// A list that must have at least one element.
    pub(super) fn required_list<K: Kind>(
        &self,
        walk: &mut Walk,
        name: &'static str,
        kind: &K,
    ) -> Vec<K::Value> {
        if !self.table.contains_key(name) {
            self.missing(walk, name, format!("a list of: {}", kind.allowed()));
            return Vec::new();
        }
        let values = self.list(walk, name, kind);
        if values.is_empty() && walk.places.sound(&self.path(name)) {
            let key = self.path(name);
            let (span, allowed) = (walk.places.span(&key), kind.allowed());
            let found = "found no element".to_owned();
            walk.error(&key, span, "is empty", found, Some(allowed), None);
        }
        values
    }

    /// A table below this one; `None` if absent or no table.
    pub(super) fn section(&self, walk: &mut Walk, name: &'static str) -> Option<Section<'d>> {
        let value = self.value(walk, name)?;
        let key = self.path(name);
        if let DeValue::Table(table) = value.get_ref() {
            return Some(Section::new(key, table, value.span()));
        }
        let found = format!("found {}", described(value.get_ref()));
        let (allowed, help) = match value.get_ref() {
            DeValue::Array(_) => (
                format!("one table, [{key}]"),
                format!("write [{key}] in single brackets; there is at most one"),
            ),
            _ => (
                "a table".to_owned(),
                format!("write a table: [{key}] or {name} = {{ ... }}"),
            ),
        };
        let help = Some(help);
        walk.error(
            &key,
            value.span(),
            "is not a table",
            found,
            Some(allowed),
            help,
        );
        None
    }

    /// The tables of an array of tables; empty if absent. Elements that are no tables are left out.
    pub(super) fn sections(&self, walk: &mut Walk, name: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.value(walk, name) else {
            return Vec::new();
        };
        let key = self.path(name);
        let bare = without_indices(&key);
        let DeValue::Array(elements) = value.get_ref() else {
            walk.error(
                &key,
                value.span(),
                "is not a list of tables",
                format!("found {}", described(value.get_ref())),
                Some(format!("tables [[{bare}]]")),
                Some(format!(
                    "write [[{bare}]] in double brackets, once for each"
                )),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let key = format!("{key}[{index}]");
            walk.places.insert(key.clone(), element.span());
            if let DeValue::Table(table) = element.get_ref() {
                sections.push(Section::new(key, table, element.span()));
            } else {
                let found = format!("found {}", described(element.get_ref()));
                let allowed = Some(format!("tables [[{bare}]]"));
                walk.error(&key, element.span(), "is not a table", found, allowed, None);
            }
        }
        sections
    }

    fn new(key: String, table: &'d DeTable<'d>, span: Range<usize>) -> Self {
        Self {
            key,
            table,
            span,
            asked: RefCell::default(),
        }
    }

    /// Reports the keys of the table that nobody asked for.
    pub(super) fn finish(self, walk: &mut Walk) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            if walk.findings.len() >= MOST {
                // Not shown: what is like it need not be looked for.
                walk.more += 1;
                walk.places.mark_wrong(&self.path(name));
                continue;
            }
            // A slip most likely stands for a key that is not there otherwise.
            let absent = asked
                .iter()
                .filter(|known| !self.table.contains_key(**known));
            let near =
                nearest(name, absent.copied()).or_else(|| nearest(name, asked.iter().copied()));
            let mut known = asked.clone();
            known.sort_unstable();
            known.dedup();
            walk.error(
                &self.path(name),
                key.span(),
                "is unknown",
                format!("found the key {}", quoted(name)),
                Some(known.join(", ")),
                near.map(|near| format!("did you mean `{near}`?")),
            );
        }
    }
}

fn convert<K: Kind>(
    walk: &mut Walk,
    key: &str,
    value: &Spanned<DeValue>,
    kind: &K,
) -> Option<K::Value> {
    match kind.parse(value.get_ref()) {
        Ok(value) => Some(value),
        Err(wrong) => {
            wrong_value(walk, key, value.span(), kind, wrong);
            None
        }
    }
}

fn wrong_value<K: Kind>(walk: &mut Walk, key: &str, span: Range<usize>, kind: &K, wrong: Wrong) {
    let allowed = Some(kind.allowed());
    walk.error(key, span, wrong.what, wrong.found, allowed, wrong.help);
}
