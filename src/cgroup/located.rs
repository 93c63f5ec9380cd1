//! A [`Cgroup`] without its limits, which may be many. Killing and removing need no more.

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
    /// The place without the limits. Written down, it can be read as a [`Cgroup`].
    pub fn located(&self) -> impl Serialize + '_ {
        Located { tree: &self.tree, keeper: &self.keeper, named: self.named, rootless: self.rootless }
    }
}
