//! What the parent listens to, and from whom: the ladder of `wire.rs` as a list, made from the plan.
//!
//! A container process that gets hold of init, or of its end of the wire, can say nothing here that the plan does not
//! provide for: each event is accepted in its place, as often as it is planned, and from its speaker only.

use crate::init::Held;
use crate::parts::namespaces::{Entry, Kind};
use crate::plan::Plan;
use crate::wire::Event;
use anyhow::{Result, bail};
use std::collections::VecDeque;

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The process between parent and init.
    Hop,
    /// Init.
    Init,
}

/// An event without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    JoinCgroup,
    Console,
    Born,
    MapIds,
    MapMount,
    RunHooks,
    SetLimits,
    SeccompFd,
    Ready,
}

/// How often it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Once,
    AtMost(usize),
}

/// What is still to be said, in its order.
#[derive(Debug)]
pub struct Script(VecDeque<(Speaker, Step, Times)>);

impl Script {
    /// The script for `plan`.
    pub fn of(plan: &Plan, held: &Held) -> Self {
        use Speaker::{Hop, Init};
        let hops = matches!(plan.entry, Entry::Hop { .. });
        let first = if hops { Hop } else { Init };
        let served = plan.process.console.is_some() && held.console_socket.is_none();
        let mut rows = Vec::new();
        let mut row = |applies: bool, speaker, step, times| {
            if applies {
                rows.push((speaker, step, times));
            }
        };
        row(held.asks_for_cgroup, first, Step::JoinCgroup, Times::Once);
        // `exec`: the hop has the rights that opening a terminal may need.
        row(served && plan.root.is_none(), first, Step::Console, Times::Once);
        row(hops, Hop, Step::Born, Times::Once);
        row(plan.maps.is_some() && plan.namespaces.made(Kind::User), Init, Step::MapIds, Times::Once);
        if let Some(root) = &plan.root {
            let mapped = root.mounts.id_mapped();
            row(mapped > 0, Init, Step::MapMount, Times::AtMost(mapped));
            row(plan.parent_acts_before_pivot(), Init, Step::RunHooks, Times::Once);
            row(served, Init, Step::Console, Times::Once);
        }
        row(!plan.process.rlimits.is_empty(), Init, Step::SetLimits, Times::AtMost(1));
        row(plan.process.has_agent(), Init, Step::SeccompFd, Times::Once);
        row(true, Init, Step::Ready, Times::Once);
        Self(rows.into())
    }

    /// Whether the hop has yet to say which process init is.
    pub fn hop_speaks(&self) -> bool {
        self.0.front().is_some_and(|(speaker, ..)| *speaker == Speaker::Hop)
    }

    /// Takes `event` of `speaker`, if this is its place.
    ///
    /// # Errors
    /// It is not: the conversation must end.
    pub fn accept(&mut self, speaker: Speaker, event: &Event) -> Result<()> {
        let Some(step) = step_of(event) else { return Ok(()) };
        let due = self.0.iter().position(|(_, _, times)| *times == Times::Once);
        let found = self.0.iter().position(|(who, due, _)| (*who, *due) == (speaker, step));
        let place = match (found, due) {
            (Some(place), Some(due)) if place <= due => place,
            (Some(place), None) => place,
            (_, due) => {
                let due = due.and_then(|due| self.0.get(due));
                bail!("message from {speaker:?}: {step:?} where {due:?} is due");
            }
        };
        // What was not said until now need not come any more.
        self.0.drain(..place);
        match self.0.front_mut() {
            Some((_, _, Times::AtMost(left @ 2..))) => *left -= 1,
            _ => drop(self.0.pop_front()),
        }
        Ok(())
    }
}

/// The step of an event; a failure and a line for the log may come at any time.
fn step_of(event: &Event) -> Option<Step> {
    Some(match event {
        Event::Born { .. } => Step::Born,
        Event::JoinCgroup => Step::JoinCgroup,
        Event::MapIds => Step::MapIds,
        Event::MapMount { .. } => Step::MapMount,
        Event::RunHooks => Step::RunHooks,
        Event::Console => Step::Console,
        Event::SetLimits => Step::SetLimits,
        Event::SeccompFd { .. } => Step::SeccompFd,
        Event::Ready => Step::Ready,
        Event::Failed(_) | Event::Log { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Failure;

    fn script(rows: &[(Speaker, Step, Times)]) -> Script {
        Script(rows.iter().copied().collect())
    }

    #[test]
    fn what_is_due_is_accepted_once_and_from_its_speaker() {
        let rows = [
            (Speaker::Hop, Step::Born, Times::Once),
            (Speaker::Init, Step::MapMount, Times::AtMost(2)),
            (Speaker::Init, Step::SetLimits, Times::AtMost(1)),
            (Speaker::Init, Step::Ready, Times::Once),
        ];
        let born = Event::Born { pid: 7 };
        assert!(script(&rows).accept(Speaker::Init, &born).is_err(), "init cannot name itself");
        assert!(script(&rows).accept(Speaker::Init, &Event::Ready).is_err(), "nobody is ready before birth");
        let mut script = script(&rows);
        assert!(script.hop_speaks());
        script.accept(Speaker::Hop, &born).unwrap();
        assert!(!script.hop_speaks());
        assert!(script.accept(Speaker::Hop, &born).is_err(), "born twice");
        for mount in [0, 1] {
            script.accept(Speaker::Init, &Event::MapMount { mount }).unwrap();
        }
        assert!(script.accept(Speaker::Init, &Event::MapMount { mount: 2 }).is_err());
    }

    #[test]
    fn what_need_not_come_may_be_left_out_and_does_not_come_later() {
        let rows =
            [(Speaker::Init, Step::SetLimits, Times::AtMost(1)), (Speaker::Init, Step::Ready, Times::Once)];
        let mut script = script(&rows);
        script.accept(Speaker::Init, &Event::Ready).unwrap();
        assert!(script.accept(Speaker::Init, &Event::SetLimits).is_err());
        assert!(script.accept(Speaker::Init, &Event::Ready).is_err(), "ready twice");
        let failure = Event::Failed(Failure { chain: Vec::new(), errno: None, cgroup_refused: false });
        script.accept(Speaker::Init, &failure).unwrap();
    }
}
