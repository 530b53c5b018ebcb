//! Writes single objects in S3.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::{Aws, AwsError, ObjectAt};

impl ObjectAt {
    /// Writes the object, or replaces it. Blocks, see [`Aws::wait_for`]. [`Aws::stop`] does not end the wait, because logs
    /// are written during a shutdown.
    ///
    /// # Errors
    /// [`AwsError`] if the request fails, or takes longer than `timeout`.
    pub fn write(&self, aws: &Aws, bytes: &Bytes, timeout: Duration) -> Result<(), AwsError> {
        let what = format!("{}: PutObject", self.url());
        aws.handle()?.block_on(async {
            let client = aws.s3(&self.place).await;
            let request = client.put_object().bucket(&self.bucket).key(&self.key);
            let put = async { request.body(ByteStream::from(bytes.clone())).send().await };
            let put = tokio::time::timeout(timeout, put).await.map_err(|_| AwsError::timed_out(&what, timeout))?;
            put.map(|_| ()).map_err(|error| AwsError::of(&what, error))
        })
    }
}
