//! The mount options of config.json, one row each (config.md, "Linux mount options").
//!
//! [`parse`] reads them from [`TABLE`]; `features` prints [`names`] of the same table. A word that is not in the
//! table is an option of the file system itself.
//! Not for: making mounts (see `parts::mounts`).

use crate::sys::mount::{
    ATIME_MASK, Depth, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, Propagation, RDONLY,
    RELATIME, STRICTATIME,
};
use serde::Serialize;

/// What an option does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets an attribute of the mount.
    Set(u64),
    /// Clears an attribute of the mount.
    Clear(u64),
    /// Sets an attribute of the mount and of all below it.
    SetTree(u64),
    /// Clears an attribute of the mount and of all below it.
    ClearTree(u64),
    /// Chooses how access times are kept.
    Atime(u64),
    /// Takes back a way of keeping access times; alone it names the default way, and changes nothing.
    AtimeNot(u64),
    /// As [`Effect::Atime`], for the mount and all below it.
    AtimeTree(u64),
    /// A flag of the superblock, by its fsconfig(2) name; no effect on a bind mount.
    Superblock(&'static str),
    /// A flag of mount(2) that fsconfig(2) cannot say: it counts as an option, and changes nothing.
    Unsayable,
    /// Changes the propagation after the mount is made.
    Propagate(Propagation, Depth),
    /// Makes it a bind mount.
    Bind(Depth),
    /// Changes a mount that is there.
    Remount,
    /// Says nothing.
    Nothing,
    /// A tmpfs starts with a copy of what it hides.
    CopyUp,
    /// Id maps for the mount, or also for those below it.
    IdMap(Depth),
    /// A source that is a symbolic link becomes a link of the container.
    CopySymlink,
    /// A source that is a symbolic link is bound itself.
    SourceNoFollow,
    /// A symbolic link at the destination is mounted on, not followed.
    DestinationNoFollow,
}

use Effect::{
    Atime, AtimeNot, AtimeTree, Bind, Clear, ClearTree, CopySymlink, CopyUp, DestinationNoFollow, IdMap,
    Nothing, Propagate, Remount, Set, SetTree, SourceNoFollow, Superblock, Unsayable,
};

/// Every option, in the order of their names.
pub const TABLE: &[(&str, Effect)] = &[
    ("async", Superblock("async")),
    ("atime", AtimeNot(NOATIME)),
    ("bind", Bind(Depth::One)),
    // This, "src-nofollow" and "dest-nofollow" are crun's (crun(1)); podman's no-dereference sends this one.
    ("copy-symlink", CopySymlink),
    ("defaults", Nothing),
    ("dest-nofollow", DestinationNoFollow),
    ("dev", Clear(NODEV)),
    ("diratime", AtimeNot(NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(NOEXEC)),
    ("idmap", IdMap(Depth::One)),
    // Kernels that have a use for it set it themselves; fsconfig has no common word for MS_I_VERSION.
    ("iversion", Unsayable),
    ("lazytime", Superblock("lazytime")),
    // MS_SILENT is about the kernel's log, and fsconfig(2) answers by its own log.
    ("loud", Unsayable),
    ("mand", Superblock("mand")),
    ("noatime", Atime(NOATIME)),
    ("nodev", Set(NODEV)),
    ("nodiratime", Atime(NODIRATIME)),
    ("noexec", Set(NOEXEC)),
    ("noiversion", Unsayable),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", AtimeNot(RELATIME)),
    ("nostrictatime", AtimeNot(STRICTATIME)),
    ("nosuid", Set(NOSUID)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("private", Propagate(Propagation::Private, Depth::One)),
    ("ratime", AtimeTree(RELATIME)),
    ("rbind", Bind(Depth::Tree)),
    ("rdev", ClearTree(NODEV)),
    ("rdiratime", ClearTree(NODIRATIME)),
    ("relatime", Atime(RELATIME)),
    ("remount", Remount),
    ("rexec", ClearTree(NOEXEC)),
    ("ridmap", IdMap(Depth::Tree)),
    ("rnoatime", AtimeTree(NOATIME)),
    ("rnodev", SetTree(NODEV)),
    ("rnodiratime", SetTree(NODIRATIME)),
    ("rnoexec", SetTree(NOEXEC)),
    ("rnorelatime", AtimeTree(RELATIME)),
    ("rnostrictatime", AtimeTree(RELATIME)),
    ("rnosuid", SetTree(NOSUID)),
    ("rnosymfollow", SetTree(NOSYMFOLLOW)),
    ("ro", Set(RDONLY)),
    ("rprivate", Propagate(Propagation::Private, Depth::Tree)),
    ("rrelatime", AtimeTree(RELATIME)),
    ("rro", SetTree(RDONLY)),
    ("rrw", ClearTree(RDONLY)),
    ("rshared", Propagate(Propagation::Shared, Depth::Tree)),
    ("rslave", Propagate(Propagation::Slave, Depth::Tree)),
    ("rstrictatime", AtimeTree(STRICTATIME)),
    ("rsuid", ClearTree(NOSUID)),
    ("rsymfollow", ClearTree(NOSYMFOLLOW)),
    ("runbindable", Propagate(Propagation::Unbindable, Depth::Tree)),
    ("rw", Clear(RDONLY)),
    ("shared", Propagate(Propagation::Shared, Depth::One)),
    ("silent", Unsayable),
    ("slave", Propagate(Propagation::Slave, Depth::One)),
    ("src-nofollow", SourceNoFollow),
    ("strictatime", Atime(STRICTATIME)),
    ("suid", Clear(NOSUID)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(Propagation::Unbindable, Depth::One)),
];

/// The names that `features` prints: runc leaves the two of id maps out, and engines compare.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|(_, effect)| !matches!(effect, IdMap(_))).map(|(name, _)| *name)
}

/// The propagation that `linux.rootfsPropagation` names, from the same table.
pub fn propagation(name: &str) -> Option<(Propagation, Depth)> {
    match lookup(name)? {
        Propagate(propagation, depth) => Some((propagation, depth)),
        _ => None,
    }
}

fn lookup(name: &str) -> Option<Effect> {
    let at = TABLE.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    TABLE.get(at).map(|(_, effect)| *effect)
}

/// The options of one mount, taken together; a later option wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Options {
    /// A bind mount, of one mount or of a tree.
    pub bind: Option<Depth>,
    /// Change the mount that is at the destination.
    pub remount: bool,
    /// Some attribute was set or cleared: a bind mount then loses those of its source that were not mentioned.
    pub mentions_attributes: bool,
    /// Attributes to set, access times included.
    pub set: u64,
    /// Attributes that must not be set.
    pub clear: u64,
    /// Access times were chosen (else a bind mount keeps its source's way).
    pub chooses_atime: bool,
    /// Attributes for the whole tree.
    pub tree_set: u64,
    /// Attributes to clear in the whole tree.
    pub tree_clear: u64,
    /// Flags of the superblock, by their fsconfig(2) names.
    pub superblock: Vec<&'static str>,
    /// Propagation changes, in order.
    pub propagation: Vec<(Propagation, Depth)>,
    /// tmpcopyup
    pub copy_up: bool,
    /// idmap, ridmap
    pub idmap: Option<Depth>,
    /// copy-symlink
    pub copy_symlink: bool,
    /// src-nofollow
    pub source_nofollow: bool,
    /// dest-nofollow
    pub destination_nofollow: bool,
    /// Options of the file system itself, in order.
    pub data: Vec<String>,
}

impl Options {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Set(bit) => {
                self.set |= bit;
                self.clear &= !bit;
            }
            Clear(bit) => {
                self.set &= !bit;
                self.clear |= bit;
            }
            SetTree(bit) => {
                self.tree_set |= bit;
                self.tree_clear &= !bit;
            }
            ClearTree(bit) => {
                self.tree_set &= !bit;
                self.tree_clear |= bit;
            }
            Atime(NODIRATIME) => {
                self.set |= NODIRATIME;
                self.chooses_atime = true;
            }
            Atime(value) => {
                self.set = self.set & !ATIME_MASK | value;
                self.chooses_atime = true;
            }
            AtimeNot(value) => {
                let had = if value == NODIRATIME { self.set & NODIRATIME } else { self.set & ATIME_MASK };
                if had == value {
                    self.set &= !value;
                    self.chooses_atime = self.set & (ATIME_MASK | NODIRATIME) != 0;
                }
            }
            AtimeTree(value) => {
                self.tree_set = self.tree_set & !ATIME_MASK | value;
                // The kernel wants the whole mask cleared when one of the three values is given.
                self.tree_clear |= ATIME_MASK;
            }
            Superblock(name) => self.superblock.push(name),
            Propagate(propagation, depth) => self.propagation.push((propagation, depth)),
            // rbind after bind, and the other way round: mount(2) would see both flags, so a tree it is.
            Bind(Depth::Tree) => self.bind = Some(Depth::Tree),
            Bind(Depth::One) => self.bind = self.bind.or(Some(Depth::One)),
            Remount => self.remount = true,
            CopyUp => self.copy_up = true,
            IdMap(depth) => self.idmap = Some(depth),
            CopySymlink => self.copy_symlink = true,
            SourceNoFollow => self.source_nofollow = true,
            DestinationNoFollow => self.destination_nofollow = true,
            Unsayable | Nothing => {}
        }
        self.mentions_attributes |=
            matches!(effect, Set(_) | Clear(_) | Atime(_) | AtimeNot(_) | Superblock(_) | Unsayable);
    }
}

/// Reads the options of one mount.
pub fn parse(options: &[String]) -> Options {
    let mut sum = Options::default();
    for option in options {
        match lookup(option) {
            Some(effect) => sum.apply(effect),
            None if option.is_empty() => {}
            None => sum.data.push(option.clone()),
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &str) -> Options {
        parse(&options.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted_so_that_lookups_find_every_row() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
        for (name, effect) in TABLE {
            assert_eq!(lookup(name), Some(*effect), "{name}");
        }
    }

    #[test]
    fn the_last_of_two_contrary_options_wins() {
        assert_eq!(parsed("ro,rw").set, 0);
        assert_eq!(parsed("rw,ro").set, RDONLY);
        assert_eq!(parsed("rro,rrw").tree_set, 0);
        assert_eq!(parsed("noatime,strictatime").set, STRICTATIME);
        for (there, and_back) in [
            ("noatime", "atime"),
            ("nodiratime", "diratime"),
            ("strictatime", "nostrictatime"),
            ("relatime", "norelatime"),
        ] {
            let both = parsed(&format!("{there},{and_back}"));
            assert_eq!((both.set, both.chooses_atime), (0, false), "{there},{and_back}");
            assert_eq!(parsed(&format!("{and_back},{there}")).set, parsed(there).set);
        }
        assert_eq!(parsed("noatime,nostrictatime,diratime").set, NOATIME, "another one is not taken back");
    }

    #[test]
    fn an_unknown_word_is_an_option_of_the_file_system() {
        let options = parsed("size=64k,nosuid,mode=755");
        assert_eq!(options.data, ["size=64k", "mode=755"]);
        assert_eq!(options.set, NOSUID);
    }

    #[test]
    fn rbind_is_a_tree_and_defaults_says_nothing() {
        assert_eq!(parsed("bind,rbind").bind, Some(Depth::Tree));
        assert_eq!(parsed("rbind,bind").bind, Some(Depth::Tree));
        assert_eq!(parsed("defaults"), Options::default());
    }

    #[test]
    fn features_names_are_those_of_runc_and_three_of_crun() {
        let of_crun = ["copy-symlink", "dest-nofollow", "src-nofollow"];
        assert!(of_crun.iter().all(|name| names().any(|known| known == *name)));
        let text = names().filter(|name| !of_crun.contains(name)).collect::<Vec<_>>().join(" ");
        assert_eq!(
            text,
            "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
             nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
             ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
             rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
             rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable"
        );
    }
}
