//! The statistics of a resctrl group, in the shape of `data.intel_rdt` in runc's `events`.

use super::{Group, MOUNT_POINT};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The statistics of `group`, without those that the host does not provide.
pub fn stats(group: &Group) -> Map<String, Value> {
    of(Path::new(MOUNT_POINT), group)
}

fn of(root: &Path, group: &Group) -> Map<String, Value> {
    let mut stats = Map::new();
    let read = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let lines = |dir: &Path| -> Vec<String> {
        let text = read(&dir.join("schemata")).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let (everyones, ours) = (lines(root), lines(&group.dir));
    // One row a resource: its directory in info/, the files there, and the keys of runc for these files, for the root
    // group's line of schemata, and for this group's line.
    const RESOURCES: [(&str, &[&str], [&str; 3]); 2] = [
        (
            "L3",
            &["cbm_mask", "min_cbm_bits", "num_closids"],
            ["l3_cache_info", "l3_cache_schema_root", "l3_cache_schema"],
        ),
        (
            "MB",
            &["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"],
            ["mem_bw_info", "mem_bw_schema_root", "mem_bw_schema"],
        ),
    ];
    for (resource, files, [info, of_root, of_group]) in RESOURCES {
        let dir = root.join("info").join(resource);
        if !dir.is_dir() {
            continue;
        }
        let mut facts = Map::new();
        for file in files {
            let value = match read(&dir.join(file)) {
                Some(mask) if *file == "cbm_mask" => Value::from(mask),
                Some(number) => Value::from(number.parse::<u64>().unwrap_or_default()),
                None => continue,
            };
            if value != 0 {
                facts.insert((*file).into(), value);
            }
        }
        stats.insert(info.into(), facts.into());
        for (name, lines) in [(of_root, &everyones), (of_group, &ours)] {
            if let Some(line) = lines.iter().rfind(|line| line.starts_with(&format!("{resource}:"))) {
                stats.insert(name.into(), line.as_str().into());
            }
        }
    }
    if !ours.is_empty() {
        stats.insert("schemata".into(), ours.into());
    }
    monitored(root, group, &mut stats);
    stats
}

/// Adds two lists, one of memory bandwidth and one of cache occupancy, with a row for each monitored domain.
fn monitored(root: &Path, group: &Group, stats: &mut Map<String, Value>) {
    let features = std::fs::read_to_string(root.join("info/L3_MON/mon_features")).unwrap_or_default();
    let has = |feature: &str| features.lines().any(|line| line.trim() == feature);
    let dir = group.monitoring.as_ref().unwrap_or(&group.dir).join("mon_data");
    let mut domains: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    domains.sort();
    let number = |path: &Path| -> u64 {
        // The kernel may answer "Unavailable" or "Error" instead of a number.
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    };
    for (list, files) in
        [("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"][..]), ("cmt_stats", &["llc_occupancy"][..])]
    {
        if !files.iter().any(|file| has(file)) {
            continue;
        }
        let row = |domain: &std::path::PathBuf| -> Value {
            let value = |file: &&str| {
                ((*file).to_owned(), json!(if has(file) { number(&domain.join(file)) } else { 0 }))
            };
            files.iter().map(value).collect::<Map<_, _>>().into()
        };
        stats.insert(list.into(), domains.iter().map(row).collect::<Vec<_>>().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_told_in_the_words_of_runcs_events() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("info/L3/cbm_mask", "fffff\n");
        file("info/L3/num_closids", "16\n");
        file("info/L3_MON/mon_features", "llc_occupancy\n");
        file("schemata", "    L3:0=fffff\n");
        file("web/schemata", "    L3:0=f\n");
        file("web/mon_data/mon_L3_00/llc_occupancy", "4096\n");
        let group = Group { dir: root.path().join("web"), monitoring: None, remove: None };
        assert_eq!(
            Value::from(of(root.path(), &group)),
            json!({
                "l3_cache_info": {"cbm_mask": "fffff", "num_closids": 16},
                "l3_cache_schema_root": "L3:0=fffff",
                "l3_cache_schema": "L3:0=f",
                "schemata": ["L3:0=f"],
                "cmt_stats": [{"llc_occupancy": 4096}]
            })
        );
    }
}
