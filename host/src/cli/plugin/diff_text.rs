//! Prints the differences between two versions of a plugin.

use larder_plugin_host::{ComparisonReport, Diff, DifferentRow, OutputDiff, RunCost};

use crate::cli::output;

/// The maximum number of inputs of a row that are printed.
const INPUTS_SHOWN: usize = 8;

/// Prints the comparison of the versions `old` and `new` in a view.
pub(super) fn print_comparison(view: &str, (old, new): (&str, &str), report: &ComparisonReport) {
    let ComparisonReport { samples, dropped, repeated, impure, .. } = report;
    output::line(&format!(
        "view {view}: {} batches compared, {} dropped because the queue was full",
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

/// Prints the counts of each output, and the rows that differ most.
pub(super) fn print_diff((old, new): (&str, &str), diff: &Diff) {
    let count = |count: u64| output::thousands(count);
    output::line(&format!(
        "{} rows; failed in both versions: {}, only in {old}: {}, only in {new}: {}",
        count(diff.rows),
        count(diff.failed_both),
        count(diff.failed_old),
        count(diff.failed_new)
    ));
    let row = |output: &OutputDiff| {
        vec![
            output.name.clone(),
            count(output.equal),
            count(output.within_tolerance),
            count(output.different),
            count(output.null_to_value),
            count(output.value_to_null),
            output.largest.map_or_else(|| "-".to_owned(), |largest| format!("{largest:e}")),
        ]
    };
    let headings =
        ["FEATURE", "EQUAL", "WITHIN TOLERANCE", "DIFFERENT", "NULL TO VALUE", "VALUE TO NULL", "LARGEST DIFFERENCE"];
    output::table(&headings, &diff.outputs.iter().map(row).collect::<Vec<_>>());
    for (names, version) in [(&diff.only_old, old), (&diff.only_new, new)] {
        if !names.is_empty() {
            output::line(&format!("only in {version}: {}", names.join(", ")));
        }
    }
    for of in &diff.outputs {
        for row in of.worst.iter().chain(&of.nulls) {
            print_row(&of.name, row);
        }
    }
    for failure in &diff.failures {
        let version = if failure.failed == larder_plugin_host::DiffSide::Old { old } else { new };
        output::line(&format!("row {} fails only in {version}: {}", failure.row, failure.error));
    }
}

fn print_row(feature: &str, row: &DifferentRow) {
    let inputs = row.inputs.iter().take(INPUTS_SHOWN).map(|input| format!("{} = {}", input.name, input.value));
    let more = if row.inputs.len() > INPUTS_SHOWN { ", ..." } else { "" };
    let inputs = inputs.collect::<Vec<_>>().join(", ");
    output::line(&format!("row {}: {feature} {} -> {} ({inputs}{more})", row.row, row.old, row.new));
}

/// Prints the CPU time and the memory of both versions.
pub(super) fn print_costs((old, new): (&str, &str), (old_cost, new_cost): (RunCost, RunCost)) {
    let row = |version: &str, cost: RunCost| {
        vec![
            version.to_owned(),
            output::thousands(cost.rows),
            format!("{:.1}", cost.nanos_per_row()),
            output::bytes(cost.memory),
        ]
    };
    output::table(&["VERSION", "ROWS", "CPU NS/ROW", "MEMORY"], &[row(old, old_cost), row(new, new_cost)]);
}
