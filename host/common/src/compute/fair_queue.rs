//! A bounded queue of tasks whose owners take turns.
//!
//! The next task is one of the owner with the fewest running tasks, and among these, of the owner whose tasks used the
//! least time. An owner that had no tasks begins with the least time of the owners that have tasks, so it gets no credit
//! for the time without tasks. This is fair queuing with a virtual time (Demers, Keshav and Shenker, 1989). If the queue is
//! full, a new task displaces the newest task of the owner with the most waiting tasks, unless that is its own
//! owner. So an owner with many tasks neither delays nor displaces those of others.
//!
//! A running task may be paused. Its owner then takes its turn again with this task.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::Owner;

/// The queue. Each task that [`FairQueue::pop`] returns is running, until [`FairQueue::pause`] or [`FairQueue::finish`] is
/// called for it.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    owners: BTreeMap<Owner, Tasks<T>>,
    /// The number of waiting tasks.
    len: usize,
    /// The maximum number of waiting tasks.
    len_max: usize,
    /// The time with which an owner begins.
    reached: Duration,
    /// The number of the last paused task.
    pauses: u64,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// Start this task.
    Start(T),
    /// Resume the paused task with this number.
    Resume(u64),
}

/// The tasks of an owner.
#[derive(Debug)]
struct Tasks<T> {
    waiting: VecDeque<T>,
    /// The numbers of the paused tasks.
    paused: VecDeque<u64>,
    running: usize,
    /// The time that the tasks used, including the time with which the owner began.
    used: Duration,
}

// === impl FairQueue ===

impl<T> FairQueue<T> {
    pub(super) fn new(len_max: usize) -> Self {
        Self { owners: BTreeMap::new(), len: 0, len_max, reached: Duration::ZERO, pauses: 0 }
    }

    /// Adds a task. Returns the tasks that it displaced. If the queue is full, these are the abandoned ones, or else one.
    ///
    /// # Errors
    /// The task itself, if the queue is full and no other owner has more waiting tasks.
    pub(super) fn push(&mut self, owner: Owner, task: T, is_abandoned: impl Fn(&T) -> bool) -> Result<Vec<T>, T> {
        let mut displaced = Vec::new();
        if self.len >= self.len_max {
            for tasks in self.owners.values_mut() {
                let (abandoned, waiting) = tasks.waiting.drain(..).partition(&is_abandoned);
                tasks.waiting = waiting;
                displaced.extend::<VecDeque<T>>(abandoned);
            }
            self.len -= displaced.len();
        }
        if self.len >= self.len_max {
            let own = self.owners.get(&owner).map_or(0, |tasks| tasks.waiting.len());
            let longest = self.owners.values_mut().max_by_key(|tasks| tasks.waiting.len());
            // With a difference of one, the owners would displace each other's tasks in turn.
            let longest = longest.filter(|tasks| tasks.waiting.len() > own + 1);
            match longest.and_then(|tasks| tasks.waiting.pop_back()) {
                Some(newest) => displaced.push(newest),
                None => return Err(task),
            }
            self.len -= 1;
        }
        let busy = self.owners.iter().filter(|(other, tasks)| **other != owner && tasks.is_busy());
        self.reached = self.reached.max(busy.map(|(_, tasks)| tasks.used).min().unwrap_or_default());
        let reached = self.reached;
        let new = || Tasks { waiting: VecDeque::new(), paused: VecDeque::new(), running: 0, used: reached };
        let tasks = self.owners.entry(owner).or_insert_with(new);
        if !tasks.is_busy() {
            tasks.used = tasks.used.max(reached);
        }
        tasks.waiting.push_back(task);
        self.len += 1;
        Ok(displaced)
    }

    /// Takes the next task.
    pub(super) fn pop(&mut self) -> Option<(Owner, Turn<T>)> {
        let ready = self.owners.iter_mut().filter(|(_, tasks)| tasks.is_ready());
        let (owner, tasks) = ready.min_by_key(|(_, tasks)| (tasks.running, tasks.used))?;
        let turn = match tasks.paused.pop_front() {
            Some(paused) => Turn::Resume(paused),
            None => {
                self.len -= 1;
                Turn::Start(tasks.waiting.pop_front()?)
            }
        };
        tasks.running += 1;
        Some((*owner, turn))
    }

    /// Records that a running task of this owner used more time. Returns whether it is another owner's turn.
    pub(super) fn charge(&mut self, owner: Owner, used: Duration) -> bool {
        let Some(tasks) = self.owners.get_mut(&owner) else { return false };
        tasks.used += used;
        let own = (tasks.running.saturating_sub(1), tasks.used);
        let mut others = self.owners.iter().filter(|(other, tasks)| **other != owner && tasks.is_ready());
        others.any(|(_, tasks)| (tasks.running, tasks.used) < own)
    }

    /// Returns whether the next task is a paused one; `None` if there is no task.
    pub(super) fn next_is_paused(&self) -> Option<bool> {
        let ready = self.owners.values().filter(|tasks| tasks.is_ready());
        ready.min_by_key(|tasks| (tasks.running, tasks.used)).map(|tasks| !tasks.paused.is_empty())
    }

    /// Pauses a running task of this owner. Returns its number.
    pub(super) fn pause(&mut self, owner: Owner) -> u64 {
        self.pauses += 1;
        if let Some(tasks) = self.owners.get_mut(&owner) {
            tasks.running -= 1;
            tasks.paused.push_back(self.pauses);
        }
        self.pauses
    }

    /// Records that a task of this owner ended, and the time that it used.
    pub(super) fn finish(&mut self, owner: Owner, used: Duration) {
        if let Some(tasks) = self.owners.get_mut(&owner) {
            tasks.running -= 1;
            tasks.used += used;
        }
        // An owner that would begin with more time than it has used needs no entry.
        let reached = self.reached;
        self.owners.retain(|_, tasks| tasks.is_busy() || tasks.used > reached);
        if !self.owners.values().any(Tasks::is_busy) {
            self.owners.clear();
            self.reached = Duration::ZERO;
        }
    }
}

// === impl Tasks ===

impl<T> Tasks<T> {
    fn is_busy(&self) -> bool {
        self.running > 0 || self.is_ready()
    }

    /// Returns whether there is a task to start or to resume.
    fn is_ready(&self) -> bool {
        !self.waiting.is_empty() || !self.paused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn push(queue: &mut FairQueue<u32>, owner: Owner, task: u32) -> Result<Option<u32>, u32> {
        queue.push(owner, task, |_| false).map(|displaced| displaced.first().copied())
    }

    /// Runs the tasks one after the other. A task is the time that it uses, in milliseconds.
    fn run(queue: &mut FairQueue<u32>) -> Vec<u32> {
        let next = || {
            let (owner, Turn::Start(task)) = queue.pop()? else { panic!("no task is paused") };
            queue.finish(owner, MS * task);
            Some(task)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn tasks_of_one_owner_keep_their_order() {
        let (mut queue, owner) = (FairQueue::new(3), Owner::new());
        for task in [3, 1, 2] {
            assert_eq!(push(&mut queue, owner, task), Ok(None));
        }
        assert_eq!(push(&mut queue, owner, 4), Err(4), "the queue is full");
        assert_eq!(run(&mut queue), [3, 1, 2]);
        assert_eq!(push(&mut queue, owner, 5), Ok(None), "the queue is empty again");
    }

    #[test]
    fn owners_get_equal_time() {
        let (mut queue, [slow, quick]) = (FairQueue::new(100), [Owner::new(), Owner::new()]);
        (0..5).for_each(|_| assert_eq!(push(&mut queue, slow, 10), Ok(None)));
        (0..25).for_each(|_| assert_eq!(push(&mut queue, quick, 1), Ok(None)));
        let order = run(&mut queue);
        let before_slow: Vec<usize> =
            order.iter().enumerate().filter(|(_, task)| **task == 10).map(|(at, _)| at).collect();
        assert_eq!(before_slow, [0, 11, 22, 28, 29], "{order:?}");
    }

    #[test]
    fn idle_owner_saves_up_no_time() {
        let (mut queue, [first, second]) = (FairQueue::new(100), [Owner::new(), Owner::new()]);
        (0..20).for_each(|_| assert_eq!(push(&mut queue, first, 10), Ok(None)));
        for _ in 0..10 {
            assert_eq!(queue.pop(), Some((first, Turn::Start(10))));
            queue.finish(first, 10 * MS);
        }
        // The first owner has used 100 ms, the second one nothing.
        (0..10).for_each(|_| assert_eq!(push(&mut queue, second, 11), Ok(None)));
        let order = run(&mut queue);
        assert!(order[..4].contains(&10) && order[..4].contains(&11), "{order:?}");
    }

    #[test]
    fn running_tasks_leave_threads_to_other_owners() {
        let (mut queue, [first, second]) = (FairQueue::new(100), [Owner::new(), Owner::new()]);
        (0..3).for_each(|_| assert_eq!(push(&mut queue, first, 1), Ok(None)));
        assert_eq!(queue.pop(), Some((first, Turn::Start(1))));
        assert_eq!(push(&mut queue, second, 2), Ok(None));
        assert_eq!(queue.pop(), Some((second, Turn::Start(2))), "no task of this owner is running");
        assert_eq!(queue.pop(), Some((first, Turn::Start(1))));
        queue.finish(second, MS);
        assert_eq!(push(&mut queue, second, 3), Ok(None));
        assert_eq!(queue.pop(), Some((second, Turn::Start(3))));
    }

    #[test]
    fn full_queue_displaces_newest_task() {
        let (mut queue, [first, second]) = (FairQueue::new(4), [Owner::new(), Owner::new()]);
        for task in 0..4 {
            assert_eq!(push(&mut queue, first, task), Ok(None));
        }
        assert_eq!(push(&mut queue, second, 10), Ok(Some(3)), "the newest task of the owner with the most tasks");
        assert_eq!(push(&mut queue, second, 11), Ok(Some(2)));
        assert_eq!(push(&mut queue, second, 12), Err(12), "both owners have the same number of tasks");
        assert_eq!(push(&mut queue, first, 4), Err(4));
        let mut left = run(&mut queue);
        left.sort_unstable();
        assert_eq!(left, [0, 1, 10, 11]);
    }

    #[test]
    fn owners_are_removed_when_idle() {
        let mut queue = FairQueue::new(4);
        for _ in 0..1_000 {
            assert_eq!(push(&mut queue, Owner::new(), 1), Ok(None));
            assert_eq!(run(&mut queue), [1]);
        }
        assert!(queue.owners.is_empty());
    }

    #[test]
    fn abandoned_tasks_are_displaced_first() {
        let (mut queue, [first, second]) = (FairQueue::new(2), [Owner::new(), Owner::new()]);
        assert_eq!((push(&mut queue, first, 1), push(&mut queue, first, 2)), (Ok(None), Ok(None)));
        assert_eq!(queue.push(first, 3, |task| *task == 2), Ok(vec![2]));
        assert_eq!(queue.push(second, 4, |task| *task == 1), Ok(vec![1]));
        assert_eq!(push(&mut queue, second, 5), Err(5));
        assert_eq!(run(&mut queue), [3, 4]);
    }

    #[test]
    fn paused_task_resumes_before_owners_next() {
        let (mut queue, [long, short]) = (FairQueue::new(4), [Owner::new(), Owner::new()]);
        assert_eq!((push(&mut queue, long, 1), push(&mut queue, long, 2)), (Ok(None), Ok(None)));
        assert_eq!(queue.pop(), Some((long, Turn::Start(1))));
        assert!(!queue.charge(long, 10 * MS), "no other owner has tasks");
        assert_eq!(push(&mut queue, short, 3), Ok(None));
        assert!(queue.charge(long, 10 * MS));
        let paused = queue.pause(long);
        assert_eq!(queue.pop(), Some((short, Turn::Start(3))));
        queue.finish(short, MS);
        assert_eq!(queue.pop(), Some((long, Turn::Resume(paused))), "before the next task of the owner");
        queue.finish(long, MS);
        assert_eq!(queue.pop(), Some((long, Turn::Start(2))));
        // Both owners have used the same time.
        assert_eq!(push(&mut queue, short, 4), Ok(None));
        assert!(!queue.charge(long, Duration::ZERO), "{queue:?}");
        assert!(queue.charge(long, MS));
    }

    #[test]
    fn later_owner_gets_no_credit() {
        let (mut queue, [long, short]) = (FairQueue::new(100), [Owner::new(), Owner::new()]);
        assert_eq!(push(&mut queue, long, 1), Ok(None));
        assert_eq!(queue.pop(), Some((long, Turn::Start(1))));
        // The owner uses ten seconds while no other one has tasks.
        assert!(!queue.charge(long, 10_000 * MS));
        (0..10).for_each(|_| assert_eq!(push(&mut queue, short, 2), Ok(None)));
        assert!(queue.charge(long, MS));
        let paused = queue.pause(long);
        assert_eq!(queue.pop(), Some((short, Turn::Start(2))));
        queue.finish(short, 5 * MS);
        assert_eq!(queue.pop(), Some((long, Turn::Resume(paused))));
    }
}
