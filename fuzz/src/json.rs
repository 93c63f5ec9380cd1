//! Mutations of JSON documents. They change values, names and whole branches; most results are still configurations.

use orlop::parts::{capabilities, mount_options, namespaces, seccomp};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Every field of config.json with a value that fits.
const FIELDS: &str = include_str!("../../src/parts/fields.txt");

/// splitmix64: the same seed gives the same mutation.
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end.max(1) as u64) as usize
    }

    pub fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut words: Vec<String> = [
        "",
        "/",
        "..",
        ".",
        "/proc",
        "/dev",
        "/sys",
        "/proc/self/fd/3",
        "/sys/fs/cgroup",
        "../../x",
        "/a/../b//c",
        "a\0b",
        "a\nb",
        "é\u{202e}",
        "-1",
        "0",
        "4294967295",
        "0-3",
        "0-",
        "max",
        "2MB",
        "1GB",
        "tmpfs",
        "proc",
        "sysfs",
        "devpts",
        "mqueue",
        "cgroup",
        "cgroup2",
        "bind",
        "size=64k",
        "mode=755",
        "context=\"a,b\"",
        "idmap=uids=0-1-2",
        "a:b:c",
        "x.slice:pre:name",
        "c",
        "b",
        "p",
        "u",
        "a",
        "rwm",
        "r",
        "rx",
        "1.3.0",
        "1.0.2-dev",
        "net.core.somaxconn",
        "kernel.domainname",
        "kernel.shm_rmid_forced",
        "fs.mqueue.msg_max",
        "net/../kernel.x",
        "memory.max",
        "cgroup.procs",
        "io.weight",
        "L3:0=f",
        "MB:0=20",
        "boottime",
        "monotonic",
        "SCHED_FIFO",
        "SCHED_DEADLINE",
        "SCHED_FLAG_UTIL_CLAMP_MIN",
        "IOPRIO_CLASS_IDLE",
        "MPOL_BIND",
        "MPOL_F_STATIC_NODES",
        "LINUX32",
        "RLIMIT_NOFILE",
        "RLIMIT_CPU",
        "PATH=/bin",
        "=x",
        "x",
        "eth0",
        "a/b",
        "unconfined",
        "run.oci.keep_original_groups",
        "run.oci.seccomp.receiver",
        "run.oci.hooks.stdout",
        "org.systemd.property.TasksMax",
        "org.systemd.property.ExecStart",
        "uint64 5",
        "'text'",
        "write",
        "read",
        "clone",
        "mount",
    ]
    .map(str::to_owned)
    .to_vec();
    words.push("x".repeat(300));
    words.extend(mount_options::names().map(str::to_owned));
    words.extend(capabilities::known());
    for list in [
        seccomp::known_actions(),
        seccomp::known_operators(),
        seccomp::known_archs(),
        seccomp::known_flags(),
        namespaces::TABLE.iter().map(|row| row.2).collect(),
    ] {
        words.extend(list.into_iter().map(str::to_owned));
    }
    words
});

const NUMBERS: [&str; 20] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "255",
    "1000",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "1e300",
];

fn leaf(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2..5 => serde_json::from_str(random.of::<&str>(&NUMBERS)).unwrap_or_default(),
        5 => [Value::Array(vec![]), Value::Object(Map::new())][random.below(2)].clone(),
        _ => Value::String(random.of::<String>(&WORDS).clone()),
    }
}

/// A random node of the document.
fn node<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let children = match value {
        Value::Array(all) => all.len(),
        Value::Object(all) => all.len(),
        _ => 0,
    };
    if children == 0 || random.below(6) == 0 {
        return value;
    }
    let at = random.below(children);
    match value {
        Value::Array(all) => node(&mut all[at], random),
        Value::Object(all) => match all.values_mut().nth(at) {
            Some(child) => node(child, random),
            None => unreachable!(),
        },
        _ => unreachable!(),
    }
}

/// Sets a random field, and makes the objects and lists that are missing on the way to it.
fn set_field(value: &mut Value, random: &mut Random) {
    let rows: Vec<_> = FIELDS.lines().filter_map(|line| line.split_once(' ')).collect();
    let (path, sample) = *random.of(&rows);
    let mut here = value;
    for step in path.split('.') {
        let step =
            if step == "*" { ["x", "net.core.somaxconn", "memory.high"][random.below(3)] } else { step };
        let as_map = step.contains('.') || random.below(4) == 0;
        here = match here {
            Value::Array(all) => {
                if all.is_empty() || random.below(3) == 0 {
                    all.push(Value::Null);
                }
                let at = random.below(all.len());
                &mut all[at]
            }
            // `*` means a list or a map. Most are lists, so this makes a list three times of four.
            Value::Null if step == "x" && !as_map => {
                *here = Value::Array(vec![Value::Null]);
                match here {
                    Value::Array(all) => &mut all[0],
                    _ => unreachable!(),
                }
            }
            Value::Object(all) => all.entry(step).or_insert(Value::Null),
            other => {
                *other = Value::Object(Map::new());
                match other {
                    Value::Object(all) => all.entry(step).or_insert(Value::Null),
                    _ => unreachable!(),
                }
            }
        };
    }
    *here =
        if random.below(2) == 0 { leaf(random) } else { serde_json::from_str(sample).unwrap_or_default() };
}

fn edit(value: &mut Value, random: &mut Random) {
    let copied = node(value, random).clone();
    match random.below(10) {
        0..3 => set_field(value, random),
        3..6 => *node(value, random) = leaf(random),
        6 => *node(value, random) = copied,
        7 => match node(value, random) {
            Value::Array(all) if !all.is_empty() => drop(all.remove(random.below(all.len()))),
            Value::Object(all) => {
                let name = all.keys().nth(random.below(all.len())).cloned();
                name.map(|name| all.remove(&name));
            }
            Value::String(text) => drop(text.pop()),
            other => *other = Value::Null,
        },
        8 => match node(value, random) {
            Value::Array(all) => {
                let one = if all.is_empty() { leaf(random) } else { all[random.below(all.len())].clone() };
                (0..1 + random.below(3)).for_each(|_| all.push(one.clone()));
            }
            Value::String(text) => text.push_str(random.of::<String>(&WORDS)),
            other => *other = leaf(random),
        },
        _ => match node(value, random) {
            Value::String(text) => {
                let at = random.below(text.len() + 1);
                if text.is_char_boundary(at) {
                    text.insert(
                        at,
                        *random.of::<char>(&['/', '.', '\0', ':', ',', '-', '=', '"', '9', 'é', '\n']),
                    );
                }
            }
            Value::Number(number) => {
                let near = number.as_i64().unwrap_or(0).wrapping_add(random.below(5) as i64 - 2);
                *number = near.into();
            }
            other => *other = leaf(random),
        },
    }
}

/// A custom mutator for libFuzzer. It mutates the document, or now and then its bytes; always the bytes if they are no JSON.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32) -> usize {
    let mut random = Random(seed.into());
    let parsed = serde_json::from_slice::<Value>(&data[..size]).ok().filter(|_| random.below(6) != 0);
    let Some(mut value) = parsed else { return libfuzzer_sys::fuzzer_mutate(data, size, most) };
    for _ in 0..1 + random.below(4) {
        edit(&mut value, &mut random);
    }
    let text = serde_json::to_vec(&value).unwrap_or_default();
    match data.get_mut(..text.len()).filter(|_| text.len() <= most) {
        Some(room) => room.copy_from_slice(&text),
        None => return libfuzzer_sys::fuzzer_mutate(data, size, most),
    }
    text.len()
}
