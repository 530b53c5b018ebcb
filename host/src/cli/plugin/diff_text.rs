//! Prints the differences between two versions of a plugin.

use larder_plugin_host::{
    ComparisonReport, Diff, DiffSide, DifferentRow, FailedExample, NamedText, OutputDiff, RunCost,
};

use crate::cli::output;

/// The maximum number of inputs of a row that are printed.
const INPUTS_SHOWN: usize = 8;

/// Prints the comparison of the versions `old` and `new` in a view.
pub(super) fn print_comparison(view: &str, (old, new): (&str, &str), report: &ComparisonReport) {
    let ComparisonReport { samples, dropped, repeated, impure, .. } = report;
    output::line(&format!(
        "view {view}: {} rows in {} batches compared, {} dropped because the queue was full",
        output::thousands(report.diff.rows),
        output::thousands(*samples),
        output::thousands(*dropped)
    ));
    print_diff((old, new), &report.diff);
    print_costs((old, new), (report.old_cost, report.new_cost));
    if *impure > 0 {
        let first = report.first_impure.as_deref().unwrap_or_default();
        output::note(&format!(
            "a version is not pure: {impure} batches had other outputs when the same version computed them again. {first}. \
             hint: keep no state between rows"
        ));
    } else if *repeated > 0 {
        output::line(&format!(
            "{} rows had the same outputs when they were computed again",
            output::thousands(*repeated)
        ));
    }
}

/// Prints the counts of each output, the rows that failed in one version only, and the rows that differ most.
pub(super) fn print_diff((old, new): (&str, &str), diff: &Diff) {
    let row = |of: &OutputDiff| {
        let counts = [of.equal, of.within_tolerance, of.different, of.null_to_value, of.value_to_null];
        let largest = of.largest.map_or_else(|| "-".to_owned(), |largest| format!("{largest:e}"));
        [of.name.clone()].into_iter().chain(counts.map(output::thousands)).chain([largest]).collect()
    };
    let headings = ["FEATURE", "EQUAL", "WITHIN TOLERANCE", "DIFFERENT", "NULL TO VALUE", "VALUE TO NULL", "LARGEST"];
    output::table(&headings, &diff.outputs.iter().map(row).collect::<Vec<Vec<String>>>());
    for (names, version) in [(&diff.only_old, old), (&diff.only_new, new)] {
        if !names.is_empty() {
            output::line(&format!("only in {version}: {}", names.join(", ")));
        }
    }
    print_failures((old, new), diff);
    for of in &diff.outputs {
        print_examples(&format!("largest differences of '{}':", of.name), &of.worst);
        print_examples(&format!("rows of '{}' that are null in one version only:", of.name), &of.nulls);
    }
}

fn print_failures((old, new): (&str, &str), diff: &Diff) {
    for (count, versions) in [
        (diff.failed_both, "in both versions".to_owned()),
        (diff.failed_old, format!("only in {old}")),
        (diff.failed_new, format!("only in {new}")),
    ] {
        if count > 0 {
            output::line(&format!("{} failed {versions}", output::counted(count, "row", "rows")));
        }
    }
    let row = |of: &FailedExample| {
        let version = if of.failed == DiffSide::Old { old } else { new };
        vec![of.row.to_string(), version.to_owned(), of.error.clone(), inputs_text(&of.inputs)]
    };
    if !diff.failures.is_empty() {
        output::line("");
        output::line("rows that failed in one version only:");
        let headings = ["ROW", "FAILED IN", "ERROR", "INPUTS"];
        output::table(&headings, &diff.failures.iter().map(row).collect::<Vec<_>>());
    }
}

fn print_examples(title: &str, rows: &[DifferentRow]) {
    if rows.is_empty() {
        return;
    }
    output::line("");
    output::line(title);
    let row = |of: &DifferentRow| {
        let difference = of.difference.map_or_else(|| "-".to_owned(), |difference| format!("{difference:e}"));
        vec![of.row.to_string(), of.old.clone(), of.new.clone(), difference, inputs_text(&of.inputs)]
    };
    output::table(&["ROW", "OLD", "NEW", "DIFFERENCE", "INPUTS"], &rows.iter().map(row).collect::<Vec<_>>());
}

/// Returns the inputs of a row as one text.
fn inputs_text(inputs: &[NamedText]) -> String {
    let shown = inputs.iter().take(INPUTS_SHOWN).map(|input| format!("{} = {}", input.name, input.value));
    let more = if inputs.len() > INPUTS_SHOWN { ", ..." } else { "" };
    format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
}

/// Prints the CPU time and the memory of both versions.
pub(super) fn print_costs((old, new): (&str, &str), (old_cost, new_cost): (RunCost, RunCost)) {
    let row = |version: &str, cost: RunCost| {
        let per_row = format!("{:.3}", cost.nanos_per_row() / 1e3);
        vec![version.to_owned(), output::thousands(cost.rows), per_row, output::bytes(cost.memory)]
    };
    output::table(&["VERSION", "ROWS", "CPU US/ROW", "PEAK MEMORY"], &[row(old, old_cost), row(new, new_cost)]);
}
