//! Many containers, one after another and side by side. The test looks for leftovers after each one and at the end.

use std::sync::Mutex;

use crate::support::Bundle;

/// Only one of these tests runs at a time, because each measures how its own containers compete.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn two_hundred_in_a_row_leave_nothing() {
    let _alone = ALONE.lock();
    for _ in 0..200 {
        Bundle::new().run().prints("1");
    }
}

#[test]
fn fifty_side_by_side_leave_nothing() {
    let _alone = ALONE.lock();
    let running: Vec<_> =
        (0..50).map(|_| Bundle::new()).map(|bundle| (bundle.start("run"), bundle)).collect();
    for (running, bundle) in running {
        running.finish().prints("1");
        bundle.assert_clean();
    }
}

#[test]
fn fifty_alive_at_once_are_started_listed_and_deleted() {
    let _alone = ALONE.lock();
    let containers: Vec<_> = (0..50).map(|_| Bundle::new().started()).collect();
    for container in &containers {
        assert_eq!(container.status(), "running");
    }
    for container in containers {
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    }
}

#[test]
fn of_many_creators_of_one_id_exactly_one_wins() {
    let _alone = ALONE.lock();
    let bundle = Bundle::new().guest("pause");
    let running: Vec<_> = (0..10).map(|_| bundle.start("create")).collect();
    let outputs: Vec<_> = running.into_iter().map(|one| one.finish()).collect();
    let won = outputs.iter().filter(|output| output.code == 0).count();
    assert_eq!(won, 1, "{outputs:?}");
    bundle.call(&["start", &bundle.id]).ok();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_clean();
}

#[test]
fn of_many_starters_exactly_one_wins() {
    let _alone = ALONE.lock();
    let container = Bundle::new().guest("pause").container();
    let start = |_| {
        crate::support::begin(container.bundle.command(&["start", container.id()]), &container.bundle.dir)
    };
    let running: Vec<_> = (0..5).map(start).collect();
    let won = running.into_iter().map(|one| one.finish()).filter(|output| output.code == 0).count();
    assert_eq!(won, 1);
    assert_eq!(container.status(), "running");
}
