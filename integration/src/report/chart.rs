//! A chart as SVG, with lines or bars, drawn for a page that says in CSS what its colours are.

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
    /// Bars in place of a line, for what has no order between its points: this line's are the nth
    /// (from 0) of so many beside each other.
    pub columns: Option<(usize, usize)>,
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

/// The measures of a picture, in its own units: pixels where it is shown as wide as it is.
#[derive(Clone, Copy, Debug)]
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// About so many ticks on x.
    ticks: u32,
    /// CSS class; the page shows the one that fits.
    class: &'static str,
    /// Whether each line has a row of its own in the legend, below the unit.
    stacked: bool,
}

/// For a page that is wide.
const WIDE: Frame = Frame {
    width: 960.0,
    height: 310.0,
    left: 64.0,
    right: 16.0,
    top: 54.0,
    bottom: 44.0,
    ticks: 10,
    class: "wide",
    stacked: false,
};
/// For a telephone: as wide as its screen, so that its words are as large as the page's.
const NARROW: Frame = Frame {
    width: 350.0,
    height: 300.0,
    left: 50.0,
    right: 10.0,
    top: 54.0,
    bottom: 44.0,
    ticks: 4,
    class: "narrow",
    stacked: true,
};
/// Height of a row of the legend and of a row of marks.
const ROW: f64 = 16.0;

impl Chart<'_> {
    /// The SVG elements: a wide and a narrow one, of which the page's style shows the one that fits.
    pub fn svg(&self) -> String {
        self.element(WIDE, "", "") + &self.element(NARROW, "", "")
    }

    /// A file of its own: the element with its size and the reports' style in it.
    pub fn document(&self) -> String {
        let attributes = format!(
            r#" xmlns="http://www.w3.org/2000/svg" width="{}" height="{}""#,
            WIDE.width, WIDE.height
        );
        let style = format!("<style>\n{}</style>\n", include_str!("style.css"));
        self.element(WIDE, &attributes, &style)
    }

    fn element(&self, frame: Frame, attributes: &str, style: &str) -> String {
        // A stacked legend and marks that do not fit beside each other take rows of their own.
        let mut frame = frame;
        let legend = if frame.stacked { self.lines.len() } else { 0 };
        // There is room for two rows of marks.
        let rows = (legend + self.mark_rows(frame).saturating_sub(2)) as f64;
        frame.top += rows * ROW;
        frame.height += rows * ROW;
        let mut svg = String::new();
        // Writing to a string does not fail.
        let _ = Drawing { chart: self, frame }.write(&mut svg, attributes, style);
        svg
    }

    /// So many rows do the words of the marks take.
    fn mark_rows(&self, frame: Frame) -> usize {
        let drawing = Drawing { chart: self, frame };
        let rows = drawing.mark_places().into_iter().map(|place| place.row + 1);
        rows.max().unwrap_or(0)
    }
}

/// A chart in one of its frames.
struct Drawing<'a> {
    chart: &'a Chart<'a>,
    frame: Frame,
}

/// Where the word of a mark stands.
struct Place {
    row: usize,
    /// Left of its line, at the right edge.
    before: bool,
}

impl Drawing<'_> {
    fn write(&self, to: &mut String, attributes: &str, style: &str) -> std::fmt::Result {
        let Frame {
            width,
            height,
            class,
            ..
        } = self.frame;
        writeln!(
            to,
            r#"<svg{attributes} class="chart {class}" viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
            escape(self.chart.label)
        )?;
        write!(to, "{style}")?;
        self.write_grid(to)?;
        for line in &self.chart.lines {
            match line.columns {
                Some(columns) => self.write_columns(to, line, columns)?,
                None => self.write_line(to, line)?,
            }
        }
        self.write_marks(to)?;
        self.write_legend(to)?;
        writeln!(to, "</svg>")
    }

    fn write_grid(&self, to: &mut String) -> std::fmt::Result {
        let Frame {
            left,
            top,
            ticks,
            height,
            ..
        } = self.frame;
        let (bottom, right) = (self.bottom(), self.right());
        if let Some((from, until)) = self.chart.shade {
            let (from, until) = (self.at_x(from), self.at_x(until));
            let (width, height) = ((until - from).max(0.0), bottom - top);
            writeln!(
                to,
                r#"<rect class="shade" x="{from:.1}" y="{top}" width="{width:.1}" height="{height:.1}"/>"#
            )?;
        }
        for (value, text) in self.chart.y.ticks(5) {
            let y = self.at_y(value);
            writeln!(
                to,
                r#"<line class="grid" x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/>"#
            )?;
            let (x, y) = (left - 8.0, y + 4.0);
            writeln!(
                to,
                r#"<text class="tick" x="{x}" y="{y:.1}" text-anchor="end">{text}</text>"#
            )?;
        }
        let mut free = f64::MIN;
        for (value, text) in self.chart.x.ticks(ticks) {
            let (x, y, mark) = (self.at_x(value), bottom + 18.0, bottom + 5.0);
            writeln!(
                to,
                r#"<line class="axis" x1="{x:.1}" y1="{bottom}" x2="{x:.1}" y2="{mark}"/>"#
            )?;
            // Words that would touch the one before are left out.
            let half = text.chars().count() as f64 * 3.3 + 3.0;
            if x - half < free {
                continue;
            }
            free = x + half;
            writeln!(
                to,
                r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{text}</text>"#
            )?;
        }
        writeln!(
            to,
            r#"<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>"#
        )?;
        let (y, unit) = (height - 6.0, escape(self.chart.x_unit));
        writeln!(
            to,
            r#"<text class="unit" x="{right}" y="{y}" text-anchor="end">{unit}</text>"#
        )?;
        writeln!(
            to,
            r#"<text class="unit" x="0" y="12">{}</text>"#,
            escape(self.chart.y_unit)
        )
    }

    /// Words that would touch stand in further rows, and at the right edge left of their line.
    fn mark_places(&self) -> Vec<Place> {
        let mut free: Vec<f64> = Vec::new();
        let place = |mark: &Mark| {
            let x = self.at_x(mark.x);
            let width = mark.text.chars().count() as f64 * 6.6 + 10.0;
            let before = x + width >= self.right();
            let (from, until) = if before {
                (x - width, x)
            } else {
                (x, x + width)
            };
            let row = free.iter().position(|&free| from >= free);
            let row = row.unwrap_or_else(|| {
                free.push(f64::MIN);
                free.len() - 1
            });
            if let Some(free) = free.get_mut(row) {
                *free = until;
            }
            Place { row, before }
        };
        self.chart.marks.iter().map(place).collect()
    }

    fn write_marks(&self, to: &mut String) -> std::fmt::Result {
        let (top, bottom) = (self.frame.top, self.bottom());
        for (mark, place) in self.chart.marks.iter().zip(self.mark_places()) {
            let x = self.at_x(mark.x);
            let y = top - 5.0 - 14.0 * place.row as f64;
            let (anchor, shift) = if place.before {
                ("end", -4.0)
            } else {
                ("start", 4.0)
            };
            let tx = x + shift;
            writeln!(
                to,
                r#"<line class="mark" x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}"/>"#
            )?;
            writeln!(
                to,
                r#"<text class="mark" x="{tx:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
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

    /// A bar at each point; those of several lines stand beside each other within one unit of x.
    fn write_columns(
        &self,
        to: &mut String,
        line: &Line<'_>,
        (nth, of): (usize, usize),
    ) -> std::fmt::Result {
        let width = 0.8 / of.max(1) as f64;
        for &(x, y) in line.points {
            let from = x - 0.4 + width * nth as f64;
            let (left, right) = (self.at_x(from), self.at_x(from + width));
            let (top, bottom) = (self.at_y(y), self.bottom());
            let (width, height) = ((right - left - 1.0).max(1.0), (bottom - top).max(0.0));
            writeln!(
                to,
                r#"<rect class="column {}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#,
                line.class
            )?;
        }
        Ok(())
    }

    fn write_legend(&self, to: &mut String) -> std::fmt::Result {
        let edge = self.right();
        let mut right = edge;
        for (index, line) in self.chart.lines.iter().rev().enumerate() {
            let row = if self.frame.stacked {
                right = edge;
                self.chart.lines.len() - index
            } else {
                0
            };
            let base = 12.0 + ROW * row as f64;
            let text = right;
            right -= line.name.chars().count() as f64 * 6.8 + 26.0;
            let (from, until, middle) = (right + 2.0, right + 18.0, base - 4.0);
            match line.columns {
                Some(_) => writeln!(
                    to,
                    r#"<rect class="column {}" x="{from:.1}" y="{:.1}" width="16" height="8"/>"#,
                    line.class,
                    middle - 4.0
                )?,
                None => writeln!(
                    to,
                    r#"<line class="line {}" x1="{from:.1}" y1="{middle}" x2="{until:.1}" y2="{middle}"/>"#,
                    line.class
                )?,
            }
            let name = escape(line.name);
            writeln!(
                to,
                r#"<text class="legend" x="{text:.1}" y="{base}" text-anchor="end">{name}</text>"#
            )?;
            right -= 14.0;
        }
        Ok(())
    }

    fn right(&self) -> f64 {
        self.frame.width - self.frame.right
    }

    fn bottom(&self) -> f64 {
        self.frame.height - self.frame.bottom
    }

    fn at_x(&self, value: f64) -> f64 {
        let left = self.frame.left;
        left + self.chart.x.share(value) * (self.right() - left)
    }

    fn at_y(&self, value: f64) -> f64 {
        let bottom = self.bottom();
        bottom - self.chart.y.share(value) * (bottom - self.frame.top)
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
                columns: None,
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

    #[test]
    fn a_narrow_screen_has_a_picture_of_its_own_whose_words_do_not_meet() {
        let points = [(0.0, 5.0), (1.0, 7.0)];
        let line = |name, columns| Line {
            name,
            class: "blue",
            points: &points,
            joined: 1.0,
            columns,
        };
        let chart = Chart {
            label: "two",
            x: Scale::Linear(0.0, 100.0),
            y: Scale::from_zero(10.0),
            x_unit: "s",
            y_unit: "packets/s",
            lines: vec![line("one", None), line("another", Some((0, 1)))],
            marks: [10.0, 12.0, 14.0]
                .map(|x| Mark {
                    x,
                    text: "a moment",
                })
                .into(),
            shade: None,
        };
        let svg = chart.svg();
        assert!(svg.contains(r#"class="chart wide" viewBox="0 0 960 326""#));
        // Two rows of the legend, and a third one of marks.
        assert!(
            svg.contains(r#"class="chart narrow" viewBox="0 0 350 348""#),
            "{svg}"
        );
        assert_eq!(chart.mark_rows(NARROW), 3);
        // Two bars and their sign in each legend.
        assert_eq!(
            svg.matches("<rect class=\"column blue\"").count(),
            6,
            "{svg}"
        );
    }
}
