//! Id-mapped mounts: which maps a mount gets (config-linux.md, "Mounts": `uidMappings`, `gidMappings`, `idmap`).
//!
//! Not for: giving them to the mount (see `bind`).

use super::super::idmap::{Map, Range};
use super::super::mount_options::Options;
use super::{Facts, IdMapping, IdMaps, UserNamespace};
use crate::log;
use crate::sys::mount::Depth;
use anyhow::{Result, bail, ensure};
use oci_spec::runtime as oci;

/// Whose id maps a mount gets, if it gets any.
pub(super) fn plan<'a>(
    index: usize,
    mount: &'a oci::Mount,
    options: &Options,
    facts: &Facts<'_>,
) -> Result<Option<IdMapping>> {
    // As in runc: an empty list is no list.
    let given = |rows: Option<&'a [oci::LinuxIdMapping]>, name: &str| {
        if rows.is_some_and(<[_]>::is_empty) {
            log::debug(|| format!("mounts[{index}].{name}: empty, taken for none"));
        }
        rows.filter(|rows| !rows.is_empty())
    };
    let maps = (
        given(mount.uid_mappings().as_deref(), "uidMappings"),
        given(mount.gid_mappings().as_deref(), "gidMappings"),
    );
    if options.idmap.is_none() && maps == (None, None) {
        return Ok(None);
    }
    ensure!(options.bind.is_some(), "id-mapped mounts are only supported for bind-mounts");
    ensure!(!facts.rootless, "id-mapped mounts are not supported for rootless containers");
    let maps = match (maps, facts.user_namespace) {
        ((Some(uids), Some(gids)), _) => IdMaps::Given(map_of(uids)?, map_of(gids)?),
        ((None, None), UserNamespace::New(uids, gids)) => IdMaps::Given(uids.clone(), gids.clone()),
        ((None, None), UserNamespace::Join(path)) => IdMaps::OfNamespace(path.to_owned()),
        _ => bail!("id-mapped mounts must have both uid and gid mappings specified"),
    };
    Ok(Some(IdMapping { maps, depth: options.idmap.unwrap_or(Depth::One) }))
}

fn map_of(rows: &[oci::LinuxIdMapping]) -> Result<Map> {
    let range = |row: &oci::LinuxIdMapping| {
        let (container, host, size) = (row.container_id(), row.host_id(), row.size());
        ensure!(size > 0, "id mapping {container}:{host}:{size}: size is 0");
        ensure!(
            container.checked_add(size).is_some() && host.checked_add(size).is_some(),
            "id mapping {container}:{host}:{size}: out of range"
        );
        Ok(Range { container, host, size })
    };
    rows.iter().map(range).collect::<Result<_>>().map(Map)
}
