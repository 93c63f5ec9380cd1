//! `list`: prints the containers of a root as a table, as JSON, or only their names.

use super::row::Row;
use crate::cli;
use crate::cli::global::{Global, RootFrom};
use crate::cli::values::ListFormat;
use crate::log;
use crate::state::{Container, Error, Root, Untrusted};
use crate::sys;
use anyhow::Result;
use std::io::Write;

/// Runs the verb. If one container cannot be read, the others are listed all the same.
///
/// # Errors
/// The directory of all containers cannot be read. Without `--root`, a missing directory is an empty list.
pub fn run(args: &cli::List, global: &Global) -> Result<i32> {
    let root = match Root::open(&global.root) {
        Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) && global.root_from != RootFrom::Option => {
            None
        }
        other => Some(other?),
    };
    let mut rows = Vec::new();
    let Some(root) = root else { return print(args, &[], &mut std::io::stdout()).map(|()| 0) };
    for id in root.ids()? {
        match root.load(&id).and_then(|container| row(&container)) {
            Ok(row) => rows.push(row),
            // The directory is no container's, or the container was deleted after its name was read.
            Err(error) if error.downcast_ref() == Some(&Error::NotFound) => {}
            // The state of another user is no container of this list.
            Err(error) if error.downcast_ref::<Untrusted>().is_some() => log::say(&format!("{error:#}")),
            Err(error) => {
                log::say(&format!("load container {id}: {error:#}"));
                rows.push(Row::unreadable(id));
            }
        }
    }
    print(args, &rows, &mut std::io::stdout())?;
    Ok(0)
}

fn row(container: &Container) -> Result<Row> {
    Ok(Row { owner: owner(container), ..Row::of(container)? })
}

/// The owner of the container's directory: the name in /etc/passwd, or `#uid`.
fn owner(container: &Container) -> String {
    let Ok(found) = rustix::fs::fstat(container.dir.fd()) else { return String::new() };
    let uid = found.st_uid.to_string();
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(format!("#{uid}"))
}

/// Writes `rows` in the format of `args`.
///
/// # Errors
/// `out` cannot be written to.
pub fn print(args: &cli::List, rows: &[Row], out: &mut impl Write) -> Result<()> {
    let text = match args.format {
        _ if args.quiet => rows.iter().map(|row| format!("{}\n", row.id)).collect(),
        ListFormat::Table => table(rows),
        // Go writes an empty list as null, and engines read that.
        ListFormat::Json if rows.is_empty() => "null\n".to_owned(),
        ListFormat::Json => format!("{}\n", serde_json::to_string(rows)?),
    };
    Ok(out.write_all(text.as_bytes())?)
}

fn table(rows: &[Row]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let cells = |row: &Row| {
        let Row { id, pid, status, bundle, created, owner, .. } = row.clone();
        [id, pid.to_string(), status, bundle, created, owner]
    };
    let lines: Vec<_> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    // A column is as wide as its widest cell and three spaces, and at least twelve; the last one is not padded.
    let width = |column: usize| {
        let widest = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        (widest.unwrap_or_default() + 3).max(12)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(line.last().map_or("", String::as_str));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn row(id: &str, pid: i32, bundle: &str) -> Row {
        Row {
            version: "1.3.0".into(),
            id: id.into(),
            pid,
            status: if pid == 0 { "stopped" } else { "running" }.into(),
            bundle: bundle.into(),
            rootfs: "/r".into(),
            created: "2026-11-21T10:55:01.5Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
        }
    }

    fn printed(format: ListFormat, quiet: bool, rows: &[Row]) -> String {
        let mut out = Vec::new();
        print(&cli::List { format, quiet }, rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_is_laid_out_as_by_go() {
        let rows = [row("web", 4711, "/var/lib/bundles/web"), row("a-rather-long-name", 0, "/b")];
        let expected = "\
ID                   PID         STATUS      BUNDLE                 CREATED                  OWNER
web                  4711        running     /var/lib/bundles/web   2026-11-21T10:55:01.5Z   root
a-rather-long-name   0           stopped     /b                     2026-11-21T10:55:01.5Z   root
";
        assert_eq!(printed(ListFormat::Table, false, &rows), expected);
        assert_eq!(
            printed(ListFormat::Table, false, &[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
    }

    #[test]
    fn json_is_one_line_and_null_without_containers() {
        assert_eq!(printed(ListFormat::Json, false, &[]), "null\n");
        assert_eq!(
            printed(ListFormat::Json, false, &[row("web", 1, "/b")]),
            "[{\"ociVersion\":\"1.3.0\",\"id\":\"web\",\"pid\":1,\"status\":\"running\",\"bundle\":\"/b\",\
             \"rootfs\":\"/r\",\"created\":\"2026-11-21T10:55:01.5Z\",\"owner\":\"root\"}]\n"
        );
    }

    #[test]
    fn quiet_lists_only_names() {
        assert_eq!(printed(ListFormat::Json, true, &[row("a", 1, "/b"), row("b", 0, "/b")]), "a\nb\n");
        assert_eq!(printed(ListFormat::Table, true, &[]), "");
    }
}
