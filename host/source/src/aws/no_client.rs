//! AWS in a build without the feature `aws`: settings, but no clients. Every request returns an error that names the
//! feature.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use larder_model::model::Micros;
use tokio::runtime::Handle;

use super::{AwsConfig, AwsError, AwsErrorKind, ObjectAt, ObjectNow};

/// The settings of AWS.
#[derive(Debug)]
pub struct Aws {
    config: AwsConfig,
}

// === impl Aws ===

impl Aws {
    /// Creates a stand-in that keeps the settings.
    #[must_use]
    pub fn new(config: AwsConfig) -> Arc<Self> {
        Arc::new(Self { config })
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &AwsConfig {
        &self.config
    }

    /// Does nothing, because no caller can be waiting for AWS.
    pub fn stop(&self) {}

    /// Returns an error: this build has no runtime for AWS.
    ///
    /// # Errors
    /// Always, [`AwsErrorKind::Setup`].
    pub fn handle(&self) -> Result<&Handle, AwsError> {
        Err(not_built("AWS".to_owned()))
    }
}

// === impl ObjectAt ===

impl ObjectAt {
    /// Returns an error: this build has no S3 client.
    ///
    /// # Errors
    /// Always, [`AwsErrorKind::Setup`].
    pub fn read(&self, _: &Aws, _bytes_max: i64, _timeout: Duration) -> Result<ObjectNow, AwsError> {
        Err(not_built(self.url()))
    }

    /// Returns an error: this build has no S3 client.
    ///
    /// # Errors
    /// Always, [`AwsErrorKind::Setup`].
    pub fn version(&self, _: &Aws) -> Result<String, AwsError> {
        Err(not_built(self.url()))
    }

    /// Returns an error: this build has no S3 client.
    ///
    /// # Errors
    /// Always, [`AwsErrorKind::Setup`].
    pub fn modified(&self, _: &Aws) -> Result<Micros, AwsError> {
        Err(not_built(self.url()))
    }

    /// Returns an error: this build has no S3 client.
    ///
    /// # Errors
    /// Always, [`AwsErrorKind::Setup`].
    pub fn write(&self, _: &Aws, _: &Bytes, _timeout: Duration) -> Result<(), AwsError> {
        Err(not_built(self.url()))
    }
}

/// A stand-in for the upload of an object, which this build cannot make.
#[derive(Debug)]
pub enum ObjectUpload {}

// === impl ObjectUpload ===

impl ObjectUpload {
    /// Returns an error: this build has no S3 client.
    ///
    /// # Errors
    /// Always, [`AwsErrorKind::Setup`].
    pub fn new(_: Arc<Aws>, at: ObjectAt) -> Result<Self, AwsError> {
        Err(not_built(at.url()))
    }

    /// Is never called.
    ///
    /// # Errors
    /// None.
    pub fn finish(self) -> Result<(), AwsError> {
        match self {}
    }
}

impl io::Write for ObjectUpload {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}

fn not_built(what: String) -> AwsError {
    let why = "this build of larder does not support AWS. hint: build with the Cargo feature 'aws'".to_owned();
    AwsError { what, kind: AwsErrorKind::Setup, why }
}
