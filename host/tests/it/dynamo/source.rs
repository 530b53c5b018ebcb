//! Tests the source without a server, with a clock that the test advances during a read.

use std::sync::Arc;

use larder_common::clock::{Clock, ManualClock};
use larder_model::{
    codec::KeyVersion,
    registry::{Definitions, validate},
    yaml::Problems,
};
use larder_source::{
    Batches, DynamoDb, Source as _, SourceError,
    aws::{Aws, AwsConfig, StandInKeys},
};

use super::*;

const HOUR: i64 = 3_600 * 1_000_000;

fn source(dynamo: &FakeDynamo, clock: &Arc<ManualClock>) -> DynamoDb {
    let problems = Problems::default();
    let mut read = Definitions::default();
    read.read("defined.yaml", &definitions(""), &problems);
    let catalog = validate("shop", KeyVersion::V3, read, &problems).unwrap();
    let view = &catalog.views()[0];
    let config = AwsConfig {
        region: Some("eu-west-1".to_owned()),
        dynamodb_endpoint: Some(dynamo.url()),
        keys: Some(StandInKeys),
        ..AwsConfig::default()
    };
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    DynamoDb::new(Aws::new(config), clock, view, view.table().unwrap(), KeyVersion::V3, None, None)
}

/// Reads until an error occurs, and returns the error.
fn broken_off(reading: &mut dyn Batches) -> SourceError {
    loop {
        match reading.next_batch() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the read ended without an error"),
            Err(error) => return error,
        }
    }
}

#[test]
fn scan_longer_than_retention_is_error() {
    let dynamo = table(60);
    dynamo.page_items(5);
    let clock = ManualClock::at(RECORDED_AT);
    let source = source(&dynamo, &clock);
    let mut reading = source.read(None).unwrap();
    reading.next_batch().unwrap();
    clock.set(RECORDED_AT + 22 * HOUR);
    let position = reading.position();
    clock.set(RECORDED_AT + 24 * HOUR);
    let error = broken_off(&mut *reading).to_string();
    assert!(error.contains("the scan took nearly a day") && error.contains("'read_units'"), "{error}");
    // The position that was committed after 22 hours is also lost, because the stream has not been read since the
    // start of the scan.
    let gone_on = source.read(Some(&position)).err().unwrap();
    assert!(matches!(gone_on, SourceError::Lost { .. }), "{gone_on}");
}

#[test]
fn scan_within_a_day_resumes() {
    let dynamo = table(60);
    dynamo.page_items(5);
    let clock = ManualClock::at(RECORDED_AT);
    let source = source(&dynamo, &clock);
    let mut reading = source.read(None).unwrap();
    reading.next_batch().unwrap();
    let position = reading.position();
    drop(reading);
    clock.set(RECORDED_AT + 20 * HOUR);
    let mut reading = source.read(Some(&position)).unwrap();
    let mut rows = 0;
    while let Some(batch) = reading.next_batch().unwrap() {
        rows += batch.rows.len();
    }
    assert!((60..=115 + 60).contains(&rows), "55 items of the scan, and the stream's 60 records: {rows}");
    // When a read ends, the age of its position is counted from that time.
    clock.set(RECORDED_AT + 42 * HOUR);
    assert!(source.read(Some(&reading.position())).is_ok());
}
