//! The mount options of config.json, one row each (config.md, "Linux mount options").
//!
//! [`parse`] looks each option up in [`TABLE`]. An option that is not in the table goes to the file system. `features`
//! prints the [`names`] of the same table.
//! Not for: making mounts (`mounts`).

use crate::sys::mount::{
    ATIME_MASK, Depth, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, Propagation, RDONLY,
    RELATIME, STRICTATIME,
};
use serde::Serialize;

/// The effect of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets an attribute of the mount.
    Set(u64),
    /// Clears an attribute of the mount.
    Clear(u64),
    /// Sets an attribute of the mount and of all mounts below it.
    SetTree(u64),
    /// Clears an attribute of the mount and of all mounts below it.
    ClearTree(u64),
    /// Chooses when access times are updated.
    Atime(u64),
    /// Undoes an earlier [`Effect::Atime`] of the same value. Without one it changes nothing.
    AtimeNot(u64),
    /// Chooses when access times are updated, for the mount and all mounts below it.
    AtimeTree(u64),
    /// Sets a flag of the superblock, by its fsconfig(2) name. A bind mount ignores it.
    Superblock(&'static str),
    /// Changes nothing: fsconfig(2) has no word for this flag of mount(2). It counts as an attribute, though.
    Unsayable,
    /// Changes the propagation after the mount is made.
    Propagate(Propagation, Depth),
    /// Makes the mount a bind mount.
    Bind(Depth),
    /// Changes the mount that is at the destination.
    Remount,
    /// Has no effect.
    Nothing,
    /// Fills a new tmpfs with a copy of the directory that it hides.
    CopyUp,
    /// Maps the ids of the mount, or of all mounts in its tree.
    IdMap(Depth),
    /// If the source is a symbolic link, makes a copy of the link in the container.
    CopySymlink,
    /// If the source is a symbolic link, binds the link itself.
    SourceNoFollow,
    /// If the destination is a symbolic link, mounts on the link itself.
    DestinationNoFollow,
}

use Effect::{
    Atime, AtimeNot, AtimeTree, Bind, Clear, ClearTree, CopySymlink, CopyUp, DestinationNoFollow, IdMap,
    Nothing, Propagate, Remount, Set, SetTree, SourceNoFollow, Superblock, Unsayable,
};

/// Every option, sorted by name.
pub const TABLE: &[(&str, Effect)] = &[
    ("async", Superblock("async")),
    ("atime", AtimeNot(NOATIME)),
    ("bind", Bind(Depth::One)),
    // crun(1) defines this option, "src-nofollow" and "dest-nofollow". Podman sends this one for "no-dereference".
    ("copy-symlink", CopySymlink),
    ("defaults", Nothing),
    ("dest-nofollow", DestinationNoFollow),
    ("dev", Clear(NODEV)),
    ("diratime", AtimeNot(NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(NOEXEC)),
    ("idmap", IdMap(Depth::One)),
    // MS_I_VERSION: fsconfig(2) has no common word for it. A file system that needs it sets it by itself.
    ("iversion", Unsayable),
    ("lazytime", Superblock("lazytime")),
    // MS_SILENT keeps messages out of the kernel's log. fsconfig(2) has a log of its own.
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

/// The names that `features` prints. As in runc's list, which engines compare, the two options for id maps are missing.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|(_, effect)| !matches!(effect, IdMap(_))).map(|(name, _)| *name)
}

/// The propagation that `linux.rootfsPropagation` names; `None` for an unknown name.
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

/// All options of one mount together. A later option wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Makes it a bind mount, of one mount or of a tree.
    pub bind: Option<Depth>,
    /// Changes the mount that is at the destination.
    pub remount: bool,
    /// An option names an attribute. A bind mount then drops the attributes of its source that no option names.
    pub mentions_attributes: bool,
    /// Attributes to set, including those of access times.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// An option chooses when access times are updated. Otherwise a bind mount keeps its source's choice.
    pub chooses_atime: bool,
    /// Attributes to set in the whole tree.
    pub tree_set: u64,
    /// Attributes to clear in the whole tree.
    pub tree_clear: u64,
    /// Flags of the superblock, by their fsconfig(2) names.
    pub superblock: Vec<&'static str>,
    /// Propagation changes, in order.
    pub propagation: Vec<(Propagation, Depth)>,
    /// `tmpcopyup`: [`Effect::CopyUp`].
    pub copy_up: bool,
    /// `idmap` and `ridmap`: [`Effect::IdMap`].
    pub idmap: Option<Depth>,
    /// `copy-symlink`: [`Effect::CopySymlink`].
    pub copy_symlink: bool,
    /// `src-nofollow`: [`Effect::SourceNoFollow`].
    pub source_nofollow: bool,
    /// `dest-nofollow`: [`Effect::DestinationNoFollow`].
    pub destination_nofollow: bool,
    /// Options for the file system, in order.
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
                // mount_setattr(2) takes a value of this mask only if the whole mask is cleared too.
                self.tree_clear |= ATIME_MASK;
            }
            Superblock(name) => self.superblock.push(name),
            Propagate(propagation, depth) => self.propagation.push((propagation, depth)),
            // "bind" and "rbind" together, in any order, bind the tree: mount(2) would get both flags.
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
