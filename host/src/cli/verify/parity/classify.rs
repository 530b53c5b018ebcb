//! Finds the reasons of differences between logged values and the files.
//!
//! Except for the ttl mode and the component, reasons are properties of reads. A read is one row of one view for one request: the row that a projection of the service
//! serves, or the row that derived views use as input. The log has the event time of the row that the server read. The files
//! have the row that was valid at the time of the request, which is computed several times for the requests with differences:
//!
//! * from all files, which gives the values to compare;
//! * from the rows that had arrived at the time of the request. If the result differs, the row may be late. A file that was
//!   written later shows this only if the server read what was available, or a row with another event time. Otherwise, any value
//!   of a file that was replaced would have a reason;
//! * by created times alone. If the result differs, the row was created later;
//! * at the event time of the logged row. If the files have no row with this time, a caller wrote it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt64Array},
    compute::{take, take_record_batch},
};
use larder_columns::Instants;
use larder_feature_log::{COMPONENT_PREFIX, LOG_TIMESTAMP, READ_PREFIX, REQUEST_ID, TTL, ttl_name};
use larder_model::{
    model::{InputSource, Micros},
    registry::Catalog,
};
use larder_serving::{Selection, TtlPolicy};

use super::{
    Class,
    arrivals::Arrivals,
    compare::differing,
    recompute::{LateFiles, Offline, Question},
    report::{Difference, Report},
    rows::Rows,
};

/// A feature of the service.
struct Feature {
    /// The full name, which is also the name of its column.
    name: String,
    from: From,
}

/// The origin of a feature.
enum From {
    /// The index of a read.
    Read(usize),
    /// A derived view.
    Derived(Arc<str>),
}

/// A read of a view.
struct Read {
    view: Arc<str>,
    /// The features of the view that the service returns, or that derived views use, by their full names.
    features: Vec<String>,
    /// The column of the log with the event times of the rows that the server read.
    logged_times: String,
    /// Whether the read is for derived views.
    is_input: bool,
}

/// The evidence about the reads of one request. The vectors have an entry for each read.
struct Evidence {
    /// Whether the row of the files had not arrived, and the server read another row.
    late: Vec<bool>,
    /// Whether the row of the files had not arrived, and the server read a row with the same event time.
    replaced: Vec<bool>,
    logged_time: Vec<Option<Micros>>,
    file_time: Vec<Option<Micros>>,
    /// Whether the files have a row with the logged time.
    in_files: Vec<bool>,
}

/// Finds the reasons of differences.
pub(super) struct Classifier<'a> {
    rows: &'a Rows<'a>,
    catalog: &'a Catalog,
    offline: &'a Offline<'a>,
    features: Vec<Feature>,
    reads: Vec<Read>,
    /// The policy for expired values of each row.
    policies: Vec<TtlPolicy>,
}

const POLICIES: [TtlPolicy; 3] = [TtlPolicy::Mark, TtlPolicy::Null, TtlPolicy::Ignore];

// === impl Classifier ===

impl<'a> Classifier<'a> {
    pub(super) fn new(rows: &'a Rows<'a>, offline: &'a Offline<'a>) -> Result<Self> {
        let catalog = &offline.project.definitions().catalog;
        let (mut features, mut reads) = (Vec::new(), Vec::new());
        let service = catalog.service(&rows.logged.service).context("the service does not exist")?;
        for projection in &service.projections {
            let names: Vec<String> =
                projection.features.iter().map(|feature| format!("{}__{feature}", projection.prefix())).collect();
            let is_derived = catalog.derived_view(&projection.view).is_some();
            for name in &names {
                let from =
                    if is_derived { From::Derived(Arc::clone(&projection.view)) } else { From::Read(reads.len()) };
                features.push(Feature { name: name.clone(), from });
            }
            if let Some(first) = names.first().filter(|_| !is_derived) {
                let logged_times = format!("{first}__timestamp");
                let view = Arc::clone(&projection.view);
                reads.push(Read { view, logged_times, features: names, is_input: false });
            }
        }
        let mut inputs: BTreeMap<Arc<str>, BTreeSet<&str>> = BTreeMap::new();
        for feature in &features {
            let From::Derived(view) = &feature.from else { continue };
            dependencies(catalog, view, &mut |view, feature| {
                inputs.entry(Arc::clone(view)).or_default().insert(feature);
            });
        }
        for (view, names) in inputs {
            let logged_times = format!("{READ_PREFIX}{view}");
            let features = names.iter().map(|feature| format!("{view}__{feature}")).collect();
            reads.push(Read { view, features, logged_times, is_input: true });
        }
        let policy = |row| {
            let name = rows.logged.text(TTL, row).unwrap_or_default();
            POLICIES.into_iter().find(|policy| ttl_name(*policy) == name).with_context(|| {
                format!("column '{TTL}' has '{name}' in row {row}, expected one of mark, null, ignore")
            })
        };
        let policies = (0..rows.logged.rows.num_rows()).map(policy).collect::<Result<_>>()?;
        Ok(Self { rows, catalog, offline, features, reads, policies })
    }

    /// Compares all values, and adds the result to the report.
    pub(super) fn classify(&self, report: &mut Report) -> Result<()> {
        let all: Vec<usize> = (0..self.policies.len()).collect();
        let current = self.compute(&all, &self.service(), self.offline.project.config().ttl, None)?;
        // The values that the files give with the policy of the server that wrote the log.
        let mut as_logged: Vec<(TtlPolicy, RecordBatch)> = Vec::new();
        for policy in POLICIES.into_iter().filter(|policy| *policy != self.offline.project.config().ttl) {
            if self.policies.contains(&policy) {
                as_logged.push((policy, self.compute(&all, &self.service(), policy, None)?));
            }
        }
        let expected = |row: usize| {
            let other = as_logged.iter().find(|(policy, _)| *policy == self.policies[row]);
            other.map_or(&current, |(_, batch)| batch)
        };
        let mut candidates: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, feature) in self.features.iter().enumerate() {
            let logged = self.rows.logged.column(&feature.name)?;
            let differs = differing(&logged, column(&current, &feature.name)?);
            report.add_rows(&feature.name, differs.len());
            for row in (0..differs.len()).filter(|row| differs[*row]) {
                let computed = column(expected(row), &feature.name)?;
                if logged.slice(row, 1) == computed.slice(row, 1) {
                    report.add(&feature.name, Class::TtlMode);
                } else {
                    candidates.entry(row).or_default().push(index);
                }
            }
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let rows: Vec<usize> = candidates.keys().copied().collect();
        let evidence = self.evidence(&rows)?;
        for ((row, features), evidence) in candidates.iter().zip(&evidence) {
            for index in features {
                let feature = &self.features[*index];
                let class = self.class(*row, feature, evidence);
                report.add(&feature.name, class);
                if class == Class::Unexplained {
                    report.add_example(|| self.difference(*row, feature, expected(*row)))?;
                }
            }
        }
        Ok(())
    }

    /// Returns the reason of a difference.
    fn class(&self, row: usize, feature: &Feature, evidence: &Evidence) -> Class {
        match &feature.from {
            From::Read(read) => self.class_of_read(*read, evidence).unwrap_or(Class::Unexplained),
            From::Derived(view) => {
                if self.has_other_component(row, view) {
                    return Class::OtherComponent;
                }
                let mut views = BTreeSet::new();
                dependencies(self.catalog, view, &mut |view, _| _ = views.insert(Arc::clone(view)));
                let reads =
                    self.reads.iter().enumerate().filter(|(_, read)| read.is_input && views.contains(&read.view));
                let mut classes = reads.filter_map(|(index, _)| self.class_of_read(index, evidence));
                classes.next().unwrap_or(Class::Unexplained)
            }
        }
    }

    /// Returns why the server read another row than the files have; `None` if there is no evidence that it did.
    fn class_of_read(&self, read: usize, evidence: &Evidence) -> Option<Class> {
        if evidence.late[read] {
            return Some(Class::Late);
        }
        let (logged, file) = (evidence.logged_time[read]?, evidence.file_time[read]);
        let view = self.catalog.view(&self.reads[read].view)?;
        if view.table().is_some() && file.is_some_and(|file| logged < file) {
            return Some(Class::Overwritten);
        }
        let is_newer = file.is_none_or(|file| logged > file);
        if is_newer && !evidence.in_files[read] {
            return Some(Class::Pushed);
        }
        evidence.replaced[read].then_some(Class::Replaced)
    }

    /// Returns whether another component than the one in the plugin directory computed a derived view, or a derived view that it
    /// reads.
    fn has_other_component(&self, row: usize, view: &str) -> bool {
        let Some(index) = self.catalog.derived_index(view) else { return false };
        let current = self.offline.transforms.get(index).map(|transform| transform.component().digest().to_string());
        let column = format!("{COMPONENT_PREFIX}{view}");
        if self.rows.logged.rows.column_by_name(&column).is_some() && self.rows.logged.text(&column, row) != current {
            return true;
        }
        let inputs = self.catalog.derived_views()[index].inputs.iter().filter_map(|input| match &input.from {
            InputSource::Feature { view, .. } => Some(view),
            InputSource::Request | InputSource::JoinKey(_) => None,
        });
        inputs.collect::<BTreeSet<_>>().into_iter().any(|view| self.has_other_component(row, view))
    }

    /// Collects the evidence about the reads of these rows.
    fn evidence(&self, rows: &[usize]) -> Result<Vec<Evidence>> {
        let count = self.reads.len();
        let empty = || Evidence {
            late: vec![false; count],
            replaced: vec![false; count],
            logged_time: vec![None; count],
            file_time: vec![None; count],
            in_files: vec![false; count],
        };
        let mut evidence: Vec<Evidence> = rows.iter().map(|_| empty()).collect();
        for (index, read) in self.reads.iter().enumerate() {
            let times = self.rows.logged.times(&read.logged_times)?;
            for (row, evidence) in rows.iter().zip(&mut evidence) {
                evidence.logged_time[index] = times.micros(*row);
            }
        }
        self.find_late(rows, &mut evidence)?;
        self.find_in_files(rows, &mut evidence)?;
        Ok(evidence)
    }

    /// Sets the times of the rows in the files, and whether they are late.
    fn find_late(&self, rows: &[usize], evidence: &mut [Evidence]) -> Result<()> {
        let names: BTreeSet<&Arc<str>> = self.reads.iter().map(|read| &read.view).collect();
        let views = names.into_iter().filter_map(|name| self.catalog.view(name));
        let arrivals = Arrivals::new(views, self.rows.logged, self.offline)?;
        // Rows with the same late files are computed together.
        let mut groups: BTreeMap<(&str, Vec<usize>), Vec<usize>> = BTreeMap::new();
        for (position, row) in rows.iter().enumerate() {
            groups.entry((ttl_name(self.policies[*row]), arrivals.available(*row))).or_default().push(position);
        }
        for ((_, available), positions) in &groups {
            let group: Vec<usize> = positions.iter().map(|position| rows[*position]).collect();
            let (policy, late) = (self.policies[group[0]], arrivals.late(available));
            for is_input in [false, true] {
                let Some(selection) = self.selection(is_input) else { continue };
                let whole = self.compute(&group, &selection, policy, None)?;
                let available = self.compute(&group, &selection, policy, Some(&late))?;
                let created = self.compute(&group, &selection, policy, Some(&LateFiles::default()))?;
                for (index, read) in self.reads.iter().enumerate().filter(|(_, read)| read.is_input == is_input) {
                    let event_time = event_time_column(read);
                    let times = |of| Instants::new(column(of, &event_time)?).map_err(anyhow::Error::msg);
                    let (of_whole, of_available) = (times(&whole)?, times(&available)?);
                    let is_late = self.differs(read, &available, &whole)?;
                    let is_created_later = self.differs(read, &created, &whole)?;
                    let is_other = self.differs_from_log(read, &group, &available)?;
                    for (row, position) in positions.iter().enumerate() {
                        let evidence = &mut evidence[*position];
                        let logged = evidence.logged_time[index];
                        evidence.file_time[index] = of_whole.micros(row);
                        let was_available = logged == of_available.micros(row) && !is_other[row];
                        let has_proof = was_available || is_created_later[row] || logged != of_whole.micros(row);
                        evidence.late[index] = is_late[row] && has_proof;
                        evidence.replaced[index] = is_late[row] && !has_proof;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns for each row whether two results for a read differ.
    fn differs(&self, read: &Read, one: &RecordBatch, other: &RecordBatch) -> Result<Vec<bool>> {
        let mut found = vec![false; one.num_rows()];
        for name in read.features.iter().chain([&event_time_column(read)]) {
            let differs = differing(column(one, name)?, column(other, name)?);
            found.iter_mut().zip(differs).for_each(|(found, differs)| *found |= differs);
        }
        Ok(found)
    }

    /// Returns for each of these rows whether the logged values of a read differ from a result. The log does not have the values
    /// that only derived views read.
    fn differs_from_log(&self, read: &Read, rows: &[usize], computed: &RecordBatch) -> Result<Vec<bool>> {
        let mut found = vec![false; rows.len()];
        let indexes: UInt64Array = rows.iter().map(|row| *row as u64).collect();
        for name in read.features.iter().filter(|_| !read.is_input) {
            let logged = take(&*self.rows.logged.column(name)?, &indexes, None)?;
            let differs = differing(&logged, column(computed, name)?);
            found.iter_mut().zip(differs).for_each(|(found, differs)| *found |= differs);
        }
        Ok(found)
    }

    /// Sets whether the files have rows with the logged event times.
    fn find_in_files(&self, rows: &[usize], evidence: &mut [Evidence]) -> Result<()> {
        let indexes: UInt64Array = rows.iter().map(|row| *row as u64).collect();
        for (index, read) in self.reads.iter().enumerate() {
            let Some(selection) = self.selection(read.is_input) else { continue };
            let times: Vec<Option<Micros>> = evidence.iter().map(|evidence| evidence.logged_time[index]).collect();
            let entities = self.rows.at(&indexes, &times)?;
            // A row without a time has no features.
            let question =
                Question { selection, time_column: LOG_TIMESTAMP, ttl: TtlPolicy::Ignore, unavailable: None };
            let found = self.offline.compute(&question, &entities)?;
            let found = Instants::new(column(&found, &event_time_column(read))?).map_err(anyhow::Error::msg)?;
            for (row, evidence) in evidence.iter_mut().enumerate() {
                evidence.in_files[index] = times[row].is_some() && found.micros(row) == times[row];
            }
        }
        Ok(())
    }

    fn compute(
        &self,
        rows: &[usize],
        selection: &Selection<'_>,
        ttl: TtlPolicy,
        unavailable: Option<&LateFiles>,
    ) -> Result<RecordBatch> {
        let entities = if rows.len() == self.policies.len() {
            self.rows.entities.clone()
        } else {
            take_record_batch(&self.rows.entities, &rows.iter().map(|row| *row as u64).collect::<UInt64Array>())?
        };
        let question = Question { selection: selection.clone(), time_column: LOG_TIMESTAMP, ttl, unavailable };
        self.offline.compute(&question, &entities)
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

    fn difference(&self, row: usize, feature: &Feature, computed: &RecordBatch) -> Result<Difference> {
        let at = UInt64Array::from(vec![row as u64]);
        let logged = self.rows.logged.column(&feature.name)?;
        let keys =
            self.rows.keys.iter().map(|key| Ok((key.clone(), take(&*self.rows.logged.column(key)?, &at, None)?)));
        Ok(Difference {
            feature: feature.name.clone(),
            keys: keys.collect::<Result<_>>()?,
            request_id: self.rows.logged.text(REQUEST_ID, row).unwrap_or_default(),
            time: self.rows.logged.times(LOG_TIMESTAMP)?.micros(row).unwrap_or_default(),
            logged: logged.slice(row, 1),
            computed: column(computed, &feature.name)?.slice(row, 1),
        })
    }
}

/// Calls `each` with every feature of a stored view that a derived view reads, directly or through other derived views.
fn dependencies<'c>(catalog: &'c Catalog, derived: &str, each: &mut impl FnMut(&'c Arc<str>, &'c str)) {
    let Some(derived) = catalog.derived_view(derived) else { return };
    for input in &derived.inputs {
        let InputSource::Feature { view, feature } = &input.from else { continue };
        if catalog.view(view).is_some() { each(view, feature) } else { dependencies(catalog, view, each) }
    }
}

/// Returns the reference `view:feature` of a feature with a full name.
fn reference(view: &str, full_name: &str) -> String {
    format!("{view}:{}", full_name.strip_prefix(view).and_then(|rest| rest.strip_prefix("__")).unwrap_or(full_name))
}

/// Returns the column of computed values with the event times of a read.
fn event_time_column(read: &Read) -> String {
    let first = read.features.first().map(String::as_str).unwrap_or_default();
    format!("{first}__event_timestamp")
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("feature '{name}' was not computed because of a bug in Larder"))
}
