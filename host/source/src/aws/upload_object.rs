//! Writes large objects in S3, part by part.

use std::{io, mem, sync::Arc};

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};

use super::{Aws, AwsError, ObjectAt};

/// Writes an object whose size is not known in advance. The object exists only after [`ObjectUpload::finish`]. Until then, an
/// object with the same key keeps its content. If the upload is dropped, its parts are deleted.
///
/// Blocks, see [`Aws::wait_for`].
#[derive(Debug)]
pub struct ObjectUpload {
    aws: Arc<Aws>,
    at: ObjectAt,
    client: Client,
    /// The bytes of the next part.
    buffer: Vec<u8>,
    /// The parts that were sent, if there are any.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    upload: String,
    done: Vec<CompletedPart>,
}

/// The size in bytes of the first parts. S3 requires at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// After each of these many parts, the parts become larger by [`PART_BYTES`], because S3 allows only 10,000 parts.
const GROWS_AFTER: usize = 1_000;

// === impl ObjectUpload ===

impl ObjectUpload {
    /// Prepares to write an object. Sends no request to S3.
    ///
    /// # Errors
    /// [`AwsError`] if no thread can be started.
    pub fn new(aws: Arc<Aws>, at: ObjectAt) -> Result<Self, AwsError> {
        let client = aws.wait_for(async { Ok(aws.s3(&at.place).await) })?;
        Ok(Self { aws, at, client, buffer: Vec::new(), parts: None })
    }

    /// Writes the object with all bytes.
    ///
    /// # Errors
    /// [`AwsError`] if a request fails. The object is unchanged, unless the response to the last request was lost.
    pub fn finish(mut self) -> Result<(), AwsError> {
        if self.parts.is_none() {
            let body = ByteStream::from(mem::take(&mut self.buffer));
            let put = self.client.put_object().bucket(&self.at.bucket).key(&self.at.key).body(body);
            let failed = |error| AwsError::of(self.what("PutObject"), error);
            return self.aws.wait_for(async { put.send().await.map(drop).map_err(failed) });
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        let Some(Parts { upload, done }) = &self.parts else { return Ok(()) };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(done.clone())).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.at.bucket).key(&self.at.key);
        let complete = complete.upload_id(upload).multipart_upload(parts);
        let failed = |error| AwsError::of(self.what("CompleteMultipartUpload"), error);
        self.aws.wait_for(async { complete.send().await.map_err(failed) })?;
        self.parts = None;
        Ok(())
    }

    fn part_bytes(&self) -> usize {
        let parts = self.parts.as_ref().map_or(0, |parts| parts.done.len());
        PART_BYTES * (1 + parts / GROWS_AFTER)
    }

    /// Sends the buffer as the next part.
    fn send_part(&mut self) -> Result<(), AwsError> {
        if self.parts.is_none() {
            let create = self.client.create_multipart_upload().bucket(&self.at.bucket).key(&self.at.key);
            let failed = |error| AwsError::of(self.what("CreateMultipartUpload"), error);
            let created = self.aws.wait_for(async { create.send().await.map_err(failed) })?;
            let upload = created.upload_id.unwrap_or_default();
            self.parts = Some(Parts { upload, done: Vec::new() });
        }
        let Some(Parts { upload, done }) = &self.parts else { return Ok(()) };
        let number = i32::try_from(done.len() + 1).unwrap_or(i32::MAX);
        let send = self.client.upload_part().bucket(&self.at.bucket).key(&self.at.key).upload_id(upload);
        let send = send.part_number(number).body(ByteStream::from(mem::take(&mut self.buffer)));
        let failed = |error| AwsError::of(self.what("UploadPart"), error);
        let sent = self.aws.wait_for(async { send.send().await.map_err(failed) })?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build();
        if let Some(parts) = &mut self.parts {
            parts.done.push(part);
        }
        Ok(())
    }

    fn what(&self, operation: &str) -> String {
        format!("{}: {operation}", self.at.url())
    }
}

impl io::Write for ObjectUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= self.part_bytes() {
            self.send_part().map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    /// Does nothing, because a part has a minimum size.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ObjectUpload {
    fn drop(&mut self) {
        let Some(Parts { upload, .. }) = self.parts.take() else { return };
        let abort = self.client.abort_multipart_upload().bucket(&self.at.bucket).key(&self.at.key).upload_id(upload);
        // The error that ended the upload matters more than an error here.
        let failed = |error| AwsError::of(self.what("AbortMultipartUpload"), error);
        let _ = self.aws.wait_for(async { abort.send().await.map_err(failed) });
    }
}
