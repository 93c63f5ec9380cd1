//! `linux.uidMappings` and `linux.gidMappings`: which host ids the container's ids are (user_namespaces(7)).

use serde::Serialize;

/// One row of an id map: `size` ids from `container` on are the host's ids from `host` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// First id inside the user namespace.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many ids; never 0.
    pub size: u32,
}

/// A whole id map, as it goes into /proc/PID/uid_map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Map(pub Vec<Range>);

impl Map {
    /// The host id of `container`'s id, or `None` where it is not mapped.
    pub fn host_id(&self, container: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = container.checked_sub(range.container)?;
            (offset < range.size).then(|| range.host.checked_add(offset))?
        })
    }

    /// The text that the kernel reads: one `container host size` line a row.
    pub fn as_proc_text(&self) -> String {
        self.0.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
    }
}
