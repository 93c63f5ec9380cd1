//! The writes for each value of `linux.resources`, as tables.

use super::*;

fn asked(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

fn lines(limits: Result<Limits>) -> Vec<String> {
    limits.unwrap().writes.iter().map(|write| format!("{} {}", write.file, write.value)).collect()
}

/// config.json, the writes of version 1, the writes of version 2.
const EXAMPLES: &[(&str, &[&str], &[&str])] = &[
    ("{}", &[], &[]),
    (r#"{"pids":{"limit":0}}"#, &["pids.max 1"], &["pids.max 1"]),
    (r#"{"pids":{"limit":-1}}"#, &["pids.max max"], &["pids.max max"]),
    (r#"{"pids":{"limit":7}}"#, &["pids.max 7"], &["pids.max 7"]),
    (
        r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":10,"disableOOMKiller":true,"kernelTCP":60}}"#,
        &[
            "memory.limit_in_bytes 100",
            "memory.memsw.limit_in_bytes 150",
            "memory.soft_limit_in_bytes 50",
            "memory.kmem.tcp.limit_in_bytes 60",
            "memory.oom_control 1",
            "memory.swappiness 10",
        ],
        &["memory.swap.max 50", "memory.max 100", "memory.low 50"],
    ),
    (
        r#"{"memory":{"limit":-1}}"#,
        &["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"],
        &["memory.swap.max max", "memory.max max"],
    ),
    (
        r#"{"memory":{"limit":100,"swap":100}}"#,
        &["memory.limit_in_bytes 100", "memory.memsw.limit_in_bytes 100"],
        &["memory.swap.max 0", "memory.max 100"],
    ),
    (
        r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":7,"idle":0,"cpus":"0","mems":"0-1"}}"#,
        &[
            "cpuset.cpus 0",
            "cpuset.mems 0-1",
            "cpu.shares 1024",
            "cpu.cfs_period_us 10000",
            "cpu.cfs_burst_us 7",
            "cpu.cfs_quota_us 5000",
            "cpu.idle 0",
        ],
        &[
            "cpu.idle 0",
            "cpu.weight 100",
            "cpu.max.burst 7",
            "cpu.max 5000 10000",
            "cpuset.cpus 0",
            "cpuset.mems 0-1",
        ],
    ),
    (r#"{"cpu":{"quota":-1}}"#, &["cpu.cfs_quota_us -1"], &["cpu.max max 100000"]),
    (
        r#"{"cpu":{"realtimeRuntime":5,"realtimePeriod":9}}"#,
        &["cpu.rt_period_us 9", "cpu.rt_runtime_us 5"],
        &[],
    ),
    (
        r#"{"blockIO":{"weight":750,"leafWeight":20,"weightDevice":[{"major":8,"minor":1,"weight":30,"leafWeight":40}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#,
        &[
            "blkio.weight 750",
            "blkio.weight_device 8:1 30",
            "blkio.leaf_weight 20",
            "blkio.leaf_weight_device 8:1 40",
            "blkio.throttle.read_bps_device 8:0 5",
            "blkio.throttle.write_iops_device 8:0 0",
        ],
        &["io.bfq.weight 750", "io.bfq.weight 8:1 30", "io.max 8:0 rbps=5", "io.max 8:0 wiops=max"],
    ),
    (
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#,
        &["hugetlb.2MB.limit_in_bytes 4", "hugetlb.2MB.rsvd.limit_in_bytes 4"],
        &["hugetlb.2MB.max 4", "hugetlb.2MB.rsvd.max 4"],
    ),
    (
        r#"{"hugepageLimits":[{"pagesize":"1GB","limit":8}]}"#,
        &["hugetlb.1GB.limit_in_bytes 8", "hugetlb.1GB.rsvd.limit_in_bytes 8"],
        &["hugetlb.1GB.max 8", "hugetlb.1GB.rsvd.max 8"],
    ),
    (
        r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#,
        &["net_cls.classid 1048577", "net_prio.ifpriomap eth0 5"],
        &[],
    ),
    (
        r#"{"rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4}}}"#,
        &["rdma.max mlx5_0 hca_handle=3 hca_object=4"],
        &["rdma.max mlx5_0 hca_handle=3 hca_object=4"],
    ),
];

#[test]
fn both_versions_by_example() {
    for (json, one, two) in EXAMPLES {
        assert_eq!(lines(v1(&asked(json))), *one, "v1 {json}");
        assert_eq!(lines(v2(&asked(json))), *two, "v2 {json}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_config_pointer() {
    for (json, one, two) in [
        (
            r#"{"unified":{"memory.high":"1"}}"#,
            Some("linux.resources.unified: invalid configuration: cannot use unified on cgroup v1"),
            None,
        ),
        (
            r#"{"unified":{"a/b":"1"}}"#,
            Some("linux.resources.unified"),
            Some("must be a file name (no slashes)"),
        ),
        (r#"{"unified":{"ab":"1"}}"#, Some("linux.resources.unified"), Some("CONTROLLER.PARAMETER")),
        (
            r#"{"memory":{"swap":5}}"#,
            None,
            Some("linux.resources.memory.swap: unable to set swap limit without memory limit"),
        ),
        (r#"{"memory":{"limit":6,"swap":5}}"#, None, Some("memory+swap limit should be >= memory limit")),
        (r#"{"memory":{"swappiness":101}}"#, Some("valid range is 0-100"), None),
        (r#"{"cpu":{"shares":1}}"#, Some("the minimum allowed cpu-shares is 2"), None),
        (r#"{"cpu":{"shares":300000}}"#, Some("the maximum allowed cpu-shares is 262144"), None),
        (
            r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
            Some("hugepageLimits[0]"),
            Some("hugepageLimits[0]"),
        ),
        (r#"{"rdma":{"a\nb":{}}}"#, Some("is not a device name"), Some("is not a device name")),
    ] {
        for (got, want) in [(v1(&asked(json)), one), (v2(&asked(json)), two)] {
            match (got, want) {
                (Ok(_), None) => {}
                (Err(error), Some(want)) => {
                    assert!(format!("{error:#}").contains(want), "{json}: {error:#}")
                }
                (got, want) => panic!("{json}: {got:?}, expected {want:?}"),
            }
        }
    }
}

#[test]
fn shares_become_weights_on_the_curve() {
    for (shares, weight) in
        [(0, 1), (1, 1), (2, 1), (1024, 100), (3333, 256), (262_144, 10_000), (u64::MAX, 10_000)]
    {
        assert_eq!(weight_of(shares), weight, "{shares}");
    }
    assert!((2..=262_144u64).step_by(97).is_sorted_by_key(weight_of));
}

#[test]
fn unified_values_are_written_line_by_line_and_last() {
    let limits = v2(&asked(r#"{"unified":{"io.max":"8:0 rbps=1\n8:1 rbps=2\n"},"pids":{"limit":1}}"#));
    assert_eq!(lines(limits), ["pids.max 1", "io.max 8:0 rbps=1\n", "io.max 8:1 rbps=2\n"]);
}

#[test]
fn usage_is_only_checked_when_asked_for() {
    let check = |json| v2(&asked(json)).unwrap().check_usage;
    assert_eq!(check(r#"{"memory":{"limit":5}}"#), None);
    assert_eq!(check(r#"{"memory":{"limit":5,"checkBeforeUpdate":true}}"#), Some((5, 0)));
    assert_eq!(check(r#"{"memory":{"limit":-1,"checkBeforeUpdate":true}}"#), None);
}

#[test]
fn of_the_core_only_limits_are_files_to_be_set() {
    let unified = |file: &str| {
        let mut resources = Resources::default();
        resources.unified.insert(file.to_owned(), "1".to_owned());
        v2(&resources).map(|limits| limits.writes.len())
    };
    for file in
        ["cgroup.max.depth", "cgroup.max.descendants", "memory.high", "hugetlb.2MB.max", "io.bfq.weight"]
    {
        assert_eq!(unified(file).unwrap(), 1, "{file}");
    }
    let core =
        ["procs", "threads", "kill", "freeze", "type", "subtree_control", "pressure", "events", "nothing"];
    let other =
        ["a/b.c", "..", ".", ".x", "memory.", "memory.max\0", "memory.max\n", "memory .max", "x\u{e9}.max"];
    for file in core.map(|name| format!("cgroup.{name}")).into_iter().chain(other.map(str::to_owned)) {
        let text = unified(&file).unwrap_err().to_string();
        assert!(text.starts_with("linux.resources.unified.") && !text.contains(['\n', '\0']), "{text}");
    }
}
