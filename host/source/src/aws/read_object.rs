//! Reads single objects in S3.

use std::time::Duration;

use larder_model::model::Micros;

use super::{Aws, AwsError, AwsErrorKind, ObjectAt, ObjectNow};

impl ObjectAt {
    /// Reads the object. Blocks, see [`Aws::wait_for`].
    ///
    /// # Errors
    /// [`AwsError`] if the request fails, if the object is larger than `bytes_max`, or if the read takes longer than
    /// `timeout`.
    pub fn read(&self, aws: &Aws, bytes_max: i64, timeout: Duration) -> Result<ObjectNow, AwsError> {
        let what = format!("{}: GetObject", self.url());
        aws.wait_for(async {
            let client = aws.s3(&self.place).await;
            let fetch = async {
                let output = client.get_object().bucket(&self.bucket).key(&self.key).send().await;
                let output = output.map_err(|error| AwsError::of(&what, error))?;
                let too_large = |bytes: i64| {
                    let why = format!("the object has at least {bytes} bytes, but the limit is {bytes_max}");
                    AwsError { what: what.clone(), kind: AwsErrorKind::Refused, why }
                };
                let bytes = output.content_length().unwrap_or(0);
                if bytes > bytes_max {
                    return Err(too_large(bytes));
                }
                let version = output.e_tag().unwrap_or_default().to_owned();
                let (mut body, mut bytes) = (output.body, Vec::new());
                while let Some(chunk) = body.next().await {
                    let broken = |error| AwsError::garbled(&what, format!("the body ended early: {error}"));
                    bytes.extend_from_slice(&chunk.map_err(broken)?);
                    if i64::try_from(bytes.len()).unwrap_or(i64::MAX) > bytes_max {
                        return Err(too_large(i64::try_from(bytes.len()).unwrap_or(i64::MAX)));
                    }
                }
                Ok(ObjectNow { bytes, version })
            };
            // The SDK's own timeouts only cover the response headers.
            let fetched = tokio::time::timeout(timeout, fetch).await;
            fetched.map_err(|_| AwsError::timed_out(&what, timeout))?
        })
    }

    /// Returns the current version of the object, which is its ETag. Blocks, see [`Aws::wait_for`].
    ///
    /// # Errors
    /// [`AwsError`] if the request fails.
    pub fn version(&self, aws: &Aws) -> Result<String, AwsError> {
        let what = format!("{}: HeadObject", self.url());
        aws.wait_for(async {
            let client = aws.s3(&self.place).await;
            let head = client.head_object().bucket(&self.bucket).key(&self.key).send().await;
            let head = head.map_err(|error| AwsError::of(&what, error))?;
            Ok(head.e_tag().unwrap_or_default().to_owned())
        })
    }

    /// Returns when the object was last written. Blocks, see [`Aws::wait_for`].
    ///
    /// # Errors
    /// [`AwsError`] if the request fails, or if the response does not have the time.
    pub fn modified(&self, aws: &Aws) -> Result<Micros, AwsError> {
        let what = format!("{}: HeadObject", self.url());
        aws.wait_for(async {
            let client = aws.s3(&self.place).await;
            let head = client.head_object().bucket(&self.bucket).key(&self.key).send().await;
            let head = head.map_err(|error| AwsError::of(&what, error))?;
            let time = head.last_modified().and_then(|time| Micros::try_from(time.as_nanos() / 1_000).ok());
            time.ok_or_else(|| AwsError::garbled(&what, "the response has no time of the last modification".to_owned()))
        })
    }
}
