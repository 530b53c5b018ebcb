//! The clients of AWS's services, and the runtime for their connections.

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::config::Credentials;
use larder_model::model::AwsPlace;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{OnceCell, watch},
};

use super::{AwsConfig, AwsError, AwsErrorKind, limit::LimitResponses};

/// The connection to AWS, shared by the whole process.
#[derive(Debug)]
pub struct Aws {
    config: AwsConfig,
    runtime: OnceLock<Runtime>,
    /// Whether shutdown has begun, which ends all waits for AWS.
    stop: watch::Sender<bool>,
    /// The configuration that the default chain found. The chain runs once.
    found: OnceCell<SdkConfig>,
    s3: Mutex<HashMap<AwsPlace, aws_sdk_s3::Client>>,
    dynamodb: Mutex<HashMap<AwsPlace, Dynamo>>,
}

/// Clients of DynamoDB and of its streams.
#[derive(Clone, Debug)]
pub struct Dynamo {
    /// Tables.
    pub tables: aws_sdk_dynamodb::Client,
    /// Streams of changes.
    pub streams: aws_sdk_dynamodbstreams::Client,
}

/// The number of worker threads. Two are enough: there are few connections, and callers do the expensive work.
const THREADS: usize = 2;

// === impl Aws ===

impl Aws {
    /// Creates the connection to AWS, without sending a request.
    #[must_use]
    pub fn new(config: AwsConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            runtime: OnceLock::new(),
            stop: watch::Sender::new(false),
            found: OnceCell::new(),
            s3: Mutex::default(),
            dynamodb: Mutex::default(),
        })
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &AwsConfig {
        &self.config
    }

    /// Blocks until `work` is done. Call it only on threads that may block: it panics on a thread that runs async
    /// tasks.
    ///
    /// # Errors
    /// [`AwsError`] if no thread can be started or [`Aws::stop`] was called, and the errors of the work.
    pub fn wait_for<T>(&self, work: impl Future<Output = Result<T, AwsError>>) -> Result<T, AwsError> {
        self.wait(work)
    }

    /// Blocks until `work` is done, like [`Aws::wait_for`], but for any error type.
    ///
    /// # Errors
    /// The same errors as [`Aws::wait_for`].
    pub fn wait<T, E: From<AwsError>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut stop = self.stop.subscribe();
        self.handle()?.block_on(async {
            tokio::select! {
                biased;
                // The sender lives as long as `self`.
                _ = stop.wait_for(|stops| *stops) => Err(AwsError::stopping().into()),
                done = work => done,
            }
        })
    }

    /// Ends every current and future wait for AWS with an error, because the server is shutting down. Lookups that
    /// fetch rows continue, because they have their own timeouts.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns the handle of the runtime, and starts the runtime on the first call.
    ///
    /// # Errors
    /// [`AwsErrorKind::Setup`] if no thread can be started.
    pub fn handle(&self) -> Result<&Handle, AwsError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle());
        }
        let made = Builder::new_multi_thread().worker_threads(THREADS).thread_name("larder-aws").enable_all().build();
        let made = made.map_err(|error: io::Error| AwsError {
            what: "AWS".to_owned(),
            kind: AwsErrorKind::Setup,
            why: format!("cannot start a thread for connections: {error}"),
        })?;
        Ok(self.runtime.get_or_init(|| made).handle())
    }

    /// Returns the S3 client for this region and endpoint, and creates it on the first call.
    pub async fn s3(&self, place: &AwsPlace) -> aws_sdk_s3::Client {
        let found = self.found().await;
        let mut clients = self.s3.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(place.clone()).or_insert_with(|| {
            let mut config = aws_sdk_s3::config::Builder::from(found)
                .force_path_style(self.config.s3_path_style)
                .interceptor(LimitResponses);
            if let Some(endpoint) = place.endpoint.as_ref().or(self.config.s3_endpoint.as_ref()) {
                config = config.endpoint_url(endpoint);
            }
            if let Some(region) = &place.region {
                config = config.region(Region::new(region.clone()));
            }
            aws_sdk_s3::Client::from_conf(config.build())
        });
        client.clone()
    }

    /// Returns the clients of DynamoDB and its streams for this region and endpoint, and creates them on the first
    /// call.
    pub async fn dynamodb(&self, place: &AwsPlace) -> Dynamo {
        let found = self.found().await;
        let mut clients = self.dynamodb.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(place.clone()).or_insert_with(|| {
            let mut tables = aws_sdk_dynamodb::config::Builder::from(found).interceptor(LimitResponses);
            let mut streams = aws_sdk_dynamodbstreams::config::Builder::from(found).interceptor(LimitResponses);
            if let Some(endpoint) = place.endpoint.as_ref().or(self.config.dynamodb_endpoint.as_ref()) {
                tables = tables.endpoint_url(endpoint);
                streams = streams.endpoint_url(endpoint);
            }
            if let Some(region) = &place.region {
                tables = tables.region(Region::new(region.clone()));
                streams = streams.region(Region::new(region.clone()));
            }
            Dynamo {
                tables: aws_sdk_dynamodb::Client::from_conf(tables.build()),
                streams: aws_sdk_dynamodbstreams::Client::from_conf(streams.build()),
            }
        });
        client.clone()
    }

    async fn found(&self) -> &SdkConfig {
        let find = || async {
            let AwsConfig { connect_timeout, attempt_timeout, operation_timeout, attempts_max, .. } = self.config;
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(connect_timeout)
                .read_timeout(attempt_timeout)
                .operation_attempt_timeout(attempt_timeout)
                .operation_timeout(operation_timeout)
                .build();
            let mut chain = aws_config::defaults(BehaviorVersion::latest())
                .timeout_config(timeouts)
                .retry_config(RetryConfig::standard().with_max_attempts(attempts_max));
            if let Some(region) = &self.config.region {
                chain = chain.region(Region::new(region.clone()));
            }
            if let Some(profile) = &self.config.profile {
                chain = chain.profile_name(profile);
            }
            if self.config.keys.is_some() {
                chain = chain.credentials_provider(Credentials::new("stand-in", "stand-in", None, None, "stand-in"));
            }
            chain.load().await
        };
        self.found.get_or_init(find).await
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // `Aws` may be dropped in a task, which must not block. No caller needs a result any more.
            runtime.shutdown_background();
        }
    }
}
