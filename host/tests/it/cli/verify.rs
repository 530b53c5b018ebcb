//! `larder verify`: request inputs, unreadable sources, and the counts in the printed table.

use std::fs;

use super::{cells, with};
use crate::{binary::Home, guests};

#[test]
fn verify_converts_request_inputs() {
    let home = Home::golden_loaded();
    guests::place(&["feast_odfv/odfv_python"], &home.path("plugins"));
    let arguments = ["-f", "odfv_python:conv_x_amount", "driver_id=1001", "amount=2", "hour=3"];
    let verified = home.run(with(&["verify"], &arguments));
    assert_eq!(verified.assert_code(0).out, "nothing is missing, expired or invalid in 1 value\n");
    let got = home.run(with(&["get"], &arguments));
    assert!(got.assert_code(0).out.contains("conv_x_amount  1.2002  PRESENT"), "{}", got.out);
}

#[test]
fn verify_of_unreadable_source_verifies_others() {
    let home = Home::golden_loaded();
    fs::write(home.path("data/driver_stats.parquet"), "").unwrap();
    let verified = home.run(["verify"]);
    verified.assert_code(1).assert_complains(&["driver_stats", "driver_stats.parquet", "1 view cannot be verified"]);
    let table = cells(&verified.out);
    assert!(table.contains("\npair_stats | 2 | 2 | 0 | 0 | 0"), "{table}");
    assert!(!table.contains("\ndriver_stats |"), "{table}");
}

#[test]
fn verify_counts_nulls_always() {
    let home = Home::golden_loaded();
    home.configure("serving: {ttl: ignore}\n");
    let nulls = |arguments: &[&str], code| {
        let verified = home.run(with(&["verify", "-f", "customer_stats:segment"], arguments));
        let table = cells(&verified.assert_code(code).out);
        let row = table.lines().find(|line| line.starts_with("customer_stats | ")).unwrap_or_default().to_owned();
        row.rsplit(" | ").next().unwrap_or_default().parse::<u64>().unwrap_or_else(|_| panic!("{table}"))
    };
    let allowed = nulls(&[], 0);
    assert!(allowed > 0, "the data has no null");
    assert_eq!(nulls(&["--no-nulls"], 1), allowed);
}
