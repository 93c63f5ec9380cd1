//! Mounts, in private mount namespaces of the real kernel.

use super::*;
use crate::parts::idmap::Range;
use crate::parts::mount_options::{Effect, TABLE};
use crate::sys::mount::private::{self, mounts_at};
use crate::sys::path::Root;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

fn nobody(index: usize, _: rustix::fd::BorrowedFd<'_>) -> Result<()> {
    bail!("mounts[{index}]: nobody to ask")
}

fn made(
    plan: &Mounts,
    root: &Root,
    held: &mut Held,
    cgroup: Option<CgroupSource>,
    map_ids: &MapIds<'_>,
) -> Result<Late> {
    let mut making = plan.begin(root, held, cgroup, map_ids);
    making.apply(0..usize::MAX)?;
    Ok(making.end())
}

pub(crate) fn facts() -> Facts<'static> {
    Facts {
        bundle: Path::new("/bundle"),
        rootfs: Path::new("/bundle/rootfs"),
        own_mount_namespace: true,
        new_network_namespace: true,
        new_ipc_namespace: true,
        user_namespace: UserNamespace::Host,
        rootless: false,
        unified_cgroups: true,
        label: None,
        rootfs_propagation: None,
    }
}

fn mount(destination: &str, fstype: &str, source: &str, options: &str) -> oci::Mount {
    let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    oci::MountBuilder::default()
        .destination(destination)
        .typ(fstype)
        .source(source)
        .options(options)
        .build()
        .unwrap()
}

fn refusal(mount: oci::Mount) -> String {
    format!("{:#}", plan(&[mount], &facts()).unwrap_err())
}

#[test]
fn the_rules_of_proc_are_those_of_the_place() {
    assert!(plan(&[mount("/proc", "proc", "proc", "")], &facts()).is_ok());
    assert!(plan(&[mount("/proc/uptime", "bind", "/x", "bind")], &facts()).is_ok());
    assert!(plan(&[mount("/procx", "tmpfs", "x", "")], &facts()).is_ok());
    assert!(refusal(mount("/proc", "tmpfs", "x", "")).contains("because it is not of type proc"));
    assert!(refusal(mount("/x/../proc/sys", "bind", "/x", "bind")).contains("because it is inside /proc"));
}

#[test]
fn a_refusal_names_the_mount() {
    let text = refusal(mount("/data", "bind", "/x", "bind,size=5"));
    assert_eq!(
        text,
        "mounts[0] /data: bind mounts cannot have any filesystem-specific options applied: \"size=5\""
    );
    assert!(refusal(mount("/", "tmpfs", "x", "")).starts_with("mounts[0] /: "));
    assert!(refusal(mount("/bundle/./rootfs/", "tmpfs", "x", "")).ends_with("on the top of the rootfs"));
    assert!(refusal(mount("/a", "tmpfs", "x\0y", "")).contains("source"));
    assert!(refusal(mount("/a", "", "/x", "")).contains("no such device"));
}

#[test]
fn a_relative_source_is_relative_to_the_bundle() {
    let plan = plan(&[mount("/data", "", "here", "rbind")], &facts()).unwrap();
    let What::Bind(bind) = &plan.list[0].what else { panic!("{:?}", plan.list[0]) };
    assert_eq!(bind.source, BindSource::Host(c"/bundle/here".to_owned()));
    assert_eq!(bind.depth, Depth::Tree);
}

#[test]
fn the_other_parts_can_ask_about_dev_and_cgroup() {
    let asked = |one| plan(&[one], &facts()).map(|plan| (plan.bind_dev(), plan.show_cgroup())).unwrap();
    assert_eq!(asked(mount("/dev/", "", "/dev", "rbind")), (true, false));
    assert_eq!(asked(mount("/dev", "tmpfs", "tmpfs", "")), (false, false));
    assert_eq!(asked(mount("/sys/fs/cgroup", "cgroup2", "cgroup", "")), (false, true));
}

#[test]
fn only_a_user_namespace_opens_sources_in_init_first() {
    let (uids, gids) = (Map::default(), Map::default());
    let user = UserNamespace::New(&uids, &gids);
    assert_eq!(plan(&[], &facts()).unwrap().sources, SourcesFrom::Parent);
    let with = Facts { user_namespace: user, ..facts() };
    assert_eq!(plan(&[], &with).unwrap().sources, SourcesFrom::InitElseParent);
    let rootless = Facts { rootless: true, ..facts() };
    assert_eq!(plan(&[], &rootless).unwrap().sources, SourcesFrom::Init);
    let rootless = Facts { user_namespace: user, ..rootless };
    assert_eq!(plan(&[], &rootless).unwrap().sources, SourcesFrom::InitElseParent);
}

#[test]
fn shared_sources_stay_peers_only_if_the_rootfs_is_shared() {
    let given = |name| plan(&[], &Facts { rootfs_propagation: name, ..facts() });
    assert_eq!(given(None).unwrap().source_propagation, Some(Propagation::Slave));
    assert_eq!(given(Some("rshared")).unwrap().source_propagation, None);
    assert_eq!(given(Some("rprivate")).unwrap().source_propagation, Some(Propagation::Private));
    assert!(given(Some("upwards")).is_err());
}

/// A bundle with a rootfs, in a private mount namespace.
struct Place {
    directory: PathBuf,
    /// What stands for the host's mount namespace: without a descriptor it would die when we leave it.
    host: std::cell::OnceCell<std::fs::File>,
}

impl Place {
    fn new(base: &Path) -> Self {
        let directory = tempfile::tempdir_in(base).unwrap().keep();
        for name in ["rootfs", "source", "outside"] {
            std::fs::create_dir(directory.as_path().join(name)).unwrap();
        }
        std::fs::write(directory.as_path().join("source/mark"), "source").unwrap();
        Self { directory, host: std::cell::OnceCell::new() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.as_path().join(name).to_str().unwrap().to_owned()
    }

    fn apply(&self, mounts: &[oci::Mount]) -> Result<Late> {
        self.apply_with(mounts, &Facts { bundle: self.directory.as_path(), ..facts() })
    }

    fn apply_with(&self, mounts: &[oci::Mount], facts: &Facts<'_>) -> Result<Late> {
        let plan = plan(mounts, facts)?;
        let mut held = plan.hold()?;
        // As in init: the parent opened its sources in another mount namespace.
        self.host.get_or_init(|| std::fs::File::open("/proc/thread-self/ns/mnt").unwrap());
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let rootfs = crate::parts::rootfs::plan(facts.bundle, Path::new("rootfs"), false, None, true, false)?;
        let root: Root = rootfs.open()?;
        made(&plan, &root, &mut held, None, &|index, fd| plan.map_ids(index, fd))
    }

    fn options_at(&self, name: &str) -> (String, String, String) {
        mounts_at(&self.path(name)).pop().unwrap_or_else(|| panic!("nothing is mounted at {name}"))
    }
}

fn has(options: &str, word: &str) -> bool {
    options.split(',').any(|option| option == word)
}

#[test]
fn every_option_of_the_table_is_applied_to_a_new_file_system() {
    private::run(|base| {
        for (name, effect) in TABLE {
            let place = Place::new(base);
            if matches!(effect, Effect::Bind(_) | Effect::Remount | Effect::IdMap(_))
                || matches!(
                    effect,
                    Effect::CopySymlink | Effect::SourceNoFollow | Effect::DestinationNoFollow
                )
            {
                continue;
            }
            let late = place.apply(&[mount("/m", "tmpfs", "tmpfs", name)]);
            late.unwrap_or_else(|e| panic!("{name}: {e:#}")).set_readonly().unwrap();
            let (options, optional, superblock) = place.options_at("rootfs/m");
            let expected: &[&str] = match *name {
                "ro" | "rro" => &["ro"],
                "noatime" | "rnoatime" => &["noatime"],
                "nodiratime" | "rnodiratime" => &["nodiratime"],
                "nodev" | "rnodev" => &["nodev"],
                "noexec" | "rnoexec" => &["noexec"],
                "nosuid" | "rnosuid" => &["nosuid"],
                "nosymfollow" | "rnosymfollow" => &["nosymfollow"],
                "strictatime" | "rstrictatime" => &[],
                _ => &["rw", "relatime"],
            };
            for word in expected {
                assert!(has(&options, word), "{name}: {options}");
            }
            match effect {
                Effect::Superblock(word @ ("sync" | "dirsync" | "lazytime")) => {
                    assert!(has(&superblock, word), "{name}: {superblock}");
                }
                Effect::Propagate(Propagation::Shared, _) => {
                    assert!(optional.contains("shared:"), "{name}: {optional}")
                }
                Effect::Propagate(Propagation::Unbindable, _) => assert_eq!(optional, "unbindable", "{name}"),
                Effect::Propagate(Propagation::Private, _) => assert_eq!(optional, "", "{name}"),
                Effect::Atime(STRICT) | Effect::AtimeTree(STRICT) => {
                    assert!(!has(&options, "relatime"), "{name}")
                }
                _ => {}
            }
        }
    });
}

const STRICT: u64 = crate::sys::mount::STRICTATIME;

#[test]
fn a_bind_mount_has_what_is_asked_and_drops_what_is_not_mentioned() {
    // (flags of the source, options, the mount must have, and must not have): the table of runc's tests.
    let rows: &[(&str, &str, &str, &str)] = &[
        ("ro,noexec,nodiratime", "bind", "ro,noexec,nodiratime", "rw"),
        ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "rw,nodiratime", "noexec,nosymfollow"),
        ("ro", "bind,nosuid,nodev,rprivate", "rw,nosuid,nodev", "ro"),
        ("ro", "bind,rw,nosuid", "rw,nosuid", "ro"),
        ("nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,noatime", "nosuid,nodev,noexec"),
        ("nodev,nosuid,noexec,noatime", "bind,ro", "ro,noatime", "nosuid,nodev,noexec"),
        ("noatime", "bind,relatime", "relatime", "noatime"),
        ("noatime", "bind,nodiratime", "nodiratime,relatime", "noatime"),
        ("nodiratime", "bind,strictatime", "rw", "nodiratime,relatime,noatime"),
        ("noatime", "bind,nodiratime,norelatime", "nodiratime,relatime", "noatime"),
        ("rw", "bind,rro,rnosuid", "ro,nosuid", "rw"),
    ];
    private::run(move |base| {
        for (source, options, must, must_not) in rows {
            let place = Place::new(base);
            place.mount_source(source);
            place.apply(&[mount("/m", "bind", "source", options)]).unwrap();
            let (found, ..) = place.options_at("rootfs/m");
            for word in must.split(',') {
                assert!(has(&found, word), "{source} + {options}: {found} lacks {word}");
            }
            for word in must_not.split(',') {
                assert!(!has(&found, word), "{source} + {options}: {found} has {word}");
            }
        }
    });
}

impl Place {
    fn mount_source(&self, flags: &str) {
        let flags: Vec<String> = flags.split(',').map(str::to_owned).collect();
        let attributes = mount_options::parse(&flags).set;
        let fd = sys_mount::Context::open(c"tmpfs").unwrap().mount(attributes).unwrap();
        let target = Root::open_host(&self.directory.as_path().join("source")).unwrap();
        sys_mount::attach(std::os::fd::AsFd::as_fd(&fd), std::os::fd::AsFd::as_fd(&target)).unwrap();
    }
}

use crate::sys::mount as sys_mount;

#[test]
fn a_source_of_the_host_is_a_slave_in_the_container() {
    private::run(|base| {
        for (options, expected) in [
            ("bind", "master:"),
            ("bind,rslave", "master:"),
            ("bind,ro", "master:"),
            ("rbind,rprivate", ""),
            ("bind,shared", "shared:"),
        ] {
            let place = Place::new(base);
            place.mount_source("rw");
            let source = CString::new(place.path("source")).unwrap();
            sys_mount::set_propagation(&source, Propagation::Shared, Depth::One).unwrap();
            place.apply(&[mount("/m", "bind", "source", options)]).unwrap();
            let (_, optional, _) = place.options_at("rootfs/m");
            assert!(
                optional.contains(expected) && (expected.is_empty() == optional.is_empty()),
                "{options}: {optional}"
            );
        }
    });
}

#[test]
fn a_missing_source_names_mount_and_call_before_anything_is_done() {
    let plan = plan(&[mount("/data", "bind", "/does/not/exist", "rbind")], &facts()).unwrap();
    let text = format!("{:#}", plan.hold().unwrap_err());
    assert_eq!(
        text,
        "error mounting \"/does/not/exist\" to rootfs at \"/data\": mounts[0] /data: openat2 \
         \"/does/not/exist\": no such file or directory"
    );
}

#[test]
fn links_of_the_image_do_not_lead_out() {
    private::run(|base| {
        for name in ["data", "dev", "x/y"] {
            let place = Place::new(base);
            std::fs::create_dir(place.path("rootfs/x")).unwrap();
            symlink(place.path("outside"), place.path(&format!("rootfs/{name}"))).unwrap();
            place.apply(&[mount(&format!("/{name}"), "tmpfs", "tmpfs", "")]).unwrap();
            assert!(mounts_at(&place.path("outside")).is_empty(), "{name}");
            let inside = format!("rootfs{}", place.path("outside"));
            assert_eq!(mounts_at(&place.path(&inside)).len(), 1, "{name}");
        }
    });
}

#[test]
fn proc_and_sys_want_an_ordinary_directory() {
    private::run(|base| {
        for (name, fstype) in [("proc", "proc"), ("sys", "sysfs")] {
            let place = Place::new(base);
            std::fs::create_dir(place.path("rootfs/elsewhere")).unwrap();
            symlink("elsewhere", place.path(&format!("rootfs/{name}"))).unwrap();
            let error = place.apply(&[mount(&format!("/{name}"), fstype, fstype, "")]).unwrap_err();
            assert!(
                format!("{error:#}")
                    .ends_with(&format!("filesystem {fstype:?} must be mounted on ordinary directory")),
                "{error:#}"
            );
        }
    });
}

#[test]
fn a_link_into_proc_is_refused_where_the_place_counts() {
    private::run(|base| {
        let place = Place::new(base);
        symlink("proc/sys", place.path("rootfs/data")).unwrap();
        let mounts = [mount("/proc", "proc", "proc", ""), mount("/data", "bind", "source", "bind")];
        let error = place.apply(&mounts).unwrap_err();
        assert!(format!("{error:#}").contains("because it is inside /proc"), "{error:#}");
    });
}

#[test]
fn mount_points_are_made_as_the_source_is() {
    private::run(|base| {
        let place = Place::new(base);
        place
            .apply(&[
                mount("/a/file", "bind", "source/mark", "bind"),
                mount("/a/dir", "bind", "source", "bind"),
            ])
            .unwrap();
        assert_eq!(std::fs::read_to_string(place.path("rootfs/a/file")).unwrap(), "source");
        assert!(place.directory.as_path().join("rootfs/a/dir/mark").is_file());
    });
}

#[test]
fn a_tmpfs_looks_like_the_directory_that_it_hides() {
    private::run(|base| {
        let place = Place::new(base);
        std::fs::create_dir(place.path("rootfs/tmp")).unwrap();
        std::fs::set_permissions(place.path("rootfs/tmp"), PermissionsExt::from_mode(0o1710)).unwrap();
        place
            .apply(&[
                mount("/tmp", "tmpfs", "tmpfs", ""),
                mount("/new", "tmpfs", "tmpfs", ""),
                mount("/said", "tmpfs", "x", "mode=700"),
            ])
            .unwrap();
        let mode = |name: &str| std::fs::metadata(place.path(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("rootfs/tmp"), mode("rootfs/new"), mode("rootfs/said")), (0o1710, 0o1777, 0o700));
    });
}

#[test]
fn tmpcopyup_brings_what_was_there() {
    private::run(|base| {
        let place = Place::new(base);
        std::fs::create_dir_all(place.path("rootfs/etc/deep")).unwrap();
        std::fs::write(place.path("rootfs/etc/deep/file"), "text").unwrap();
        std::os::unix::fs::chown(place.path("rootfs/etc/deep/file"), Some(7), Some(8)).unwrap();
        std::fs::set_permissions(place.path("rootfs/etc/deep/file"), PermissionsExt::from_mode(0o4711))
            .unwrap();
        symlink("/outside", place.path("rootfs/etc/link")).unwrap();
        place.apply(&[mount("/etc", "tmpfs", "tmpfs", "tmpcopyup")]).unwrap();
        assert_eq!(place.options_at("rootfs/etc").1, "");
        let file = std::fs::metadata(place.path("rootfs/etc/deep/file")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4711, 7, 8));
        assert_eq!(std::fs::read_to_string(place.path("rootfs/etc/deep/file")).unwrap(), "text");
        assert_eq!(std::fs::read_link(place.path("rootfs/etc/link")).unwrap(), Path::new("/outside"));
    });
}

#[test]
fn long_options_go_by_mount() {
    private::run(|base| {
        let place = Place::new(base);
        let lower: Vec<String> =
            (0..20).map(|n| place.path(&format!("outside/layer-with-a-long-name-{n}"))).collect();
        for (n, directory) in lower.iter().enumerate() {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(format!("{directory}/file{n}"), "").unwrap();
        }
        let option = format!("lowerdir={}", lower.join(":"));
        place.apply(&[mount("/o", "overlay", "overlay", &format!("{option},nosuid"))]).unwrap();
        assert!(place.directory.as_path().join("rootfs/o/file19").is_file());
        assert!(has(&place.options_at("rootfs/o").0, "nosuid"));
        assert_eq!(mounts_at(&place.path("rootfs/o")).len(), 1, "nothing of how it was made is left");
    });
}

#[test]
fn the_kernel_explains_an_option_that_it_refuses() {
    private::run(|base| {
        let place = Place::new(base);
        let error = place.apply(&[mount("/m", "tmpfs", "tmpfs", "sise=5")]).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("error mounting \"tmpfs\" to rootfs at \"/m\"") && text.contains("sise"),
            "{text}"
        );
    });
}

#[test]
fn id_maps_change_the_owner() {
    private::run(|base| {
        let place = Place::new(base);
        std::os::unix::fs::chown(place.path("source/mark"), Some(1000), Some(1000)).unwrap();
        let row = |host| {
            oci::LinuxIdMappingBuilder::default()
                .container_id(0_u32)
                .host_id(host)
                .size(65536_u32)
                .build()
                .unwrap()
        };
        let mut idmapped = mount("/m", "bind", "source", "bind,idmap");
        idmapped
            .set_uid_mappings(Some(vec![row(100_000_u32)]))
            .set_gid_mappings(Some(vec![row(200_000_u32)]));
        match place.apply(&[idmapped]) {
            Ok(_) => {}
            Err(error) if crate::sys::errno_of(&error) == Some(libc::EINVAL) => {
                eprintln!("skipped: no id-mapped mounts of this file system: {error:#}");
                return;
            }
            Err(error) => panic!("{error:#}"),
        }
        let mark = std::fs::metadata(place.path("rootfs/m/mark")).unwrap();
        assert_eq!((mark.uid(), mark.gid()), (101_000, 201_000));
    });
}

#[test]
fn locked_flags_are_kept_for_a_user_namespace_unless_spoken_about() {
    let map = Map(vec![Range { container: 0, host: 0, size: 1 }]);
    private::run(move |base| {
        for (source, options, result) in [
            ("ro,nodev", "bind,nosuid", Some("ro,nodev,nosuid")),
            ("ro", "bind,rw", None),
            ("noatime", "bind,relatime", None),
            ("noatime", "bind,noatime,ro", Some("noatime,ro")),
            ("nodev,nosymfollow", "bind,ro,symfollow", Some("nodev,ro")),
        ] {
            let place = Place::new(base);
            place.mount_source(source);
            let facts = Facts {
                bundle: place.directory.as_path(),
                user_namespace: UserNamespace::New(&map, &map),
                ..facts()
            };
            let planned = plan(&[mount("/m", "bind", "source", options)], &facts).unwrap();
            match (planned.hold(), result) {
                (Err(error), None) => {
                    assert!(format!("{error:#}").ends_with("operation not permitted"), "{error:#}")
                }
                (Ok(held), Some(must)) => {
                    let target = Root::open_host(&place.directory.as_path().join("outside")).unwrap();
                    held.attach_first(&target);
                    let (found, ..) = place.options_at("outside");
                    assert!(must.split(',').all(|word| has(&found, word)), "{source} + {options}: {found}");
                    assert!(!has(&found, "nosymfollow"), "{source} + {options}: {found}");
                }
                (held, _) => panic!("{source} + {options}: {held:?}"),
            }
        }
    });
}

#[test]
fn cgroup_v1_is_a_directory_of_hierarchies_with_aliases() {
    private::run(|base| {
        let place = Place::new(base);
        for name in ["source/a", "source/b"] {
            std::fs::create_dir(place.path(name)).unwrap();
        }
        let planned = plan(&[mount("/cg", "cgroup", "cgroup", "ro,nosuid")], &facts()).unwrap();
        let source = |name: &str| CString::new(place.path(name)).unwrap();
        let held = sys_mount::clone_private(rustix::fs::CWD, &source("source/a"), Depth::One, 0).unwrap();
        let hierarchies = CgroupSource::V1(vec![
            ("cpu,cpuacct".to_owned(), Source::Held(held)),
            ("pids".to_owned(), Source::Path(source("source/b"))),
        ]);
        let rootfs = crate::parts::rootfs::plan(
            place.directory.as_path(),
            Path::new("rootfs"),
            false,
            None,
            true,
            false,
        )
        .unwrap();
        let root = rootfs.open().unwrap();
        made(&planned, &root, &mut Held::default(), Some(hierarchies), &nobody).unwrap();
        assert_eq!(std::fs::read_link(place.path("rootfs/cg/cpuacct")).unwrap(), Path::new("cpu,cpuacct"));
        for name in ["rootfs/cg", "rootfs/cg/pids", "rootfs/cg/cpu,cpuacct"] {
            let (options, ..) = place.options_at(name);
            assert!(
                has(&options, "ro") && has(&options, "nosuid") && has(&options, "noexec"),
                "{name}: {options}"
            );
        }
    });
}

#[test]
fn rootless_without_a_cgroup_sees_an_empty_directory() {
    private::run(|base| {
        let place = Place::new(base);
        let facts = Facts { bundle: place.directory.as_path(), rootless: true, ..facts() };
        let planned = plan(&[mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro")], &facts).unwrap();
        let rootfs =
            crate::parts::rootfs::plan(facts.bundle, Path::new("rootfs"), false, None, true, false).unwrap();
        let root = rootfs.open().unwrap();
        let gone = CgroupSource::V2(Source::Path(c"/does/not/exist".to_owned()));
        made(&planned, &root, &mut Held::default(), Some(gone), &nobody).unwrap();
        assert!(has(&place.options_at("rootfs/sys/fs/cgroup").0, "ro"));
    });
}

#[test]
fn remount_changes_what_is_there() {
    private::run(|base| {
        let place = Place::new(base);
        let mounts = [
            mount("/m", "tmpfs", "tmpfs", "size=4k"),
            mount("/m", "tmpfs", "tmpfs", "remount,noexec,size=8k"),
            mount("/b", "bind", "source", "bind"),
            mount("/b", "bind", "source", "bind,remount,ro"),
        ];
        place.apply(&mounts).unwrap();
        let (options, _, superblock) = place.options_at("rootfs/m");
        assert!(has(&options, "noexec") && has(&superblock, "size=8k"), "{options} {superblock}");
        assert!(has(&place.options_at("rootfs/b").0, "ro"));
    });
}

/// CVE-2021-30465: another container swaps a directory of a shared volume for a link while we mount there.
#[test]
fn a_link_swapped_in_during_the_mount_does_not_lead_out() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    private::run(|base| {
        let place = Place::new(base);
        std::fs::create_dir_all(place.path("rootfs/volume/real")).unwrap();
        symlink(place.path("outside"), place.path("rootfs/volume/link")).unwrap();
        let (real, link) = (place.path("rootfs/volume/real"), place.path("rootfs/volume/link"));
        let stop = AtomicBool::new(false);
        let mounted = std::thread::scope(|scope| {
            let swaps = scope.spawn(|| {
                let mut swaps = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    swaps += u32::from(renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).is_ok());
                }
                swaps
            });
            let planned: Vec<Mounts> = (0..200)
                .map(|n| {
                    plan(&[mount(&format!("/volume/real/{n}/x"), "tmpfs", "tmpfs", "mode=755")], &facts())
                })
                .collect::<Result<_>>()
                .unwrap();
            let rootfs =
                crate::parts::rootfs::plan(base, &place.directory.join("rootfs"), false, None, true, false);
            let root = rootfs.unwrap().open().unwrap();
            // Failing is allowed (a component is gone, or became a link under our hands); leading out is not.
            let done = planned
                .iter()
                .filter(|one| made(one, &root, &mut Held::default(), None, &nobody).is_ok())
                .count();
            stop.store(true, Ordering::Relaxed);
            assert!(swaps.join().unwrap() > 0, "nothing was swapped");
            done
        });
        assert!(mounted > 0, "nothing was mounted");
        assert!(std::fs::read_dir(place.path("outside")).unwrap().next().is_none());
        let outside = place.path("outside");
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let led_out = |line: &str| line.split(' ').nth(4).is_some_and(|at| at.starts_with(&outside));
        assert!(!mounts.lines().any(led_out), "{mounts}");
    });
}
