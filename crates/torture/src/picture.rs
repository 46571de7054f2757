//! A run as an SVG picture: time to the right, the longest operation of each moment upwards, a line for each kill.

use crate::{Report, kill::Role};
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// The scale of durations is logarithmic, from 0.1 ms to 10 s.
const DECADES: [f64; 6] = [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];

fn colour(role: Role) -> &'static str {
    match role {
        Role::Mgr => "#c0392b",
        Role::Iod => "#2471a3",
        Role::Mount => "#b9770e",
    }
}

/// The picture of `report`.
pub fn draw(report: &Report) -> String {
    let (right, bottom) = (WIDTH - 16.0, HEIGHT - BOTTOM);
    let x = |secs: f64| LEFT + (right - LEFT) * (secs / report.secs.max(0.001));
    let y = |ms: f64| {
        let share = (ms.clamp(DECADES[0], DECADES[5]) / DECADES[0]).log10() / 5.0;
        bottom - (bottom - TOP) * share
    };
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\
         \n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (ms, label) in DECADES.into_iter().zip(["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]) {
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\" fill=\"#555\">{label}</text>",
            y(ms),
            LEFT - 6.0,
            y(ms) + 4.0
        );
    }
    for pause in &report.pauses {
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{1}\" stroke-opacity=\"0.45\"/>",
            x(pause.at_secs),
            colour(pause.role)
        );
    }
    for (secs, ms) in columns(report) {
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{bottom}\" stroke=\"#444\"/>",
            x(secs),
            y(ms)
        );
    }
    for fault in &report.faults {
        let _ = writeln!(out, "<circle cx=\"{:.1}\" cy=\"{TOP}\" r=\"4\" fill=\"red\"/>", x(fault.at_secs));
    }
    let verdict = if report.passed { "no fault" } else { "FAULTS (red dots)" };
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"18\">The longest operation of each moment over {:.0} s; a line is a kill -9; {verdict}</text>",
        report.secs
    );
    let mut at = LEFT;
    for role in Role::ALL {
        let count = report.pauses.iter().filter(|pause| pause.role == role).count();
        let _ = writeln!(
            out,
            "<rect x=\"{at}\" y=\"{0}\" width=\"10\" height=\"10\" fill=\"{1}\"/><text x=\"{2}\" y=\"{3}\">{4} killed {count} times</text>",
            HEIGHT - 22.0,
            colour(role),
            at + 16.0,
            HEIGHT - 13.0,
            role.name()
        );
        at += 180.0;
    }
    out.push_str("</svg>\n");
    out
}

/// One column for each pixel: where it is, in seconds, and the longest operation that ended there.
fn columns(report: &Report) -> Vec<(f64, f64)> {
    let step = report.secs.max(0.001) / (WIDTH - LEFT - 16.0);
    let mut columns: Vec<(f64, f64)> = Vec::new();
    for &(end, ms, _) in &report.longest_ops {
        match columns.last_mut() {
            Some((secs, longest)) if end < *secs + step => *longest = longest.max(ms),
            _ => columns.push((end, ms)),
        }
    }
    columns
}
