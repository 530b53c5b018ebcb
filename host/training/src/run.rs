//! Runs a job: joins and answers the entity rows, part by part.

use std::{sync::mpsc, thread, time::Duration};

use arrow::{array::RecordBatch, error::ArrowError};
use larder_model::model::FeatureView;

use super::{
    DerivedReport, Progress, Report, TrainingError, TrainingJob, ViewReport, answer, independence,
    joined::Joined,
    part::{Part, Parts},
    pieces::pieces,
};

impl TrainingJob<'_> {
    /// Joins the entity rows, and passes each batch of the output to `emit`, in the order of the entity rows. Returns the
    /// report of the set. An output that was emitted before an error is not a training set.
    ///
    /// # Errors
    /// [`TrainingError`], and errors of `emit`.
    pub fn run<E: From<TrainingError>>(
        &self,
        entities: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
        progress: &Progress,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Report, E> {
        let before = self.versions()?;
        let mut report = self.empty_report();
        let mut parts = Parts::new(self, entities);
        while let Some(part) = parts.next()? {
            let Some(joined) = Joined::new(self, &part, progress, &mut report)? else {
                parts.split(part);
                continue;
            };
            if report.parts == 0 {
                independence::check(self, &part, &joined)?;
            }
            report.parts += 1;
            parts.update_estimate(&part, joined.bytes());
            self.emit(&part, &joined, progress, &mut report, emit)?;
        }
        let after = self.versions()?;
        let changed = before.iter().zip(&after).position(|(before, after)| before != after);
        if let Some(view) = changed.and_then(|index| self.views().nth(index)) {
            return Err(TrainingError::Changed(view.to_owned()).into());
        }
        Ok(report)
    }

    /// Answers the entity rows on several threads, and emits the answers in their order.
    fn emit<E: From<TrainingError>>(
        &self,
        part: &Part,
        joined: &Joined,
        progress: &Progress,
        report: &mut Report,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let pieces = pieces(self, part, joined);
        let threads = self.limits.threads.get().min(pieces.len());
        let pieces = &pieces;
        thread::scope(|scope| {
            // Each thread answers every n-th piece.
            let answers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (sender, receiver) = mpsc::sync_channel(1);
                    scope.spawn(move || {
                        for piece in pieces.iter().skip(thread).step_by(threads) {
                            let batch = part.batches[piece.batch].0.slice(piece.rows.start, piece.rows.len());
                            let answer =
                                progress.check().and_then(|()| answer::batch(self, joined, &batch, piece.first));
                            let is_last = answer.is_err();
                            if sender.send(answer).is_err() || is_last {
                                return;
                            }
                        }
                    });
                    receiver
                })
                .collect();
            for index in 0..pieces.len() {
                // The sender only disappears without a message if its thread panics, and then the scope panics, too.
                let Ok(answer) = answers[index % threads].recv() else { return Ok(()) };
                let (batch, counts) = answer?;
                report.add(&counts);
                let rows = batch.num_rows() as u64;
                emit(batch)?;
                progress.add_rows(rows);
            }
            Ok(())
        })
    }

    pub(super) fn empty_report(&self) -> Report {
        let plan = &self.historical.plan;
        let derived = plan.steps.iter().map(|step| DerivedReport { view: step.view.name.to_string(), failed: 0 });
        let view = |(view, read): (&FeatureView, &larder_serving::ViewRead)| ViewReport {
            view: view.name.to_string(),
            ttl: read.ttl.map(|ttl| Duration::from_micros(u64::try_from(ttl).unwrap_or(0))),
            ..ViewReport::default()
        };
        let views = self.historical.views.iter().zip(&plan.reads).map(view).collect();
        Report { derived: derived.collect(), views, ..Report::default() }
    }
}
