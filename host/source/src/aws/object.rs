//! Single objects in S3, for callers that need only one object, such as a Feast registry.

use larder_model::model::AwsPlace;

/// An object in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectAt {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// The region and endpoint to use.
    pub place: AwsPlace,
}

/// The content of an object at one time.
#[derive(Clone, Debug)]
pub struct ObjectNow {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The object's ETag, which differs for different contents.
    pub version: String,
}

// === impl ObjectAt ===

impl ObjectAt {
    /// Parses a URL of the form `s3://bucket/key`; returns `None` for any other URL.
    #[must_use]
    pub fn parse(url: &str, place: AwsPlace) -> Option<Self> {
        let (bucket, key) = url.strip_prefix("s3://")?.split_once('/')?;
        let has_both = !bucket.is_empty() && !key.is_empty();
        has_both.then(|| Self { bucket: bucket.to_owned(), key: key.to_owned(), place })
    }

    /// Returns its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}
