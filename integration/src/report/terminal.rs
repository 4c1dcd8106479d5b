//! What a command shows on a terminal: a line for each step while it runs, and tables.

use crate::error::Error;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Lines about steps, on standard error: on a terminal one that shows the step as it runs, elsewhere one
/// for each step that has ended, without control characters.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    colour: bool,
    begun: Option<(String, Instant)>,
}

impl Progress {
    /// No step yet.
    pub(crate) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            terminal,
            colour: terminal && wants_colour(),
            begun: None,
        }
    }

    /// A step begins. It takes the line of one that has not ended.
    pub(crate) fn begin(&mut self, step: &str) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K  … {step}");
            let _ = io::stderr().flush();
        }
        self.begun = Some((step.to_owned(), Instant::now()));
    }

    /// The step that was begun has ended.
    pub(crate) fn end(&mut self, passed: bool, found: &str) {
        let Some((step, since)) = self.begun.take() else {
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
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let found = if self.terminal {
            found.to_owned()
        } else {
            one_line(found)
        };
        let _ = writeln!(
            io::stderr(),
            "{clear}  {on}{sign}{off} {step}{colon}{found} {dim}{seconds:.1} s{off}"
        );
    }
}

/// A text of several lines as one.
fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

/// Writes to standard output. Nothing that is written ends the program: a reader that has gone away is no
/// failure, anything else is an error.
///
/// # Errors
/// [`Error::System`] where `write` fails otherwise than by EPIPE: a full disk, or a descriptor that is closed.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::system("write to standard output")(error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error, if it takes one.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "vng-lab: {text}");
}

/// Whether standard output should have colours.
pub(crate) fn shows_colour() -> bool {
    io::stdout().is_terminal() && wants_colour()
}

fn wants_colour() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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
