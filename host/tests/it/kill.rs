//! Kills the real program with SIGKILL at random times during a sync. Afterwards, the store is consistent, and the next
//! sync completes the load.

use std::{
    io::Read,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{
    dice::Dice,
    generations::{Generations, Stored, VIEWS, is_read_whole, rows_at, rows_of},
};

const SEED: u64 = 0x1a4d_e4ed;
/// The maximum number of rounds. Each round assumes a longer duration of a sync than the round before.
const ROUNDS_MAX: usize = 4;

/// The number of kills in each phase of a sync.
#[derive(Debug, Default)]
struct Hits {
    /// Before the first commit of a sync.
    before: usize,
    /// Between two commits of the upserting load.
    upserting: usize,
    /// After the upserting load was complete, but before the replacing load was complete.
    replacing: usize,
    /// After both loads were complete.
    after: usize,
}

/// The two ways to run a sync.
#[derive(Clone, Copy, Debug)]
enum Way {
    Sync,
    Serve,
}

#[test]
fn kill_leaves_consistent_resumable_rows() {
    // Set `LARDER_KILLS=1000` for a long run.
    let kills = std::env::var("LARDER_KILLS").map_or(50, |kills| kills.parse().unwrap());
    let world = Generations::new();
    let mut whole_run = measure();
    let mut dice = Dice(SEED);
    let mut hits = Hits::default();
    let mut generation = 1;
    world.write(generation);
    for kill in 0..ROUNDS_MAX * kills {
        if kill > 0 && kill % kills == 0 {
            if hits.are_everywhere(kills) {
                break;
            }
            // If other tests use the same cores, a sync takes longer than the measured one.
            whole_run = whole_run * 3 / 2;
        }
        let moment = moment(&mut dice, kill % kills, kills, whole_run);
        let way = if dice.below(2) == 0 { Way::Sync } else { Way::Serve };
        let context = format!("kill {kill} of seed {SEED:#x}: {way:?}, {moment:?} of {whole_run:?}");
        let said = run_and_kill(&world, way, moment);
        let stored = reopen(&world, &context);
        check(&stored, generation, &context);
        for (view, stored) in VIEWS.iter().zip(&stored) {
            let is_reported = said.contains(&format!("{view}: "));
            assert!(!is_reported || is_read_whole(view, &stored.read), "{context}: {view} was reported as synced");
        }
        let complete = hits.count(&stored);
        // A new generation is written when the current one is complete, and otherwise with a probability of one half,
        // so that the syncs of some generations are killed several times.
        if complete || dice.below(2) == 0 {
            converge(&world, generation, &context);
            generation += 1;
            world.write(generation);
        }
    }
    println!("kills over {generation} generations of {whole_run:?}: {hits:?}");
    assert!(hits.are_everywhere(kills), "too few kills hit a load, of {whole_run:?}: {hits:?}");
}

/// Returns how long a complete sync takes, including the start of the process.
fn measure() -> Duration {
    let world = Generations::new();
    world.write(1);
    let started = Instant::now();
    world.home.run(["sync"]).assert_code(0);
    started.elapsed()
}

/// Returns the time of a kill. The duration of a sync is divided into `kills` equal parts. Each kill of a round is at a
/// random time in a different part, and the order of the parts is mixed.
fn moment(dice: &mut Dice, kill: usize, kills: usize, whole_run: Duration) -> Duration {
    // A stride that is coprime to the number of parts selects each part once.
    let stride = (kills * 5 / 8..).find(|&stride| greatest_common_divisor(stride, kills) == 1).unwrap_or(1);
    let part = kill * stride % kills;
    let within = f64::from(u32::try_from(dice.below(1_000)).unwrap()) / 1_000.0;
    whole_run.mul_f64((f64::from(u32::try_from(part).unwrap()) + within) / f64::from(u32::try_from(kills).unwrap()))
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Starts a sync and kills it; returns its standard output.
fn run_and_kill(world: &Generations, way: Way, moment: Duration) -> String {
    let command = match way {
        Way::Sync => "sync",
        Way::Serve => "serve",
    };
    let started = Instant::now();
    let mut child: Child = world.home.larder([command]).spawn().unwrap();
    thread::sleep(moment.saturating_sub(started.elapsed()));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

/// Opens the store as the next start of a server does, and reads all rows.
fn reopen(world: &Generations, context: &str) -> [Stored; 2] {
    let started = Instant::now();
    let store = world.open();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{context}: opening took {took:?}");
    assert!(store.quarantined().is_none(), "{context}: {:?}", store.quarantined());
    world.stored(&store)
}

/// Checks that rows up to the stored position are of the new generation, and that all other rows are of the previous
/// generation.
fn check([upserted, replaced]: &[Stored; 2], generation: u64, context: &str) {
    let expected = rows_at(VIEWS[0], generation, &upserted.read);
    assert!(upserted.rows == expected, "{context}: {} at {:?}", difference(&upserted.rows, &expected), upserted.read);

    let loaded = is_read_whole(VIEWS[1], &replaced.read);
    assert!(loaded || replaced.read.iter().all(|read| *read == 0), "{context}: partly read: {:?}", replaced.read);
    let expected = rows_of(VIEWS[1], if loaded { generation } else { generation - 1 });
    assert!(replaced.rows == expected, "{context}: {}", difference(&replaced.rows, &expected));
}

fn converge(world: &Generations, generation: u64, context: &str) {
    let synced = world.home.run(["sync"]);
    assert_eq!(synced.code, Some(0), "{context}: {}{}", synced.out, synced.err);
    let stored = reopen(world, context);
    for (view, stored) in VIEWS.iter().zip(&stored) {
        let expected = rows_of(view, generation);
        assert!(stored.rows == expected, "{context}: after a sync {}", difference(&stored.rows, &expected));
        assert!(is_read_whole(view, &stored.read), "{context}: after a sync {:?}", stored.read);
    }
}

fn difference(found: &[Option<u64>], expected: &[Option<u64>]) -> String {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected).unwrap();
    format!("account {differs} has generation {:?}, not {:?}", found[differs], expected[differs])
}

// === impl Hits ===

impl Hits {
    /// Returns whether enough kills happened during each of the two loads.
    fn are_everywhere(&self, kills: usize) -> bool {
        self.upserting >= kills / 10 && self.replacing >= kills / 20
    }

    /// Counts a kill in the phase that the stored state shows. Returns whether both loads were complete.
    fn count(&mut self, [upserted, replaced]: &[Stored; 2]) -> bool {
        let replaced = is_read_whole(VIEWS[1], &replaced.read);
        let hit = match upserted.read.iter().sum() {
            0_u64 => &mut self.before,
            _ if !is_read_whole(VIEWS[0], &upserted.read) => &mut self.upserting,
            _ if !replaced => &mut self.replacing,
            _ => &mut self.after,
        };
        *hit += 1;
        replaced
    }
}
