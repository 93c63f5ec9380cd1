//! A [`Cgroup`] without its limits, which may be many: all that killing and removing need.

use super::{Cgroup, Keeper, Tree};
use serde::Serialize;

#[derive(Serialize)]
struct Located<'a> {
    tree: &'a Tree,
    keeper: &'a Keeper,
    named: bool,
    rootless: bool,
}

impl Cgroup {
    /// Where it is, without the limits: to be written, and read as a [`Cgroup`].
    pub fn located(&self) -> impl Serialize + '_ {
        Located { tree: &self.tree, keeper: &self.keeper, named: self.named, rootless: self.rootless }
    }
}
