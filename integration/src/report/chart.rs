//! A line chart as SVG, drawn for a page that says in CSS what its colours are.

use std::fmt::Write as _;

/// A line.
#[derive(Debug)]
pub struct Line<'a> {
    /// In the legend.
    pub name: &'a str,
    /// CSS class; it sets the colour.
    pub class: &'a str,
    /// In order of x.
    pub points: &'a [(f64, f64)],
    /// Points farther apart than this in x are not joined: nothing is known of what lies between.
    pub joined: f64,
}

/// A moment, as a vertical line with a word.
#[derive(Debug)]
pub struct Mark {
    /// When.
    pub x: f64,
    /// The word.
    pub text: &'static str,
}

/// How an axis is divided.
#[derive(Debug)]
pub enum Scale {
    /// From, to; at round numbers.
    Linear(f64, f64),
    /// From, to; powers of ten.
    Log(f64, f64),
    /// From, to; at these places, with these words.
    Named(f64, f64, Vec<(f64, String)>),
}

/// A chart.
#[derive(Debug)]
pub struct Chart<'a> {
    /// What a reader who does not see it is told.
    pub label: &'a str,
    /// How x is divided.
    pub x: Scale,
    /// How y is divided.
    pub y: Scale,
    /// What x is in.
    pub x_unit: &'a str,
    /// What y is in.
    pub y_unit: &'a str,
    /// The lines, in the order of the legend.
    pub lines: Vec<Line<'a>>,
    /// Moments.
    pub marks: Vec<Mark>,
    /// A stretch of x that is shaded.
    pub shade: Option<(f64, f64)>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 44.0;

impl Chart<'_> {
    /// The SVG element.
    pub fn svg(&self) -> String {
        self.element("", "")
    }

    /// A file of its own: the element with its size and the reports' style in it.
    pub fn document(&self) -> String {
        let attributes =
            format!(r#" xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}""#);
        let style = format!("<style>\n{}</style>\n", include_str!("style.css"));
        self.element(&attributes, &style)
    }

    fn element(&self, attributes: &str, style: &str) -> String {
        let mut svg = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut svg, attributes, style);
        svg
    }

    fn write(&self, to: &mut String, attributes: &str, style: &str) -> std::fmt::Result {
        writeln!(
            to,
            r#"<svg{attributes} class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            escape(self.label)
        )?;
        write!(to, "{style}")?;
        self.write_grid(to)?;
        self.write_marks(to)?;
        for line in &self.lines {
            self.write_line(to, line)?;
        }
        self.write_legend(to)?;
        writeln!(to, "</svg>")
    }

    fn write_grid(&self, to: &mut String) -> std::fmt::Result {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        if let Some((from, until)) = self.shade {
            let (from, until) = (self.at_x(from), self.at_x(until));
            let (width, height) = ((until - from).max(0.0), bottom - TOP);
            writeln!(
                to,
                r#"<rect class="shade" x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height:.1}"/>"#
            )?;
        }
        for (value, text) in self.y.ticks(5) {
            let y = self.at_y(value);
            writeln!(
                to,
                r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/>"#
            )?;
            let (x, y) = (LEFT - 8.0, y + 4.0);
            writeln!(
                to,
                r#"<text class="tick" x="{x}" y="{y:.1}" text-anchor="end">{text}</text>"#
            )?;
        }
        for (value, text) in self.x.ticks(10) {
            let (x, y, mark) = (self.at_x(value), bottom + 18.0, bottom + 5.0);
            writeln!(
                to,
                r#"<line class="axis" x1="{x:.1}" y1="{bottom}" x2="{x:.1}" y2="{mark}"/>"#
            )?;
            writeln!(
                to,
                r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{text}</text>"#
            )?;
        }
        writeln!(
            to,
            r#"<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>"#
        )?;
        let (y, unit) = (HEIGHT - 6.0, escape(self.x_unit));
        writeln!(
            to,
            r#"<text class="unit" x="{right}" y="{y}" text-anchor="end">{unit}</text>"#
        )?;
        writeln!(
            to,
            r#"<text class="unit" x="0" y="12">{}</text>"#,
            escape(self.y_unit)
        )
    }

    fn write_marks(&self, to: &mut String) -> std::fmt::Result {
        let bottom = HEIGHT - BOTTOM;
        let mut free = [f64::MIN; 2];
        for mark in &self.marks {
            let x = self.at_x(mark.x);
            let width = mark.text.chars().count() as f64 * 6.6 + 10.0;
            // Words that would touch stand in two rows, and at the right edge left of their line.
            let row = usize::from(free.first().is_some_and(|&f| x < f));
            let top = TOP - if row == 0 { 5.0 } else { 19.0 };
            let fits = x + width < WIDTH - RIGHT;
            let (anchor, shift) = if fits { ("start", 4.0) } else { ("end", -4.0) };
            if let Some(f) = free.get_mut(row) {
                *f = x + width;
            }
            let tx = x + shift;
            writeln!(
                to,
                r#"<line class="mark" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}"/>"#
            )?;
            writeln!(
                to,
                r#"<text class="mark" x="{tx:.1}" y="{top:.1}" text-anchor="{anchor}">{}</text>"#,
                escape(mark.text)
            )?;
        }
        Ok(())
    }

    fn write_line(&self, to: &mut String, line: &Line<'_>) -> std::fmt::Result {
        let mut path = String::new();
        let mut before = None;
        for &(x, y) in line.points {
            let joined = before.is_some_and(|before| x - before <= line.joined);
            let command = if joined { 'L' } else { 'M' };
            write!(path, "{command}{:.1} {:.1}", self.at_x(x), self.at_y(y))?;
            before = Some(x);
        }
        writeln!(to, r#"<path class="line {}" d="{path}"/>"#, line.class)
    }

    fn write_legend(&self, to: &mut String) -> std::fmt::Result {
        let mut right = WIDTH - RIGHT;
        for line in self.lines.iter().rev() {
            let text = right;
            right -= line.name.chars().count() as f64 * 6.8 + 26.0;
            let (from, until) = (right + 2.0, right + 18.0);
            writeln!(
                to,
                r#"<line class="line {}" x1="{from:.1}" y1="8" x2="{until:.1}" y2="8"/>"#,
                line.class
            )?;
            let name = escape(line.name);
            writeln!(
                to,
                r#"<text class="legend" x="{text:.1}" y="12" text-anchor="end">{name}</text>"#
            )?;
            right -= 14.0;
        }
        Ok(())
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        let bottom = HEIGHT - BOTTOM;
        bottom - self.y.share(value) * (bottom - TOP)
    }
}

impl Scale {
    /// A linear scale from 0 to a round number not below `highest`.
    pub fn from_zero(highest: f64) -> Self {
        let step = step(highest.max(1.0), 5);
        Self::Linear(0.0, (highest.max(1.0) / step).ceil() * step)
    }

    /// Where a value is between the two ends, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let (from, to, value) = match *self {
            Self::Linear(from, to) | Self::Named(from, to, _) => (from, to, value),
            Self::Log(from, to) => (from.log10(), to.log10(), value.max(from).log10()),
        };
        ((value - from) / (to - from)).clamp(0.0, 1.0)
    }

    fn ticks(&self, about: u32) -> Vec<(f64, String)> {
        match self {
            Self::Named(_, _, ticks) => ticks.clone(),
            Self::Log(from, to) => {
                let (first, last) = (from.log10().ceil() as i32, to.log10().floor() as i32);
                (first..=last)
                    .map(|e| (10_f64.powi(e), number(10_f64.powi(e))))
                    .collect()
            }
            Self::Linear(from, to) => {
                let step = step(to - from, about);
                let (first, last) = ((from / step).ceil() as i64, (to / step).floor() as i64);
                (first..=last)
                    .map(|n| n as f64 * step)
                    .map(|v| (v, number(v)))
                    .collect()
            }
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `range` into about `parts`.
fn step(range: f64, parts: u32) -> f64 {
    let raw = range / f64::from(parts);
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|f| f * power >= raw * 0.999);
    factor.unwrap_or(10.0) * power
}

/// A number as people write it: thousands apart, no more digits behind the point than it has, three at most.
pub fn number(value: f64) -> String {
    let text = format!("{:.3}", value.abs());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 && text != "0" {
        "−"
    } else {
        ""
    };
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{rest}")
}

/// Text as HTML and SVG take it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_short() {
        let cases = [
            (0.0, "0"),
            (1234.5, "1,234.5"),
            (-0.25, "−0.25"),
            (1e6, "1,000,000"),
            (0.0004, "0"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn axes_are_divided_at_round_numbers() {
        let texts = |scale: Scale| scale.ticks(5).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            texts(Scale::from_zero(11_300.0)),
            ["0", "5,000", "10,000", "15,000"]
        );
        assert_eq!(
            texts(Scale::Linear(-1.0, 1.5)),
            ["−1", "−0.5", "0", "0.5", "1", "1.5"]
        );
        assert_eq!(texts(Scale::Log(20.0, 2e4)), ["100", "1,000", "10,000"]);
    }

    #[test]
    fn what_is_drawn_stays_inside() {
        let points = [(0.0, 5.0), (1.0, f64::MAX), (9.0, -3.0)];
        let chart = Chart {
            label: "a \"b\" <c>",
            x: Scale::Linear(0.0, 2.0),
            y: Scale::from_zero(10.0),
            x_unit: "s",
            y_unit: "packets/s",
            lines: vec![Line {
                name: "one",
                class: "a",
                points: &points,
                joined: 10.0,
            }],
            marks: vec![
                Mark {
                    x: 1.9,
                    text: "fault",
                },
                Mark {
                    x: 1.95,
                    text: "detected",
                },
            ],
            shade: Some((0.5, 1.0)),
        };
        let svg = chart.svg();
        assert!(svg.contains("a &quot;b&quot; &lt;c&gt;"));
        assert!(
            svg.contains(r#"d="M64.0 160.0L504.0 54.0L944.0 266.0""#),
            "{svg}"
        );
    }
}
