//! Tables, JSON and colour: what the commands print with.

use super::Failure;
use crate::device::standard::output_is_closed;
use crate::telemetry::log;
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, IsTerminal, Write as _};
use std::net::IpAddr;

/// How output to one stream looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Whether colours and bold may be used, see [`log::colour`].
    pub(super) colour: bool,
    /// Whether the stream is a terminal: lines are fitted to its width.
    pub(super) terminal: bool,
    /// Whether every column is shown (`--wide`), and not only those that fit 80 characters.
    pub(super) wide: bool,
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
            wide: false,
        }
    }

    /// The same with every column, or without those that are for `--wide`.
    pub(super) fn wide(self, wide: bool) -> Self {
        Self { wide, ..self }
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
    write(text).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Work(unsaid(&error)),
    })
}

/// Prints what a command that changes something has done: `shown`, which is `done` itself or the same as JSON. Where
/// standard output takes nothing, nobody reading it included, the command has not said what it was to say: it fails,
/// and says on standard error what was done all the same.
pub(super) fn report(shown: &str, done: &str) -> Result<(), Failure> {
    write(shown).map_err(|error| {
        let unsaid = unsaid(&error);
        Failure::Work(format!("{unsaid}; this was done all the same:\n{done}"))
    })
}

fn write(text: &str) -> io::Result<()> {
    if output_is_closed() {
        return Err(rustix::io::Errno::BADF.into());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Why standard output has not taken what was written.
pub(super) fn unsaid(error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::BADF) => "standard output is closed".to_owned(),
        _ => format!("standard output: {error}"),
    }
}

/// Prints a value as JSON, indented: its keys in alphabetical order, numbers with at most three digits behind
/// the point (docs/json.md).
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&json_text(value)?)
}

/// The same, to be printed.
pub(super) fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    let value = json(value)?;
    let text = serde_json::to_string_pretty(&value)
        .map_err(|error| Failure::Work(format!("JSON: {error}")))?;
    Ok(text + "\n")
}

/// A value as every command prints it.
pub(super) fn json(value: &impl Serialize) -> Result<Value, Failure> {
    // A map of serde_json keeps its keys sorted.
    let mut value =
        serde_json::to_value(value).map_err(|error| Failure::Work(format!("JSON: {error}")))?;
    round(&mut value);
    Ok(value)
}

fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|number| (number * 1e3).round() / 1e3);
            *value = rounded.map_or(Value::Null, Value::from);
        }
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(map) => map.values_mut().for_each(round),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A table: a header and rows, no lines. A name that begins with `+` is that of a column for `--wide`; a column
/// in which no row has anything is not shown. On a terminal cells are wrapped to its width; elsewhere a row is a
/// line, however long.
pub(super) fn table<R: IntoIterator<Item = String>>(
    style: Style,
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    table_of_width(style, width(style), header, rows)
}

/// The terminal's own width, 80 where it does not say; `None`: lines may be as long as they like.
fn width(style: Style) -> Option<usize> {
    let columns = Table::new().width().filter(|&columns| columns > 0);
    style.terminal.then(|| columns.map_or(80, usize::from))
}

/// A sentence below a table, with its line's end: on a terminal broken between words to fit its width.
pub(super) fn sentence(style: Style, text: &str) -> String {
    broken(width(style).unwrap_or(usize::MAX), text)
}

fn broken(width: usize, text: &str) -> String {
    let (mut lines, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push_str("\n  ");
            used = 2;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines.push('\n');
    lines
}

/// Spaces between two columns.
const GAP: usize = 2;

fn table_of_width<R: IntoIterator<Item = String>>(
    style: Style,
    width: Option<usize>,
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| row.into_iter().collect())
        .collect();
    let is_shown = |(index, name): &(usize, &&str)| {
        let is_empty = |row: &Vec<String>| row.get(*index).is_none_or(|c| c.is_empty() || c == "-");
        (style.wide || !name.starts_with('+')) && (rows.is_empty() || !rows.iter().all(is_empty))
    };
    let shown: Vec<(usize, &str)> = header
        .iter()
        .enumerate()
        .filter(is_shown)
        .map(|(index, name)| (index, name.trim_start_matches('+')))
        .collect();

    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    } else {
        table.force_no_tty();
    }
    if style.colour {
        table.enforce_styling();
    }
    let bold = |&(_, name): &(usize, &str)| {
        let cell = Cell::new(name);
        if style.colour {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    };
    table.set_header(shown.iter().map(bold).collect::<Vec<_>>());
    let longest = |text: &str| text.split_whitespace().map(|w| w.chars().count()).max();
    let mut words: Vec<usize> = shown.iter().map(|(_, n)| longest(n).unwrap_or(0)).collect();
    for mut row in rows {
        let mut cells = Vec::with_capacity(shown.len());
        for ((index, _), word) in shown.iter().zip(&mut words) {
            let text = row.get_mut(*index).map(std::mem::take).unwrap_or_default();
            *word = (*word).max(longest(&text).unwrap_or(0));
            cells.push(coloured(style, text));
        }
        table.add_row(cells);
    }
    if let Some(width) = width {
        fit(&mut words, width);
    }
    // On a narrow terminal a cell breaks between words, and inside a name only where nothing else helps.
    for (column, word) in table.column_iter_mut().zip(words) {
        column.set_padding((0, GAP as u16));
        let width = Width::Fixed((word + GAP) as u16);
        column.set_constraint(ColumnConstraint::LowerBoundary(width));
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Makes the least widths of columns fit a line: the widest gives way, as far as the next one.
fn fit(words: &mut [usize], width: usize) {
    loop {
        let all: usize = words.iter().map(|word| word + GAP).sum();
        let widest = words.iter_mut().max();
        match widest {
            Some(widest) if all > width && *widest > 8 => *widest -= 1,
            _ => return,
        }
    }
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

    const PLAIN: Style = Style {
        colour: false,
        terminal: false,
        wide: false,
    };

    #[test]
    fn a_sentence_is_broken_between_words() {
        assert_eq!(broken(usize::MAX, "one two  three"), "one two three\n");
        assert_eq!(
            broken(8, "one two three four"),
            "one two\n  three\n  four\n"
        );
        assert_eq!(broken(3, "longer"), "longer\n", "a word stays whole");
    }

    #[test]
    fn what_is_empty_or_for_wide_is_no_column() {
        let row = |a: &str, b: &str| [a, b, "-", ""].map(str::to_owned);
        let rows = || [row("a", "1"), row("b", "2")];
        let header = ["path", "+more", "mtu", "why"];
        assert_eq!(table(PLAIN, &header, rows()), "path\na\nb\n");
        let wide = table(PLAIN.wide(true), &header, rows());
        assert_eq!(wide, "path  more\na     1\nb     2\n");
    }

    #[test]
    fn a_table_fits_the_terminal_whatever_is_in_it() {
        let endpoint = "[2001:db8:1111:2222:3333:4444:5555:6666]:51820";
        let row = || {
            [
                "er-sydney/secondary",
                "degraded: answers_elsewhere",
                endpoint,
                "10.2.0.0/16, 10.3.0.0/16",
            ]
            .map(str::to_owned)
        };
        for width in [40, 80, 120] {
            let header = ["tunnel", "state", "endpoint", "prefixes"];
            let text = table_of_width(PLAIN, Some(width), &header, [row(), row()]);
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

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
        let style = PLAIN;
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = table(
            style,
            &["path", "state"],
            [row("a", "up"), row("bcdef", "down")],
        );
        assert_eq!(text, "path   state\na      up\nbcdef  down\n");
    }
}
