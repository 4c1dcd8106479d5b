//! Tables, JSON and colour: what the commands print with.

use super::Failure;
use crate::telemetry::log;
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use serde::Serialize;
use std::io::{self, IsTerminal, Write as _};
use std::net::IpAddr;

/// How output to one stream looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Whether colours and bold may be used, see [`log::colour`].
    pub(super) colour: bool,
    /// Whether the stream is a terminal: lines are fitted to its width.
    pub(super) terminal: bool,
}

impl Style {
    /// Of standard output.
    pub(super) fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// Of standard error.
    pub(super) fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        Self {
            colour: log::colour(terminal),
            terminal,
        }
    }

    /// `text` in bold, where the style has it.
    pub(super) fn bold(self, text: &str) -> String {
        self.wrapped("1", text)
    }

    /// `text` in red.
    pub(super) fn red(self, text: &str) -> String {
        self.wrapped("1;31", text)
    }

    /// `text` in green.
    pub(super) fn green(self, text: &str) -> String {
        self.wrapped("32", text)
    }

    fn wrapped(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Writes to standard output. A reader that went away (`vng show flows | head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::NobodyReads),
        Err(error) => Err(Failure::Work(format!("standard output: {error}"))),
    }
}

/// Prints a value as JSON, indented.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Work(format!("JSON: {error}")))?;
    print(&(text + "\n"))
}

/// A table: a header and rows, no lines.
pub(super) fn table<R: IntoIterator<Item = String>>(
    style: Style,
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    if style.colour {
        table.enforce_styling();
    }
    let bold = |name: &&str| {
        let cell = Cell::new(name);
        if style.colour {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    };
    table.set_header(header.iter().map(bold).collect::<Vec<_>>());
    let longest = |text: &str| text.split_whitespace().map(|w| w.chars().count()).max();
    let mut words: Vec<usize> = header.iter().map(|n| longest(n).unwrap_or(0)).collect();
    for row in rows {
        let mut cells = Vec::with_capacity(header.len());
        for (index, text) in row.into_iter().enumerate() {
            if let Some(word) = words.get_mut(index) {
                *word = (*word).max(longest(&text).unwrap_or(0));
            }
            cells.push(coloured(style, text));
        }
        table.add_row(cells);
    }
    // On a narrow terminal a cell breaks between words, never inside a name or an address.
    for (column, word) in table.column_iter_mut().zip(words) {
        column.set_padding((0, 2));
        let width = Width::Fixed(word as u16 + 2);
        column.set_constraint(ColumnConstraint::LowerBoundary(width));
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// A cell; states have their colour.
fn coloured(style: Style, text: String) -> Cell {
    let colour = match text.split([':', ' ']).next().unwrap_or_default() {
        "up" | "Active" | "reachable" | "yes" => Some(Color::Green),
        "down" | "failed" => Some(Color::Red),
        "degraded" | "holding" | "starting" | "incomplete" => Some(Color::Yellow),
        "Invalid" => Some(Color::DarkGrey),
        _ => None,
    };
    match colour.filter(|_| style.colour) {
        Some(colour) => Cell::new(text).fg(colour),
        None => Cell::new(text),
    }
}

/// A heading above a table.
pub(super) fn heading(style: Style, text: &str) -> String {
    style.bold(text) + "\n"
}

/// Values with commas between, or `-`.
pub(super) fn list<T: ToString>(values: &[T]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let values: Vec<String> = values.iter().map(T::to_string).collect();
    values.join(", ")
}

/// A value, or `-`.
pub(super) fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), T::to_string)
}

/// A state with its reason: `down: no_carrier`.
pub(super) fn state(state: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{state}: {reason}"),
        None => state.to_owned(),
    }
}

/// `1,250,000`
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A limit, or `unlimited`.
pub(super) fn limit(number: Option<u64>) -> String {
    number.map_or_else(|| "unlimited".to_owned(), thousands)
}

/// A bandwidth: `1.25 Gbps`, `650 Mbps`.
pub(super) fn bandwidth(bits_per_second: f64) -> String {
    let (value, unit) = match bits_per_second {
        b if b >= 1e9 => (b / 1e9, "Gbps"),
        b if b >= 1e6 => (b / 1e6, "Mbps"),
        b if b >= 1e3 => (b / 1e3, "kbps"),
        b => (b, "bps"),
    };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {unit}")
}

/// A bandwidth limit, or `unlimited`.
pub(super) fn bandwidth_limit(bits_per_second: Option<u64>) -> String {
    bits_per_second.map_or_else(|| "unlimited".to_owned(), |b| bandwidth(b as f64))
}

/// A time span: `850ms`, `12.3s`, `5m 10s`, `3h 4m`, `2d 5h`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        _ if seconds < 1.0 => format!("{:.0}ms", seconds.max(0.0) * 1e3),
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// `203.0.113.1:80`, `[2001:db8::1]:80`; without the port where there is none.
pub(super) fn host(address: IpAddr, port: u16) -> String {
    match (port, address) {
        (0, _) => address.to_string(),
        (_, IpAddr::V4(v4)) => format!("{v4}:{port}"),
        (_, IpAddr::V6(v6)) => format!("[{v6}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_250_000), "1,250,000");
        assert_eq!(bandwidth(1.25e9), "1.25 Gbps");
        assert_eq!(bandwidth(650e6), "650 Mbps");
        assert_eq!(bandwidth(0.0), "0 bps");
        assert_eq!(span(0.85), "850ms");
        assert_eq!(span(12.34), "12.3s");
        assert_eq!(span(310.0), "5m 10s");
        assert_eq!(span(200_000.0), "2d 7h");
        assert_eq!(limit(None), "unlimited");
    }

    #[test]
    fn a_plain_table_has_no_escape_codes_and_no_trailing_blanks() {
        let style = Style {
            colour: false,
            terminal: false,
        };
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = table(
            style,
            &["path", "state"],
            [row("a", "up"), row("bcdef", "down")],
        );
        assert_eq!(text, "path   state\na      up\nbcdef  down\n");
    }
}
