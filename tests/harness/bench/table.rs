//! One line a measurement, aligned or as Markdown.

/// Values of the bare command and of the one under ana.
pub type Compared = (Vec<f64>, Vec<f64>);

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Microseconds: less is better.
    Time,
    /// MiB/s: more is better, and p99 is what 99 of 100 reach.
    Throughput,
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    what: &'static str,
    unit: Unit,
    bare: Option<(f64, f64)>,
    ana: (f64, f64),
    target: &'static str,
    met: bool,
}

impl Row {
    /// Its target is about the ratios at p50 and p99.
    pub fn compared(
        what: &'static str,
        (bare, ana): &Compared,
        target: &'static str,
        met: impl Fn((f64, f64)) -> bool,
    ) -> Self {
        let (bare, ana) = (quantiles(bare), quantiles(ana));
        let met = met((ana.0 / bare.0, ana.1 / bare.1));
        Self { what, unit: Unit::Time, bare: Some(bare), ana, target, met }
    }

    /// Its target is what is added to the bare time, in microseconds.
    pub fn added(what: &'static str, times: &Compared, target: &'static str, most: f64) -> Self {
        let row = Self::compared(what, times, target, |_| true);
        let over = row.ana.0 - row.bare.map_or(0.0, |bare| bare.0);
        Self { met: over <= most, ..row }
    }

    /// There is nothing to compare it with.
    pub fn alone(what: &'static str, values: &[f64], target: &'static str, p99_max: f64) -> Self {
        let ana = quantiles(values);
        Self { what, unit: Unit::Time, bare: None, ana, target, met: ana.1 <= p99_max }
    }

    /// MiB/s; its target is the least ratio at p50.
    pub fn throughput(what: &'static str, (bare, ana): &Compared, target: &'static str, least: f64) -> Self {
        let slow = |values: &[f64]| (quantile(values, 0.50), quantile(values, 0.01));
        let (bare, ana) = (slow(bare), slow(ana));
        let met = ana.0 / bare.0 >= least;
        Self { what, unit: Unit::Throughput, bare: Some(bare), ana, target, met }
    }

    /// Missed for another reason than its times.
    #[must_use]
    pub fn only_if(self, met: bool) -> Self {
        Self { met: self.met && met, ..self }
    }

    fn shown(&self, value: f64) -> String {
        match self.unit {
            Unit::Time => time(value),
            Unit::Throughput => format!("{value:.0} MiB/s"),
        }
    }
}

/// p50 and p99.
pub fn quantiles(values: &[f64]) -> (f64, f64) {
    (quantile(values, 0.50), quantile(values, 0.99))
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

/// Prints the table.
pub fn print(rows: &[Row], markdown: bool) {
    let (bar, edge) = if markdown { (" | ", "| ") } else { ("  ", "") };
    let line = |cells: [String; 8]| println!("{edge}{}{}", cells.join(bar), if markdown { " |" } else { "" });
    let head = ["what", "bare p50", "bare p99", "ana p50", "ana p99", "p50 ×", "p99 ×", "target"];
    let what = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
    let widths = [what, 10, 10, 10, 10, 6, 6, 26];
    let pad = |text: &str, width: usize| format!("{text:<width$}");
    line(std::array::from_fn(|i| pad(head[i], widths[i])));
    if markdown {
        line(std::array::from_fn(|i| "-".repeat(widths[i])));
    }
    for row in rows {
        let ratio = |pick: fn(&(f64, f64)) -> f64| match &row.bare {
            Some(bare) => format!("{:.3}", pick(&row.ana) / pick(bare)),
            None => "–".to_owned(),
        };
        let bare = |pick: fn(&(f64, f64)) -> f64| {
            row.bare.as_ref().map_or("–".to_owned(), |bare| row.shown(pick(bare)))
        };
        let cells = [
            row.what.to_owned(),
            bare(|b| b.0),
            bare(|b| b.1),
            row.shown(row.ana.0),
            row.shown(row.ana.1),
            ratio(|v| v.0),
            ratio(|v| v.1),
            format!("{}{}", row.target, if row.met { "" } else { ", MISSED" }),
        ];
        line(std::array::from_fn(|i| pad(&cells[i], widths[i])));
    }
}

/// Microseconds, for people.
pub fn time(microseconds: f64) -> String {
    match microseconds {
        t if t >= 1e4 => format!("{:.1} ms", t / 1e3),
        t if t >= 10.0 => format!("{t:.0} µs"),
        t => format!("{t:.2} µs"),
    }
}
