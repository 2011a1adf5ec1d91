//! What was measured, as a table for people and as JSON.

use serde_json::{Value, json};

/// What a number means and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    PerSecond,
    MiBPerSecond,
    MiB,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::PerSecond => "/s",
            Self::MiBPerSecond => "MiB/s",
            Self::MiB => "MiB",
        }
    }
}

/// What was promised: ours divided by the other's, and the same in words as it stands in the list of budgets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) ratio: f64,
    pub(crate) words: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) ours: Vec<f64>,
    /// Who the ratio is against, and their values; nobody when ours ran alone.
    pub(crate) against: Option<(&'static str, Vec<f64>)>,
    pub(crate) budget: Option<Budget>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let (_, theirs) = self.against.as_ref()?;
        Some(median(&self.ours)? / median(theirs)?)
    }

    fn met(&self) -> Option<bool> {
        let (ratio, budget) = (self.ratio()?, self.budget?);
        Some(match self.unit {
            Unit::Milliseconds | Unit::MiB => ratio <= budget.ratio,
            Unit::PerSecond | Unit::MiBPerSecond => ratio >= budget.ratio,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

const HEAD: [&str; 8] = ["work", "unit", "against", "theirs", "ours", "ratio", "budget", "met"];

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        // A run takes minutes: whoever waits sees it grow.
        eprintln!("{}: {}", row.name, shown(median(&row.ours)));
        self.rows.push(row);
    }

    pub(crate) fn text(&self) -> String {
        let cells: Vec<[String; 8]> = [HEAD.map(str::to_owned)]
            .into_iter()
            .chain(self.rows.iter().map(|row| {
                let (against, theirs) = match &row.against {
                    Some((name, values)) => ((*name).to_owned(), shown(median(values))),
                    None => Default::default(),
                };
                [
                    row.name.clone(),
                    row.unit.word().to_owned(),
                    against,
                    theirs,
                    shown(median(&row.ours)),
                    row.ratio().map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
                    row.budget
                        .map(|budget| format!("{:.3} ({})", budget.ratio, budget.words))
                        .unwrap_or_default(),
                    match row.met() {
                        Some(true) => "yes".to_owned(),
                        Some(false) => "NO".to_owned(),
                        None => String::new(),
                    },
                ]
            }))
            .collect();
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|at| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |row: &[String; 8]| {
            let mut text = String::new();
            for (at, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[at] - cell.chars().count());
                match at {
                    3..=5 => text.extend([space.as_str(), cell, "  "]),
                    _ => text.extend([cell, space.as_str(), "  "]),
                }
            }
            text.trim_end().to_owned() + "\n"
        };
        cells.iter().map(line).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let summary = |values: &[f64]| {
            let least = values.iter().copied().reduce(f64::min);
            let most = values.iter().copied().reduce(f64::max);
            json!({ "median": median(values), "min": least, "max": most, "rounds": values.len() })
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "work": row.name,
                    "unit": row.unit.word(),
                    "ours": summary(&row.ours),
                    "against": row.against.as_ref().map(|(name, _)| name),
                    "theirs": row.against.as_ref().map(|(_, values)| summary(values)),
                    "ratio": row.ratio(),
                    "budget": row.budget.map(|budget| json!({ "ratio": budget.ratio, "words": budget.words })),
                    "met": row.met(),
                })
            })
            .collect();
        json!({ "rows": rows })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn shown(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, ours: f64, theirs: f64, ratio: f64) -> Row {
        Row {
            name: "start".to_owned(),
            unit,
            ours: vec![ours],
            against: Some(("dockerd", vec![theirs])),
            budget: Some(Budget { ratio, words: "≤ 8 ms" }),
        }
    }

    #[test]
    fn which_way_is_better() {
        assert_eq!(row(Unit::Milliseconds, 5.0, 100.0, 0.1).met(), Some(true));
        assert_eq!(row(Unit::Milliseconds, 15.0, 100.0, 0.1).met(), Some(false));
        assert_eq!(row(Unit::PerSecond, 150.0, 7.0, 20.0).met(), Some(true));
        assert_eq!(row(Unit::PerSecond, 50.0, 7.0, 20.0).met(), Some(false));
        assert_eq!(Row { against: None, ..row(Unit::MiB, 1.0, 1.0, 1.0) }.met(), None);
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn columns_line_up() {
        let table = Table { rows: vec![row(Unit::Milliseconds, 5.0, 100.0, 0.1)] };
        assert_eq!(
            table.text(),
            "work   unit  against  theirs  ours  ratio  budget          met\n\
             start  ms    dockerd     100  5.00  0.050  0.100 (≤ 8 ms)  yes\n"
        );
    }
}
