//! Many containers at a time, whose commands are killed at random moments. This finds what no count of calls can
//! meet.

use crate::Options;
use crate::host::{Bundle, Who};
use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A command is killed with this probability, in percent,
const KILLED: u64 = 30;
/// within this time.
const WITHIN: u64 = 8_000;

pub fn run(options: &Options) -> Result<i32> {
    let containers = options.number("containers", 600)?;
    let parallel = options.number("parallel", 4)?.max(1);
    let seed = options.number("seed", crate::any_number())?.max(1);
    let runtime = options.runtime()?;
    println!("stress: {containers} containers, {parallel} at a time, --seed {seed}");
    let (next, killed, left) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let worker = |number: u64| -> Result<()> {
        let bundle = Bundle::new(&runtime, Who::Root)?;
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1));
        loop {
            let serial = next.fetch_add(1, Ordering::Relaxed);
            if serial >= containers {
                return Ok(());
            }
            let id = format!("stress-{}-{serial:06}", std::process::id());
            for words in
                [&["create"][..], &["start"], &["exec"], &["pause"], &["resume"], &["kill"], &["delete"]]
            {
                killed.fetch_add(u64::from(one(&bundle, &id, words, &mut random)?), Ordering::Relaxed);
            }
            let (code, _) = bundle.call(&["delete", "--force", &id])?;
            let err = std::fs::read_to_string(bundle.path("err"))?;
            let remains = bundle.leftovers_after(&id, Duration::from_millis(500));
            if code != 0 || !remains.is_empty() {
                left.fetch_add(1, Ordering::Relaxed);
                println!("  ! {id}: delete --force exits {code} ({}), left {remains:?}", err.trim());
                bundle.sweep(&id);
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..parallel).map(|number| scope.spawn(move || worker(number))).collect();
        for worker in workers {
            worker.join().ok().context("a worker panicked")??;
        }
        Ok(())
    })?;
    let (killed, left) = (killed.into_inner(), left.into_inner());
    println!("stress: {killed} commands killed, ids_left {left}");
    Ok(i32::from(left > 0 || killed == 0))
}

/// Runs one command, which may be killed on the way. Its output does not matter.
fn one(bundle: &Bundle, id: &str, words: &[&str], random: &mut Random) -> Result<bool> {
    let after: &[&str] = match words {
        ["exec"] => &["/guest", "pid"],
        ["kill"] => &["KILL"],
        _ => &[],
    };
    let line: Vec<&str> = words.iter().copied().chain([id]).chain(after.iter().copied()).collect();
    let line = bundle.line(&line);
    let (program, args) = line.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir(bundle.dir.path());
    if random.below(100) >= KILLED {
        bundle
            .finish_within(command, Duration::from_secs(30))?
            .with_context(|| format!("{words:?} hangs"))?;
        return Ok(false);
    }
    let mut child: Child = command.spawn()?;
    std::thread::sleep(Duration::from_micros(random.below(WITHIN)));
    let ended = child.try_wait()?.is_some();
    child.kill()?;
    child.wait()?;
    Ok(!ended)
}

/// xorshift64*: the same seed gives the same moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}
