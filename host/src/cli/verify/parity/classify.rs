//! Finds the reasons of differences between logged values and the files.
//!
//! Except for the ttl mode and the component, reasons are properties of reads. A read is one row of one view for one request:
//! the row that a projection of the service serves, or the row that derived views use as input. The log has the event time of
//! the row that the server read. The files have the row that was valid at the time of the request, which is computed several
//! times for the requests with differences:
//!
//! * from all files, which gives the values to compare;
//! * from the rows that had arrived at the time of the request. If the result differs, the row may be late. A file that was
//!   written later shows this only if the server read what was available, or a row with another event time. Otherwise, any value
//!   of a file that was replaced would have a reason;
//! * by created times alone. If the result differs, the row was created later;
//! * at the event time of the logged row. If the files have no row with this time, a caller wrote it. If they have one, and
//!   the time is later than the request, the server read a row that training sets do not use yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use arrow::{
    array::{Array, RecordBatch, UInt64Array},
    compute::take,
};
use larder_feature_log::{COMPONENT_PREFIX, LOG_TIMESTAMP, READ_PREFIX, REQUEST_ID};
use larder_model::{model::InputSource, registry::Catalog};
use larder_serving::TtlPolicy;

use super::{
    Class,
    compare::differing,
    reads::{Evidence, POLICIES, Read, Reads, column},
    recompute::Offline,
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

/// Finds the reasons of differences.
pub(super) struct Classifier<'a> {
    rows: &'a Rows<'a>,
    catalog: &'a Catalog,
    offline: &'a Offline<'a>,
    features: Vec<Feature>,
    reads: Reads<'a>,
}

// === impl Classifier ===

impl<'a> Classifier<'a> {
    pub(super) fn new(rows: &'a Rows<'a>, offline: &'a Offline<'a>) -> Result<Self> {
        let catalog = &offline.project.definitions().catalog;
        let (mut features, mut reads) = (Vec::new(), Vec::new());
        let service = catalog.service(&rows.logged.service).context("the service does not exist")?;
        for projection in &service.projections {
            let names = projection.features.iter().map(|feature| format!("{}__{feature}", projection.prefix()));
            let names: Vec<String> = names.filter(|name| rows.logged.has(name)).collect();
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
        Ok(Self { rows, catalog, offline, features, reads: Reads::new(rows, offline, reads)? })
    }

    /// Compares all values, and adds the result to the report.
    pub(super) fn classify(&self, report: &mut Report) -> Result<()> {
        let current_policy = self.offline.project.config().ttl;
        let current = self.reads.compute_all(current_policy)?;
        // The values that the files give with the policy of the server that wrote the log.
        let mut as_logged: Vec<(TtlPolicy, RecordBatch)> = Vec::new();
        for policy in POLICIES.into_iter().filter(|policy| *policy != current_policy) {
            if self.reads.policies.contains(&policy) {
                as_logged.push((policy, self.reads.compute_all(policy)?));
            }
        }
        let expected = |row: usize| {
            let other = as_logged.iter().find(|(policy, _)| *policy == self.reads.policies[row]);
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
        let evidence = self.reads.evidence(&rows)?;
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
    fn class(&self, row: usize, feature: &Feature, evidence: &[Evidence]) -> Class {
        match &feature.from {
            From::Read(read) => self.class_of_read(*read, &evidence[*read]).unwrap_or(Class::Unexplained),
            From::Derived(view) => {
                if self.has_other_component(row, view) {
                    return Class::OtherComponent;
                }
                let mut views = BTreeSet::new();
                dependencies(self.catalog, view, &mut |view, _| _ = views.insert(Arc::clone(view)));
                let reads = self.reads.reads.iter().enumerate();
                let reads = reads.filter(|(_, read)| read.is_input && views.contains(&read.view));
                let mut classes = reads.filter_map(|(index, _)| self.class_of_read(index, &evidence[index]));
                classes.next().unwrap_or(Class::Unexplained)
            }
        }
    }

    /// Returns why the server read another row than the files have; `None` if there is no evidence that it did.
    fn class_of_read(&self, read: usize, evidence: &Evidence) -> Option<Class> {
        if evidence.future {
            return Some(Class::Future);
        }
        let (logged, file) = (evidence.logged_time, evidence.file_time);
        let is_newer = logged.is_some_and(|logged| file.is_none_or(|file| logged > file));
        if is_newer && !evidence.in_files {
            return Some(Class::Pushed);
        }
        if evidence.late {
            return Some(Class::Late);
        }
        let view = self.catalog.view(&self.reads.reads[read].view)?;
        if view.table().is_some() && logged.zip(file).is_some_and(|(logged, file)| logged < file) {
            return Some(Class::Overwritten);
        }
        (evidence.replaced && logged.is_some()).then_some(Class::Replaced)
    }

    /// Returns whether another component than the one in the plugin directory computed a derived view, or a derived view that it
    /// reads.
    fn has_other_component(&self, row: usize, view: &str) -> bool {
        let Some(index) = self.catalog.derived_index(view) else { return false };
        let current = self.offline.transforms.get(index).map(|transform| transform.component().digest().to_string());
        let column = format!("{COMPONENT_PREFIX}{view}");
        if self.rows.logged.has(&column) && self.rows.logged.text(&column, row) != current {
            return true;
        }
        let inputs = self.catalog.derived_views()[index].inputs.iter().filter_map(|input| match &input.from {
            InputSource::Feature { view, .. } => Some(view),
            InputSource::Request | InputSource::JoinKey(_) => None,
        });
        inputs.collect::<BTreeSet<_>>().into_iter().any(|view| self.has_other_component(row, view))
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
