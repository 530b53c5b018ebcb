//! Kills a process with SIGKILL at random moments. The store must then have the rows up to its stored position, and no
//! others.

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Write as _},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use larder_common::clock::ManualClock;

use super::model::{
    Change, Dice, Home, NOW, ReferenceStore, batch, child_args, child_dir, config, declare, load, run_in, tables,
    test_name, walk,
};
use crate::{LoadMode, OnlineStore, ViewId};

const SEED: u64 = 0x1a4d_e400;

/// The number of batches that the child upserts into the first view before it replaces the second and the third view
/// once. For the third view, it resumes an interrupted load of the previous child. The replacing loads consist of
/// several runs, and their merges of several transactions.
const UPSERTS: u64 = 3;
/// The number of rows in a run.
const RUN: usize = 8;

const VIEWS: [&str; 3] = ["upserted", "replaced", "resumed"];

/// Generates batch `n` of a view. The result is the same in the child and in the test.
fn changes(view: ViewId, n: u64) -> Vec<Change> {
    let mut dice = Dice(SEED ^ (n << 8) ^ u64::from(view.0));
    let mut any = |_| Change {
        id: u8::try_from(dice.below(200)).unwrap(),
        event: i64::try_from(dice.below(10) + n).unwrap(),
        created: None,
        value: i64::try_from(dice.below(1_000)).unwrap(),
    };
    (0..40).map(&mut any).collect()
}

fn position(store: &OnlineStore, view: ViewId) -> u64 {
    store.status(view).unwrap().position.map_or(0, |position| position.parse().unwrap())
}

#[test]
fn child_loads_until_killed() {
    let Some(dir) = child_dir() else { return };
    let say = |what: &str, n: u64| {
        // One unbuffered write per line, so that no reported step is lost when the child is killed.
        let mut line = String::new();
        writeln!(line, "{what} {n}").unwrap();
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    say("opening", 0);
    let store = OnlineStore::open(&config(&dir, 1 << 20), ManualClock::at(NOW)).unwrap();
    let [upserted, replaced, resumed] = declare(&store, VIEWS);
    loop {
        let mut load = store.begin_load(upserted, LoadMode::Upsert).unwrap();
        for _ in 0..UPSERTS {
            let n = position(&store, upserted) + 1;
            load.apply(&batch(&changes(upserted, n)), Some(&n.to_string())).unwrap();
            say("upserted", n);
        }
        let n = position(&store, replaced) + 1;
        let mut load = store.begin_load(replaced, LoadMode::Replace).unwrap();
        for run in changes(replaced, n).chunks(RUN) {
            load.apply(&batch(run), Some("never seen")).unwrap();
        }
        load.finish(Some(&n.to_string())).unwrap();
        say("replaced", n);
        let n = position(&store, resumed) + 1;
        let (mut load, read) = match store.interrupted(resumed) {
            Some(interrupted) => (store.resume_load(resumed).unwrap(), interrupted.position.parse().unwrap()),
            None => (store.begin_load(resumed, LoadMode::Replace).unwrap(), 0),
        };
        for (read, run) in changes(resumed, n).chunks(RUN).enumerate().skip(read) {
            load.apply(&batch(run), Some(&(read + 1).to_string())).unwrap();
            say("reading", read as u64);
        }
        if read > 0 {
            say("resumed from", read as u64);
        }
        load.finish(Some(&n.to_string())).unwrap();
        say("resumed", n);
    }
}

#[test]
fn killed_store_matches_its_position() {
    // Set `LARDER_KILLS=200` to run the test longer.
    let kills = std::env::var("LARDER_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let home = Home::new();
    let [upserted, replaced, resumed] = declare(&home.open(), VIEWS);
    let mut dice = Dice(SEED);
    let mut reference = ReferenceStore::default();
    let (mut applied, mut generations, mut resumed_loads) = (0, [0; 2], 0);
    for kill in 1..=kills {
        let test = test_name!(child_loads_until_killed);
        let mut child = run_in(home.path(), child_args(&test)).stdout(Stdio::piped()).spawn().unwrap();
        let (mut said_upserted, mut said_built) = (applied, generations);
        let mut listen = |line: io::Result<String>| {
            let line = line.unwrap();
            let mut words = line.split(' ').rev();
            let (n, what) = (words.next().unwrap().parse().unwrap_or(0), words.next().unwrap_or("").to_owned());
            match what.as_str() {
                "upserted" => said_upserted = n,
                "replaced" => said_built[0] = n,
                "resumed" => said_built[1] = n,
                "from" => resumed_loads += 1,
                _ => {}
            }
            what
        };
        // One child in five is killed soon after it begins to open the store. The others are killed after they reported
        // a certain step, so that every kind of load both progresses and is interrupted, even on a slow machine.
        let until = ["opening", "replaced", "upserted", "resumed", "reading"][kill % 5];
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| listen(line) == until), "kill {kill}: the child ended before");
        if until != "reading" {
            thread::sleep(Duration::from_millis(1 + dice.below(60)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| _ = listen(line));

        if kill / 4 % 2 == 0 {
            // Without the marker, the next process does not check the whole file, as if the child had lived longer.
            let _ = fs::remove_file(home.marker());
        }
        let opening = Instant::now();
        let store = home.open();
        let took = opening.elapsed();
        let context = format!("kill {kill} of seed {SEED:#x}");
        assert!(took < Duration::from_secs(2), "{context}: opening took {took:?}");
        assert!(store.quarantined().is_none(), "{context}: {:?}", store.quarantined());

        // The store must have the reported commits, and at most one more.
        let stored = position(&store, upserted);
        assert!(
            (said_upserted..=said_upserted + 1).contains(&stored),
            "{context}: {said_upserted} said, {stored} stored"
        );
        for n in applied + 1..=stored {
            reference.apply(&changes(upserted, n));
        }
        assert!(walk(&store, upserted) == reference.rows(), "{context}: rows are not those of position {stored}");
        applied = stored;

        for ((view, said), generation) in [replaced, resumed].into_iter().zip(said_built).zip(&mut generations) {
            let stored = position(&store, view);
            assert!((said..=said + 1).contains(&stored), "{context}: {said} said, {stored} stored");
            let mut reference = ReferenceStore::default();
            if stored > 0 {
                reference.apply(&changes(view, stored));
            }
            assert!(walk(&store, view) == reference.rows(), "{context}: rows are not those of generation {stored}");
            *generation = stored;
        }
    }
    println!("{kills} kills over {applied} upserts and {generations:?} replacing loads, {resumed_loads} resumed");
    assert!(
        applied >= kills as u64 && generations.iter().all(|generation| *generation >= kills as u64 / 5),
        "{applied} upserts, {generations:?} replacing loads"
    );
    assert!(resumed_loads >= kills / 10, "{resumed_loads} loads resumed after a kill");
    // The next loads delete the rows of the interrupted ones.
    for view in [replaced, resumed] {
        load(&home.open(), view, LoadMode::Replace, &changes(view, 0));
    }
    let tables = tables(&home);
    assert!(!tables.iter().any(|table| table.starts_with("run/")), "{tables:?}");
    assert_eq!(tables.len(), 5, "meta, views, and one of each view: {tables:?}");
}

#[test]
fn unclosed_store_opens_without_scan() {
    let home = Home::new();
    let store = home.open();
    // A copy of the file while the store is open is the same as the file after a kill.
    let copy = home.path().join("copy.redb");
    let assert_needs_no_repair = |after: &str| {
        fs::copy(home.file(), &copy).unwrap();
        let opened = redb::Builder::new().set_repair_callback(redb::RepairSession::abort).open(&copy);
        assert!(opened.is_ok(), "after {after}: {:?}", opened.err());
    };
    assert_needs_no_repair("creation");
    let [view] = declare(&store, ["stats"]);
    assert_needs_no_repair("a declaration");
    let mut load = store.begin_load(view, LoadMode::Replace).unwrap();
    assert_needs_no_repair("the beginning of a load");
    load.apply(&batch(&changes(view, 1)), None).unwrap();
    assert_needs_no_repair("a batch");
    load.apply(&batch(&changes(view, 2)), None).unwrap();
    load.merge_runs(&mut || true).unwrap();
    assert_needs_no_repair("a merge");
    load.finish(None).unwrap();
    assert_needs_no_repair("the end of a load");
}
