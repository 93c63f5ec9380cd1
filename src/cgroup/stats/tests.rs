//! The shape of runc's `events`, and the parsers of what the kernel writes.

use super::*;

#[test]
fn the_shape_is_that_of_runc() {
    let json = serde_json::to_string(&Stats::default()).unwrap();
    assert_eq!(
        json,
        r#"{"cpu":{},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#
    );
    let entry = MemoryEntry { usage: 7, ..MemoryEntry::default() };
    assert_eq!(serde_json::to_string(&entry).unwrap(), r#"{"limit":0,"usage":7,"failcnt":0}"#);
    let usage = CpuUsage { total: 1, percpu: vec![1], ..CpuUsage::default() };
    assert_eq!(serde_json::to_string(&usage).unwrap(), r#"{"total":1,"percpu":[1],"kernel":0,"user":0}"#);
}

#[test]
fn lists_pressure_and_page_sizes_are_understood() {
    assert_eq!(members("0-2,5\n"), [0, 1, 2, 5]);
    assert_eq!(members("\n"), [] as [u16; 0]);
    let psi = psi(
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=3\n",
    );
    assert_eq!((psi.some.avg10, psi.some.total, psi.full.avg300, psi.full.total), (1.5, 12, 0.25, 3));
    let names: Vec<String> = [64, 2048, 32768, 1_048_576].into_iter().map(page_size_name).collect();
    assert_eq!(names, ["64KB", "2MB", "32MB", "1GB"]);
}

#[test]
fn both_versions_tell_of_block_devices() {
    let (bytes, operations) =
        io_stat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nloop0 rbytes=9\n");
    assert_eq!(bytes[1], BlkioEntry { major: 8, minor: 0, op: "Write".into(), value: 2 });
    assert_eq!((bytes.len(), operations.len(), operations[0].value), (2, 2, 3));
    let old = blkio("8:16 Read 10\n8:16 Total 10\nTotal 10\n").unwrap();
    assert_eq!(old[0], BlkioEntry { major: 8, minor: 16, op: "Read".into(), value: 10 });
    assert_eq!(blkio("8:16 10\n").unwrap()[0].op, "");
    assert!(blkio("nonsense\n").is_none());
}

#[test]
fn the_root_cgroup_counts_as_the_host() {
    let raw = pairs("anon 100\nfile 20\n");
    let (usage, swap) = root_memory(&raw, "MemTotal: 9 kB\nSwapTotal:  8 kB\nSwapFree:  6 kB\n");
    assert_eq!((usage.usage, usage.limit, swap.usage), (120, u64::MAX, 120 + 2048));
}

#[test]
fn pressure_and_memory_are_read_as_procfs_reads_them() {
    use procfs::FromBufRead;
    let some = "some avg10=1.50 avg60=0.07 avg300=12.00 total=12\n";
    let full = "full avg10=0.00 avg60=3.99 avg300=0.25 total=18446744073709551615\n";
    let text = format!("{some}{full}");
    let theirs = procfs::MemoryPressure::from_buf_read(text.as_bytes()).unwrap();
    let ours = psi(&text);
    for (ours, theirs) in [(ours.some, theirs.some), (ours.full, theirs.full)] {
        let averages = [ours.avg10, ours.avg60, ours.avg300].map(|value| value as f32);
        assert_eq!(averages, [theirs.avg10, theirs.avg60, theirs.avg300]);
        assert_eq!(ours.total, theirs.total);
    }

    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let theirs = procfs::Meminfo::from_buf_read(text.as_bytes()).unwrap();
    let (_, swap) = root_memory(&BTreeMap::new(), &text);
    assert_eq!(swap.usage, theirs.swap_total - theirs.swap_free);
}
