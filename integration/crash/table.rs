//! The results of many sweeps in one table: user and view, points for each way to interfere, faults.

use crate::inject::How;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One line of the table.
#[derive(Default)]
struct Row {
    commands: Vec<String>,
    points: BTreeMap<String, u64>,
    /// If not each point was visited: the stride, and the commands with it.
    strides: BTreeMap<String, Vec<String>>,
    faults: u64,
    commits: BTreeSet<String>,
}

/// Prints what `--record` has written. If a sweep was repeated, the last one counts.
pub fn print(file: &Path) -> Result<i32> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let mut last = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('\t').collect();
        let [who, view, command, how, stride, points, faults, commit] = cells[..] else {
            anyhow::bail!("{line:?}: not a row");
        };
        let counts = (points.parse::<u64>()?, faults.parse::<u64>()?);
        last.insert((who, view, command, how), (stride, counts, commit));
    }
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for ((who, view, command, how), (stride, (points, faults), commit)) in last {
        let row = rows.entry((who, view)).or_default();
        if !row.commands.iter().any(|known| known == command) {
            row.commands.push(command.to_owned());
        }
        if stride != "1" {
            row.strides.entry(format!("1 of {stride} with {how}")).or_default().push(command.to_owned());
        }
        *row.points.entry(how.to_owned()).or_default() += points;
        row.faults += faults;
        row.commits.insert(commit.to_owned());
    }
    let hows: Vec<_> = How::ALL.iter().map(|row| row.0).collect();
    println!("| run by, cgroups | commands | {} | points | faults | commit |", hows.join(" | "));
    println!("|---|---|{}---|---|---|", "---|".repeat(hows.len()));
    for ((who, view), row) in rows {
        let counts: Vec<_> = hows.iter().map(|how| row.points.get(*how).unwrap_or(&0).to_string()).collect();
        let all: u64 = row.points.values().sum();
        let partly =
            row.strides.iter().map(|(stride, commands)| match commands.len() == row.commands.len() {
                true => format!("; {stride}"),
                false => format!("; {stride}: {}", commands.join(" ")),
            });
        let commands = row.commands.join(" ") + &partly.collect::<String>();
        let commits = row.commits.into_iter().collect::<Vec<_>>().join(" ");
        println!(
            "| {who}, {view} | {commands} | {} | {all} | {} | {commits} |",
            counts.join(" | "),
            row.faults
        );
    }
    Ok(0)
}
