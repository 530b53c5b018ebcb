//! The store's tests, against real files in temporary directories.
//!
//! * [`model`]: the fixture, and the naive reference model with which results are compared;
//! * [`merge`]: which row wins, and that rows and position are committed together;
//! * [`replace`]: loads that build a new generation while the old one is served;
//! * [`runs`]: the sorted runs from which these loads build a generation, and their merge;
//! * [`put`]: rows that callers write;
//! * [`race`]: readers that race with commits;
//! * [`evolution`]: definitions that change while rows are stored;
//! * [`faults`]: damage, concurrent owners, full disks;
//! * [`repair`]: damage that is repaired without a restart, missing files;
//! * [`erase`]: rows that are removed on request;
//! * [`times`]: nanoseconds, times that a source truncates, rows from the future;
//! * [`working_set`]: views that store only some of their rows;
//! * [`kill`]: processes that are killed with SIGKILL at random moments.

mod erase;
mod evolution;
mod faults;
mod kill;
mod merge;
mod model;
mod put;
mod race;
mod repair;
mod replace;
mod runs;
mod times;
mod working_set;
