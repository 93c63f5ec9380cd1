//! `state`: what a container is now, as JSON (runtime.md, "State", with runc's additions).

use super::list::Row;
use crate::cli;
use crate::cli::global::Global;
use crate::oci_state;
use crate::state::{Container, Status};
use anyhow::Result;
use std::io::Write;

/// Runs the verb.
///
/// # Errors
/// There is no such container, or its record cannot be read.
pub fn run(args: &cli::State, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    let text = serde_json::to_string_pretty(&row(&container)?)?;
    std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
    Ok(0)
}

/// What `state` and `list` show of a container. The owner is for `list`: `state` has always shown it empty.
///
/// # Errors
/// Its status cannot be found out.
pub fn row(container: &Container) -> Result<Row> {
    let record = &container.record;
    let status = container.status()?;
    Ok(Row {
        version: oci_state::VERSION.into(),
        id: record.id.clone(),
        pid: if status == Status::Stopped { 0 } else { record.init_process_pid },
        status: status.to_string(),
        bundle: record.orlop.bundle.display().to_string(),
        rootfs: record.config.rootfs.display().to_string(),
        created: record.created.clone(),
        annotations: record.orlop.annotations.clone(),
        owner: String::new(),
    })
}
