//! create, start, run, state, kill, delete, list, ps, pause, resume.

use crate::support::Bundle;

#[test]
fn run_gives_the_output_of_the_process() {
    Bundle::new().guest("pid").run().prints("1");
}

#[test]
fn a_container_lives_from_create_to_delete() {
    let container = Bundle::new().guest("pause").container();
    assert_eq!(container.status(), "created");
    container.start();
    assert_eq!(container.status(), "running");
    container.exec(&[], "pid").ok();
    container.stop();
    container.delete();
}
