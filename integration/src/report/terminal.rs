//! What a command shows on a terminal: a line for each step while it runs, and tables.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Lines about steps, on a terminal only.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    colour: bool,
    begun: Option<(String, Instant)>,
}

impl Progress {
    /// Shows lines on standard error if that is a terminal.
    pub(crate) fn new() -> Self {
        let shown = io::stderr().is_terminal();
        Self {
            shown,
            colour: shown && wants_colour(),
            begun: None,
        }
    }

    /// A step begins. It takes the line of one that has not ended.
    pub(crate) fn begin(&mut self, step: &str) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K  … {step}");
            let _ = io::stderr().flush();
        }
        self.begun = Some((step.to_owned(), Instant::now()));
    }

    /// The step that was begun has ended.
    pub(crate) fn end(&mut self, passed: bool, found: &str) {
        let Some((step, since)) = self.begun.take().filter(|_| self.shown) else {
            return;
        };
        let (sign, colour) = if passed {
            ("✓", "\x1b[32m")
        } else {
            ("✗", "\x1b[31m")
        };
        let (on, dim, off) = if self.colour {
            (colour, "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let seconds = since.elapsed().as_secs_f64();
        let colon = if found.is_empty() { "" } else { ": " };
        // Back to the start of the line, and clear it.
        let _ = writeln!(
            io::stderr(),
            "\r\x1b[K  {on}{sign}{off} {step}{colon}{found} {dim}{seconds:.1} s{off}"
        );
    }
}

/// Whether standard output should have colours.
pub(crate) fn shows_colour() -> bool {
    io::stdout().is_terminal() && wants_colour()
}

fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An empty table as wide as the terminal, styled or as plain text.
pub(crate) fn new_table(colour: bool) -> Table {
    let mut table = Table::new();
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // Some terminals do not say how wide they are.
    if table.width().is_some_and(|width| width < 40) {
        table.set_width(100);
    }
    table
}
