//! What the documents say, as far as it can be checked: names of files, functions, verbs and make targets, links, and the
//! numbers of the README.

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(top().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// README.md and all pages of docs/.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(top().join("docs")).expect("docs/").flatten();
    let pages = docs.map(|entry| Path::new("docs").join(entry.file_name()));
    let mut pages: Vec<_> = pages.filter(|page| page.extension().is_some_and(|end| end == "md")).collect();
    pages.push("README.md".into());
    pages.sort();
    pages
}

/// The text outside of fenced blocks, and the lines inside of them.
fn parts(text: &str) -> (String, Vec<&str>) {
    let (mut prose, mut code) = (String::new(), Vec::new());
    let mut fenced = false;
    for line in text.lines() {
        match (line.trim_start().starts_with("```"), fenced) {
            (true, _) => fenced = !fenced,
            (false, true) => code.push(line),
            (false, false) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(!fenced, "a fenced block does not end");
    (prose, code)
}

/// What stands between backticks.
fn quoted(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// Commands: what is quoted, and each line of a fenced block, without the prompt and the comment.
fn commands(text: &str) -> Vec<String> {
    let (prose, code) = parts(text);
    let lines = code.into_iter().map(|line| line.trim_start_matches("$ ").to_owned());
    let said = quoted(&prose).map(str::to_owned).chain(lines);
    said.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

/// The anchor that a page gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        let (prose, _) = parts(&text);
        for rest in prose.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let from = page.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { page.clone() } else { from.join(file) };
            let there = top().join(&target);
            let found = there.exists()
                && (heading.is_empty()
                    || read(&target).lines().any(|line| {
                        line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading
                    }));
            if !found {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_that_are_named_exist() {
    const FOLDERS: [&str; 7] = ["src/", "tests/", "integration/", "bundles/", "tools/", "fuzz/", ".ci/"];
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        let (prose, _) = parts(&text);
        for name in quoted(&prose) {
            let (file, function) = name.split_once("::").unwrap_or((name, ""));
            let is_file = FOLDERS.iter().any(|folder| file.starts_with(folder)) && !file.contains([' ', '*']);
            if !is_file {
                continue;
            }
            checked += 1;
            let there = top().join(file);
            let declared = |text: &str| {
                text.split("fn ")
                    .skip(1)
                    .any(|rest| rest.strip_prefix(function).is_some_and(|rest| rest.starts_with(['(', '<'])))
            };
            if !there.exists() || !function.is_empty() && !declared(&read(Path::new(file))) {
                wrong.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(checked > 60, "only {checked} names");
    assert!(wrong.is_empty(), "not in the tree:\n{}", wrong.join("\n"));
}

#[test]
fn make_targets_that_are_named_exist() {
    let makefile = read(Path::new("Makefile"));
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.contains(":") && line.contains("## "))
        .filter_map(|line| line.split(':').next())
        .collect();
    assert!(targets.contains("bench-ablation"), "{targets:?}");
    let mut wrong = Vec::new();
    for page in pages() {
        for command in commands(&read(&page)) {
            let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
            if words.next() != Some("make") {
                continue;
            }
            let unknown = words.filter(|word| !word.contains('=') && !targets.contains(word));
            wrong.extend(unknown.map(|word| format!("{}: make {word}", page.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn verbs_and_options_that_are_named_exist() {
    let help = support::output(&["--help"]).out;
    let is_verb = |word: &str| help.lines().any(|line| line.split_whitespace().next() == Some(word));
    assert!(is_verb("create") && !is_verb("destroy"), "{help}");
    let mut checked = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for command in commands(&read(&page)) {
            let mut words = command.split_whitespace();
            let verb = match words.next() {
                Some("orlop") => words.next().unwrap_or_default(),
                _ => continue,
            };
            // A line of an error or of a configuration is no command, and `plan` is hidden from the help.
            let is_text = command.contains(": ") || command.contains(" = ");
            if is_text || verb.starts_with('-') || matches!(verb, "" | "plan" | "VERB") {
                continue;
            }
            checked += 1;
            if !is_verb(verb) {
                wrong.push(format!("{}: {command}", page.display()));
                continue;
            }
            let own = support::output(&[verb, "--help"]).out;
            let options = words.filter(|word| word.starts_with("--"));
            let unknown = options.filter(|word| !own.contains(word) && !help.contains(word));
            wrong.extend(unknown.map(|word| format!("{}: {verb} {word}", page.display())));
        }
    }
    assert!(checked > 10, "only {checked} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Numbers and versions with a dot, a comma or three digits: 3.32, 1,400, 1.1.5, 289.
fn numbers(cell: &str) -> impl Iterator<Item = &str> {
    let words = cell.split(|letter: char| !letter.is_ascii_digit() && letter != '.' && letter != ',');
    words.map(|word| word.trim_matches(['.', ','])).filter(|word| word.len() > 2)
}

#[test]
fn the_numbers_of_the_readme_stand_in_the_records() {
    let text = read(Path::new("README.md"));
    let records = ["integration/bench/README.md", "integration/README.md"];
    let mut checked = 0;
    let mut missing = Vec::new();
    for row in text.lines().filter(|line| line.starts_with('|')) {
        // The last cell links to the record, or the row is one of times.
        let linked = records.iter().filter(|record| row.contains(&format!("]({record}#")));
        let mut in_records: Vec<String> = linked.map(|record| read(Path::new(record))).collect();
        if in_records.is_empty() && row.contains(" ms ") {
            in_records.push(read(Path::new(records[0])));
        }
        let said = row.split("](").next().unwrap_or_default();
        for number in numbers(said).filter(|_| !in_records.is_empty()) {
            checked += 1;
            let stands = |record: &String| {
                record.match_indices(number).any(|(at, _)| {
                    let before = record[..at].chars().next_back();
                    let after = record[at + number.len()..].chars().next();
                    ![before, after].into_iter().flatten().any(|letter| letter.is_ascii_digit())
                })
            };
            if !in_records.iter().any(stands) {
                missing.push(format!("{number} in {row}"));
            }
        }
    }
    assert!(checked > 12, "only {checked} numbers");
    assert!(missing.is_empty(), "in no record:\n{}", missing.join("\n"));
}

#[test]
fn nothing_of_the_readme_is_told_twice() {
    // A line of one page that stands in another: one of the two will be forgotten when things change.
    let mut seen: Vec<(PathBuf, String)> = Vec::new();
    let mut twice = Vec::new();
    for page in pages() {
        let text = read(&page);
        let (prose, _) = parts(&text);
        for line in prose.lines().filter(|line| line.len() > 60) {
            match seen.iter().find(|(other, known)| *other != page && known == line) {
                Some((other, _)) => twice.push(format!("{} and {}: {line}", other.display(), page.display())),
                None => seen.push((page.clone(), line.to_owned())),
            }
        }
    }
    assert!(twice.is_empty(), "{}", twice.join("\n"));
}
