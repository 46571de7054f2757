//! Rows of `pvfs bench` over several rounds, and their medians.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The figures of a row that are recorded.
const FIGURES: [&str; 5] =
    ["mib_per_s", "calls_per_s", "cpu_secs_per_gib", "latency_us_p50", "latency_us_p99"];

/// What a row is of: the name of its line, its phase, and where that was.
type Key = [String; 3];

/// Each figure of each round that counts.
type Samples = BTreeMap<&'static str, Vec<f64>>;

/// Rows in the order in which they first came.
#[derive(Default)]
pub struct Rounds(Vec<(Key, Samples)>);

impl Rounds {
    /// Takes the row of `line`, which is of `place`. Its figures count where it `counts`: the first round touches memory that
    /// the machine may never have touched before.
    pub fn take(&mut self, line: &str, place: &str, row: &Value, counts: bool) {
        let phase = row["workload"].as_str().unwrap_or_default();
        let key = [line, phase, place].map(str::to_owned);
        let at = self.0.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            self.0.push((key, Samples::default()));
            self.0.len() - 1
        });
        for figure in FIGURES.into_iter().filter(|_| counts) {
            self.0[at].1.entry(figure).or_default().extend(row[figure].as_f64());
        }
    }

    pub fn medians(self) -> Vec<Value> {
        let row = |([name, workload, place], samples): (Key, Samples)| {
            let mut row = json!({ "name": name, "workload": workload, "where": place });
            for (figure, samples) in samples {
                row[figure] = median(samples).into();
            }
            row
        };
        self.0.into_iter().map(row).collect()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_rounds_that_count() {
        let mut rounds = Rounds::default();
        for (rate, counts) in [(9.0, false), (3.0, true), (1.0, true), (2.0, true)] {
            let row = json!({ "workload": "write", "mib_per_s": rate });
            rounds.take("own files", "mount", &row, counts);
        }
        let rows = rounds.medians();
        assert_eq!(rows.len(), 1);
        assert_eq!((&rows[0]["mib_per_s"], &rows[0]["where"]), (&json!(2.0), &json!("mount")));
    }
}
