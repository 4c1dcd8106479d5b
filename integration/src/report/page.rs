//! A page that needs nothing else: its style and its pictures are inside it.

use super::chart::escape;
use std::fmt::{self, Write as _};

/// A whole page with this title; `body` writes what is between its ends.
pub(crate) fn page(title: &str, body: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, title, body);
    page
}

fn write(
    to: &mut String,
    title: &str,
    body: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    writeln!(
        to,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
    )?;
    writeln!(
        to,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    )?;
    writeln!(to, "<title>{}</title>", escape(title))?;
    writeln!(
        to,
        "<style>\n{}</style>\n</head>\n<body>",
        include_str!("style.css")
    )?;
    body(to)?;
    writeln!(to, "</body>\n</html>")
}

/// Why the work ended early, if it did.
pub(crate) fn early_end(to: &mut String, error: Option<&str>) -> fmt::Result {
    match error {
        Some(error) => writeln!(
            to,
            "<div class=\"error\"><b>Ended early.</b> {}</div>",
            escape(error)
        ),
        None => Ok(()),
    }
}

/// A table; columns from `numbers` on are aligned right.
pub(crate) fn table(
    to: &mut String,
    head: &[&str],
    numbers: usize,
    rows: &[Vec<String>],
) -> fmt::Result {
    let class = |column: usize| {
        if column >= numbers {
            " class=\"n\""
        } else {
            ""
        }
    };
    write!(to, "<div class=\"table\"><table><tr>")?;
    for (column, name) in head.iter().enumerate() {
        write!(to, "<th{}>{}</th>", class(column), escape(name))?;
    }
    writeln!(to, "</tr>")?;
    for row in rows {
        write!(to, "<tr>")?;
        for (column, cell) in row.iter().enumerate() {
            // On a narrow screen a row is a stack of cells, each with its column's name before it.
            let name = head.get(column).copied().unwrap_or_default();
            let empty = if cell.is_empty() { " data-empty" } else { "" };
            write!(
                to,
                "<td{} data-label=\"{}\"{empty}>{}</td>",
                class(column),
                escape(name),
                escape(cell)
            )?;
        }
        writeln!(to, "</tr>")?;
    }
    writeln!(to, "</table></div>")
}
