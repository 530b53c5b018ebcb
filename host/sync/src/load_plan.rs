//! Decides where a sync begins to read, and how its rows are loaded. `run.rs` collects the facts and executes the
//! plans.

use larder_model::model::WriteMode;
use larder_source::SourceProperties;
use larder_store::{InterruptedLoad, LoadMode};

/// The position at which a sync begins to read. If the source no longer has the position, the sync begins at
/// [`Begin::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At the position of the previous sync.
    Continue,
    /// At the position of an interrupted full read.
    Resume,
    /// At the start of the source.
    Start,
    /// At the start of the source, to read rows that were skipped because they were from the future. The stored
    /// position does not change.
    DueRows,
}

/// The facts about a view, its source and a sync that decide how the source is read.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) begin: Begin,
    /// Whether the sync reads only a range of event times.
    pub(super) is_windowed: bool,
    pub(super) mode: WriteMode,
    pub(super) source: SourceProperties,
    /// The stored position of the previous sync.
    pub(super) position: Option<String>,
    /// An interrupted full read, if there is one.
    pub(super) interrupted: Option<InterruptedLoad>,
    /// Whether the view has never had a row or a sync.
    pub(super) is_empty: bool,
    /// Whether the whole source must be read again, because rows from the future were stored, or because skipped rows
    /// are due now and the source cannot be read by event time.
    pub(super) must_reread: bool,
}

/// Where to begin to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadPlan {
    /// The position to read from; `None` for the start of the source.
    pub(super) from: Option<String>,
    /// The interrupted read that `from` belongs to.
    resumed: Option<Interrupted>,
    /// Whether the read includes rows that earlier syncs skipped because they were from the future.
    pub(super) reads_postponed: bool,
}

/// The kind of an interrupted full read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupted {
    /// The first load of a view.
    First,
    /// A load that replaces the view.
    Replace,
}

/// How the rows of a read are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadPlan {
    /// The mode of a new load.
    pub(super) mode: LoadMode,
    /// Whether to resume the interrupted load instead of beginning a new one.
    pub(super) resumes: bool,
}

// === impl Begin ===

impl Begin {
    /// Returns where to begin instead if the source no longer has the position; `None` if there is no other way to
    /// begin.
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Continue => Some(Self::Resume),
            Self::Resume => Some(Self::Start),
            Self::Start | Self::DueRows => None,
        }
    }
}

// === impl Facts ===

impl Facts {
    /// Returns the stored position if the sync may skip everything before it.
    pub(super) fn usable_position(&self) -> Option<&str> {
        let is_usable = self.begin == Begin::Continue && !self.is_windowed && !self.must_reread;
        self.position.as_deref().filter(|_| is_usable)
    }

    /// Decides where to begin to read.
    pub(super) fn read_plan(&self) -> ReadPlan {
        // A load that replaces a view always reads its files from the start.
        let position = self.usable_position().filter(|_| self.mode != WriteMode::Replace);
        let may_resume = position.is_none() && self.begin != Begin::Start;
        let can_resume =
            |interrupted: &&InterruptedLoad| if interrupted.is_first { self.upserts() } else { self.source.resumes };
        let interrupted = self.interrupted.as_ref().filter(|_| may_resume).filter(can_resume);
        let resumed =
            interrupted.map(|interrupted| if interrupted.is_first { Interrupted::First } else { Interrupted::Replace });
        let from = position.or(interrupted.map(|interrupted| &*interrupted.position)).map(str::to_owned);
        // A full read includes the rows that earlier syncs skipped.
        let reads_postponed = self.begin == Begin::DueRows || (!self.is_windowed && from.is_none());
        ReadPlan { from, resumed, reads_postponed }
    }

    /// Decides how the rows of a read are loaded. `is_whole` says whether the read returns all rows of the source.
    /// `is_large` says whether the read has so many rows that a first load is not served until it ends.
    pub(super) fn load_plan(&self, read: &ReadPlan, is_whole: bool, is_large: bool) -> LoadPlan {
        // A read of a range of event times only adds rows. It cannot replace the rows outside the range, because it
        // does not contain them.
        let replaces = (self.mode == WriteMode::Replace || is_whole) && !self.is_windowed;
        let was_first = read.resumed == Some(Interrupted::First);
        let is_first = !replaces && self.upserts() && (was_first || (self.is_empty && is_large));
        let mode = match (replaces, is_first) {
            (true, _) => LoadMode::Replace,
            (false, true) => LoadMode::First,
            (false, false) => LoadMode::Upsert,
        };
        let resumes = match read.resumed {
            Some(Interrupted::First) => is_first,
            Some(Interrupted::Replace) => replaces,
            None => false,
        };
        LoadPlan { mode, resumes }
    }

    /// Returns whether the sync adds rows of the whole source to the view by event time: the view is not replaced, the
    /// sync is not limited to a range of event times, and the source is not a change stream. A change stream begins
    /// with a full read that replaces the view.
    fn upserts(&self) -> bool {
        self.mode == WriteMode::Upsert && !self.is_windowed && !self.source.last_put_wins
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FILES: SourceProperties =
        SourceProperties { last_put_wins: false, resumes: false, has_windows: true, time_unit: None, poll_every: None };
    const TABLE: SourceProperties = SourceProperties {
        last_put_wins: true,
        resumes: true,
        has_windows: false,
        time_unit: Some(1),
        poll_every: Some(Duration::from_secs(1)),
    };

    /// Returns the facts about a view from files that was synced before.
    fn facts() -> Facts {
        Facts {
            begin: Begin::Continue,
            is_windowed: false,
            mode: WriteMode::Upsert,
            source: FILES,
            position: Some("stored".to_owned()),
            interrupted: None,
            is_empty: false,
            must_reread: false,
        }
    }

    fn interrupted(is_first: bool) -> Option<InterruptedLoad> {
        Some(InterruptedLoad { position: "interrupted".to_owned(), is_first })
    }

    fn empty() -> Facts {
        Facts { position: None, is_empty: true, ..facts() }
    }

    #[test]
    fn read_plan_starts_at_usable_position() {
        let stored = Some("stored");
        let resumed = Some("interrupted");
        for (what, facts, usable, from, reads_postponed) in [
            ("files, synced before", facts(), stored, stored, false),
            ("files, never synced", empty(), None, None, true),
            ("a full sync", Facts { begin: Begin::Start, ..facts() }, None, None, true),
            ("rows that must be read again", Facts { must_reread: true, ..facts() }, None, None, true),
            ("a range of event times", Facts { is_windowed: true, ..facts() }, None, None, false),
            ("skipped rows", Facts { begin: Begin::DueRows, is_windowed: true, ..facts() }, None, None, true),
            ("a replaced view", Facts { mode: WriteMode::Replace, ..facts() }, stored, None, true),
            ("an interrupted first load", Facts { interrupted: interrupted(true), ..empty() }, None, resumed, false),
            (
                "the same, in full",
                Facts { interrupted: interrupted(true), begin: Begin::Start, ..empty() },
                None,
                None,
                true,
            ),
            (
                "the same, of a range",
                Facts { interrupted: interrupted(true), is_windowed: true, ..empty() },
                None,
                None,
                false,
            ),
            ("an interrupted load of files", Facts { interrupted: interrupted(false), ..empty() }, None, None, true),
            (
                "an interrupted scan",
                Facts { interrupted: interrupted(false), source: TABLE, ..empty() },
                None,
                resumed,
                false,
            ),
            (
                "a stored position goes first",
                Facts { interrupted: interrupted(false), source: TABLE, ..facts() },
                stored,
                stored,
                false,
            ),
            (
                "a lost position",
                Facts { interrupted: interrupted(false), source: TABLE, begin: Begin::Resume, ..facts() },
                None,
                resumed,
                false,
            ),
        ] {
            assert_eq!(facts.usable_position(), usable, "{what}");
            let plan = facts.read_plan();
            assert_eq!((plan.from.as_deref(), plan.reads_postponed), (from, reads_postponed), "{what}");
        }
    }

    #[test]
    fn load_mode_follows_view_and_read() {
        let table = || Facts { source: TABLE, ..facts() };
        for (what, facts, is_whole, is_large, mode, resumes) in [
            ("more rows of files", facts(), false, true, LoadMode::Upsert, false),
            ("a large first load", empty(), false, true, LoadMode::First, false),
            ("a small first load", empty(), false, false, LoadMode::Upsert, false),
            ("a replaced view", Facts { mode: WriteMode::Replace, ..facts() }, false, false, LoadMode::Replace, false),
            ("a range of event times", Facts { is_windowed: true, ..empty() }, false, true, LoadMode::Upsert, false),
            (
                "a range of a replaced view",
                Facts { is_windowed: true, mode: WriteMode::Replace, ..facts() },
                true,
                true,
                LoadMode::Upsert,
                false,
            ),
            ("a scan of a table", table(), true, true, LoadMode::Replace, false),
            ("changes of a table", table(), false, true, LoadMode::Upsert, false),
            (
                "the rest of a first load",
                Facts { interrupted: interrupted(true), ..empty() },
                false,
                false,
                LoadMode::First,
                true,
            ),
            (
                "the rest of a scan",
                Facts { interrupted: interrupted(false), position: None, ..table() },
                true,
                false,
                LoadMode::Replace,
                true,
            ),
            (
                "a scan that became changes",
                Facts { interrupted: interrupted(false), position: None, ..table() },
                false,
                false,
                LoadMode::Upsert,
                false,
            ),
        ] {
            let plan = facts.load_plan(&facts.read_plan(), is_whole, is_large);
            assert_eq!(plan, LoadPlan { mode, resumes }, "{what}");
        }
    }

    #[test]
    fn lost_positions_fall_back_to_start() {
        assert_eq!(Begin::Continue.next(), Some(Begin::Resume));
        assert_eq!(Begin::Resume.next(), Some(Begin::Start));
        assert_eq!((Begin::Start.next(), Begin::DueRows.next()), (None, None));
    }
}
