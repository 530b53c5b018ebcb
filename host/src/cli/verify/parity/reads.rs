//! The reads of logged requests, and the evidence about them in the files.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    compute::{take, take_record_batch},
};
use larder_columns::Instants;
use larder_feature_log::{LOG_TIMESTAMP, TTL, ttl_name};
use larder_model::model::Micros;
use larder_serving::{Selection, TtlPolicy};

use super::{
    arrivals::Arrivals,
    compare::differing,
    recompute::{LateFiles, Offline, Question},
    rows::Rows,
};

/// A read of a view.
pub(super) struct Read {
    pub(super) view: Arc<str>,
    /// The features of the view that the service returns, or that derived views use, by their full names.
    pub(super) features: Vec<String>,
    /// The column of the log with the event times of the rows that the server read.
    pub(super) logged_times: String,
    /// Whether the read is for derived views.
    pub(super) is_input: bool,
}

/// The evidence about one read of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Whether the row of the files had not arrived, and the server read another row.
    pub(super) late: bool,
    /// Whether the row of the files had not arrived, and the server read a row with the same event time.
    pub(super) replaced: bool,
    pub(super) logged_time: Option<Micros>,
    pub(super) file_time: Option<Micros>,
    /// Whether the files have a row with the logged time.
    pub(super) in_files: bool,
    /// Whether the logged time is later than the request, and the files have a row with this time and the logged values.
    pub(super) future: bool,
}

/// The reads of all requests of a log.
pub(super) struct Reads<'a> {
    pub(super) reads: Vec<Read>,
    /// The policy for expired values of each row.
    pub(super) policies: Vec<TtlPolicy>,
    rows: &'a Rows<'a>,
    offline: &'a Offline<'a>,
}

pub(super) const POLICIES: [TtlPolicy; 3] = [TtlPolicy::Mark, TtlPolicy::Null, TtlPolicy::Ignore];

// === impl Reads ===

impl<'a> Reads<'a> {
    /// Reads the policy of each row.
    ///
    /// # Errors
    /// If a row has no policy.
    pub(super) fn new(rows: &'a Rows<'a>, offline: &'a Offline<'a>, reads: Vec<Read>) -> Result<Self> {
        let policy = |row| {
            let name = rows.logged.text(TTL, row).unwrap_or_default();
            POLICIES.into_iter().find(|policy| ttl_name(*policy) == name).with_context(|| {
                format!("column '{TTL}' has '{name}' in row {row}, expected one of mark, null, ignore")
            })
        };
        let policies = (0..rows.logged.rows.num_rows()).map(policy).collect::<Result<_>>()?;
        Ok(Self { reads, policies, rows, offline })
    }

    /// Computes the features of the service for all rows, with this policy.
    pub(super) fn compute_all(&self, policy: TtlPolicy) -> Result<RecordBatch> {
        let question =
            Question { selection: self.service(), time_column: LOG_TIMESTAMP, ttl: policy, unavailable: None };
        self.offline.compute(&question, &self.rows.entities)
    }

    /// Collects the evidence about the reads of these rows: for each row, in the order of [`Self::reads`].
    pub(super) fn evidence(&self, rows: &[usize]) -> Result<Vec<Vec<Evidence>>> {
        let mut evidence = vec![vec![Evidence::default(); self.reads.len()]; rows.len()];
        for (index, read) in self.reads.iter().enumerate() {
            // A log that was written with other definitions may lack the times.
            if !self.rows.logged.has(&read.logged_times) {
                continue;
            }
            let times = self.rows.logged.times(&read.logged_times)?;
            for (row, evidence) in rows.iter().zip(&mut evidence) {
                evidence[index].logged_time = times.micros(*row);
            }
        }
        self.find_late(rows, &mut evidence)?;
        self.find_in_files(rows, &mut evidence)?;
        Ok(evidence)
    }

    /// Sets the times of the rows in the files, and whether they are late.
    fn find_late(&self, rows: &[usize], evidence: &mut [Vec<Evidence>]) -> Result<()> {
        let catalog = &self.offline.project.definitions().catalog;
        let names: BTreeSet<&Arc<str>> = self.reads.iter().map(|read| &read.view).collect();
        let views = names.into_iter().filter_map(|name| catalog.view(name));
        let arrivals = Arrivals::new(views, self.rows.logged, self.offline)?;
        for policy in POLICIES {
            let positions: Vec<usize> =
                (0..rows.len()).filter(|position| self.policies[rows[*position]] == policy).collect();
            if positions.is_empty() {
                continue;
            }
            let of_policy: Vec<usize> = positions.iter().map(|position| rows[*position]).collect();
            // Rows with the same late files are computed together.
            let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
            for (index, row) in of_policy.iter().enumerate() {
                groups.entry(arrivals.available(*row)).or_default().push(index);
            }
            for is_input in [false, true] {
                let Some(selection) = self.selection(is_input) else { continue };
                let compute = |rows: &[usize], unavailable: Option<&LateFiles>| {
                    let question =
                        Question { selection: selection.clone(), time_column: LOG_TIMESTAMP, ttl: policy, unavailable };
                    self.offline.compute(&question, &take_record_batch(&self.rows.entities, &indexes(rows))?)
                };
                let whole = compute(&of_policy, None)?;
                let created = compute(&of_policy, Some(&LateFiles::new()))?;
                for (available, members) in &groups {
                    let late = arrivals.late(available);
                    let group: Vec<usize> = members.iter().map(|index| of_policy[*index]).collect();
                    let whole = take_record_batch(&whole, &indexes(members))?;
                    let created = take_record_batch(&created, &indexes(members))?;
                    let available = if late.values().all(BTreeSet::is_empty) {
                        created.clone()
                    } else {
                        compute(&group, Some(&late))?
                    };
                    for (index, read) in self.reads.iter().enumerate().filter(|(_, read)| read.is_input == is_input) {
                        let of_whole = event_times(&whole, read)?;
                        let of_available = event_times(&available, read)?;
                        let is_late = differs(read, &available, &whole)?;
                        let is_created_later = differs(read, &created, &whole)?;
                        let is_other = self.differs_from_log(read, &group, &available)?;
                        for (row, member) in members.iter().enumerate() {
                            let evidence = &mut evidence[positions[*member]][index];
                            let logged = evidence.logged_time;
                            evidence.file_time = of_whole.micros(row);
                            let was_available = logged == of_available.micros(row) && !is_other[row];
                            let has_proof = was_available || is_created_later[row] || logged != of_whole.micros(row);
                            evidence.late = is_late[row] && has_proof;
                            evidence.replaced = is_late[row] && !has_proof;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets whether the files have rows with the logged event times, and whether these times are later than the requests.
    fn find_in_files(&self, rows: &[usize], evidence: &mut [Vec<Evidence>]) -> Result<()> {
        let requests = self.rows.logged.times(LOG_TIMESTAMP)?;
        for (index, read) in self.reads.iter().enumerate() {
            let Some(selection) = self.selection(read.is_input) else { continue };
            let times: Vec<Option<Micros>> = evidence.iter().map(|evidence| evidence[index].logged_time).collect();
            let entities = self.rows.at(&indexes(rows), &times)?;
            // A row without a time has no features.
            let question =
                Question { selection, time_column: LOG_TIMESTAMP, ttl: TtlPolicy::Ignore, unavailable: None };
            let found = self.offline.compute(&question, &entities)?;
            let is_other = self.differs_from_log(read, rows, &found)?;
            let found = event_times(&found, read)?;
            for (row, evidence) in evidence.iter_mut().enumerate() {
                let evidence = &mut evidence[index];
                evidence.in_files = times[row].is_some() && found.micros(row) == times[row];
                let is_later = times[row] > requests.micros(rows[row]);
                evidence.future = is_later && evidence.in_files && !is_other[row];
            }
        }
        Ok(())
    }

    /// Returns for each of these rows whether the logged values of a read differ from a result. The log does not have the values
    /// that only derived views read.
    fn differs_from_log(&self, read: &Read, rows: &[usize], computed: &RecordBatch) -> Result<Vec<bool>> {
        let mut found = vec![false; rows.len()];
        for name in read.features.iter().filter(|_| !read.is_input) {
            let logged = take(&*self.rows.logged.column(name)?, &indexes(rows), None)?;
            let differs = differing(&logged, column(computed, name)?);
            found.iter_mut().zip(differs).for_each(|(found, differs)| *found |= differs);
        }
        Ok(found)
    }

    fn service(&self) -> Selection<'a> {
        Selection::Service(self.rows.logged.service.as_str().into())
    }

    /// Returns the request for the features of all reads of a kind; `None` if there are none.
    fn selection(&self, is_input: bool) -> Option<Selection<'a>> {
        if !is_input {
            return self.reads.iter().any(|read| !read.is_input).then(|| self.service());
        }
        let reads = self.reads.iter().filter(|read| read.is_input);
        let features = reads.flat_map(|read| read.features.iter().map(|name| reference(&read.view, name).into()));
        let features: Vec<_> = features.collect();
        (!features.is_empty()).then_some(Selection::Features(features))
    }
}

/// Returns for each row whether two results for a read differ.
fn differs(read: &Read, one: &RecordBatch, other: &RecordBatch) -> Result<Vec<bool>> {
    let mut found = vec![false; one.num_rows()];
    for name in read.features.iter().chain([&event_time_column(read)]) {
        let differs = differing(column(one, name)?, column(other, name)?);
        found.iter_mut().zip(differs).for_each(|(found, differs)| *found |= differs);
    }
    Ok(found)
}

/// Returns the event times of the rows that were computed for a read.
fn event_times(computed: &RecordBatch, read: &Read) -> Result<Instants> {
    Instants::new(column(computed, &event_time_column(read))?).map_err(anyhow::Error::msg)
}

/// Returns the column of computed values with the event times of a read.
fn event_time_column(read: &Read) -> String {
    let first = read.features.first().map(String::as_str).unwrap_or_default();
    format!("{first}__event_timestamp")
}

/// Returns the reference `view:feature` of a feature with a full name.
fn reference(view: &str, full_name: &str) -> String {
    format!("{view}:{}", full_name.strip_prefix(view).and_then(|rest| rest.strip_prefix("__")).unwrap_or(full_name))
}

fn indexes(rows: &[usize]) -> UInt64Array {
    rows.iter().map(|row| *row as u64).collect()
}

pub(super) fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("feature '{name}' was not computed because of a bug in Larder"))
}
