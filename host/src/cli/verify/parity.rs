//! `larder verify --parity`: computes the logged values of the feature log again from the files of the views, and compares
//! their bits.
//!
//! A value may differ for reasons that the log or the files prove: [`Class`]. Only a difference without such a reason is an
//! error.

mod arrivals;
mod classify;
mod compare;
mod log;
mod reads;
mod recompute;
mod report;
mod rows;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, bail};
use larder_common::telemetry::{self, LogFormat};
use larder_feature_log::{LOG_TIMESTAMP, LogSchema};
use larder_model::yaml::nearest;

use self::{
    classify::Classifier,
    log::{LoggedRows, read},
    recompute::Offline,
    report::Report,
    rows::Rows,
};
use super::super::{CliError, ConfigArg, output};
use crate::offline::Project;

/// Why a logged value differs from the value that the files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The row that the files have for this time arrived after the request: its created time, or the time at which its file
    /// was modified, is later. The server read another row: the one that the files had before, or one with another event time.
    Late,
    /// A caller wrote the row: the files have no row with its event time.
    Pushed,
    /// The view's source is a DynamoDB table, in which a later write replaced a row with a newer event time.
    Overwritten,
    /// The file was written after the request, and has another value for the row with the same event time. Nothing proves
    /// which value the file had before.
    Replaced,
    /// The server treated expired values in another way.
    TtlMode,
    /// Another component computed the value.
    OtherComponent,
    /// The event time of the row is later than the request. A server serves such rows, but training sets do not use them
    /// before their event time.
    Future,
    /// No reason is known.
    Unexplained,
}

/// Verifies the log at `path`: a file, a directory of files, or an `s3://` URL.
pub(super) fn run(config: &ConfigArg, path: &Path) -> Result<()> {
    telemetry::install_logs("warn", LogFormat::Text);
    let project = Project::load(config.load()?)?;
    project.definitions().warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let mut report = Report::default();
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    for logged in read(&*project.parquet(path))? {
        let logged = logged?;
        // The other services are verified, too.
        if !failed.contains_key(&logged.service)
            && let Err(error) = verify(&logged, &project, &mut report)
        {
            failed.insert(logged.service, output::describe(&error));
        }
    }
    report.print();
    if !failed.is_empty() {
        let failed: Vec<_> = failed.iter().map(|(service, why)| format!("'{service}': {why}")).collect();
        bail!(CliError::Failed(format!("cannot verify the log of feature service {}", failed.join("; "))));
    }
    if report.unexplained() > 0 {
        let values = output::counted(report.unexplained(), "value differs", "values differ");
        bail!(CliError::Failed(format!("{values} from the files for no known reason")));
    }
    Ok(())
}

fn verify(logged: &LoggedRows, project: &Project, report: &mut Report) -> Result<()> {
    let catalog = &project.definitions().catalog;
    let Some(schema) = LogSchema::of(catalog, &logged.service) else {
        let hint = nearest(&logged.service, catalog.services().iter().map(|service| &*service.name));
        let hint = hint.map_or_else(String::new, |hint| format!(". hint: {hint}"));
        bail!(CliError::Failed(format!("the service is not defined{hint}")));
    };
    let rows = Rows::new(logged, &schema)?;
    report.add_other_definitions(rows.with_other_definitions(catalog));
    let (not_logged, not_defined) = rows.unverified(&schema);
    report.add_unverified(&logged.service, not_logged, not_defined);
    let offline = Offline::new(project, &logged.service, LOG_TIMESTAMP, &rows.entities)?;
    Classifier::new(&rows, &offline)?.classify(report)
}
