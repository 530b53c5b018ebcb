//! Operations on buckets and objects.

use std::{collections::BTreeMap, fmt::Write as _, ops::Bound};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Object, State,
    http::{HttpResponse, Rejection, Wanted, complete, encode, escape, head, http_date, iso_date},
};

/// Query parameters of operations that are not supported.
const UNSUPPORTED: [&str; 12] = [
    "delimiter",
    "uploads",
    "uploadId",
    "versionId",
    "versions",
    "acl",
    "tagging",
    "policy",
    "location",
    "lifecycle",
    "partNumber",
    "attributes",
];

/// The requested part of an object.
enum Part {
    All,
    /// The bytes from the first index up to, but not including, the second index.
    Some(usize, usize),
    /// No part, because the range is outside the object.
    None,
}

/// Parses `bytes=a-b`, `bytes=a-` or `bytes=-n`; any other text selects the whole object.
fn part(range: Option<&str>, len: usize) -> Part {
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return Part::All;
    };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Err(_), Ok(count)) if first.is_empty() && count > 0 && len > 0 => Part::Some(len.saturating_sub(count), len),
        (Err(_), Ok(_)) if first.is_empty() => Part::None,
        (Ok(first), Ok(last)) if last < first => Part::All,
        (Ok(first), Ok(_)) if first >= len => Part::None,
        (Ok(first), Ok(last)) => Part::Some(first, last.saturating_add(1).min(len)),
        (Ok(first), Err(_)) if last.is_empty() && first < len => Part::Some(first, len),
        (Ok(_), Err(_)) if last.is_empty() => Part::None,
        _ => Part::All,
    }
}

/// Returns whether the list of ETags in a condition contains this ETag or `*`.
fn has(condition: &str, etag: &str) -> bool {
    condition.split(',').map(str::trim).any(|one| one == "*" || one.trim_matches('"') == etag.trim_matches('"'))
}

// === impl State ===

impl State {
    pub(super) fn call(&mut self, operation: &str, wanted: &Wanted<'_>) -> Result<HttpResponse, Rejection> {
        let is_copy = wanted.headers.contains_key("x-amz-copy-source");
        if is_copy
            || UNSUPPORTED
                .iter()
                .any(|name| wanted.query(name).is_some_and(|value| *name != "delimiter" || !value.is_empty()))
        {
            return Err(Rejection(501, "NotImplemented"));
        }
        if operation == "CreateBucket" {
            self.buckets.entry(wanted.bucket.clone()).or_default();
            return Ok(complete(head(200), ""));
        }
        let objects = self.buckets.get_mut(&wanted.bucket).ok_or(Rejection(404, "NoSuchBucket"))?;
        let found = objects.get(&wanted.key);
        match operation {
            "HeadBucket" => Ok(complete(head(200).header("x-amz-bucket-region", "eu-west-1"), "")),
            "ListObjectsV2" => self.list(wanted),
            "GetObject" => {
                let response = found.ok_or(Rejection(404, "NoSuchKey")).and_then(|object| get(object, wanted));
                self.count_get(&wanted.bucket, &wanted.key);
                response
            }
            "HeadObject" => get(found.ok_or(Rejection(404, "NoSuchKey"))?, wanted),
            "PutObject" => {
                let etag = found.map(|object| object.etag.as_str());
                if let Some(condition) = wanted.header("if-match")
                    && !etag.is_some_and(|etag| has(condition, etag))
                {
                    return Err(if etag.is_some() {
                        Rejection(412, "PreconditionFailed")
                    } else {
                        Rejection(404, "NoSuchKey")
                    });
                }
                if let Some(condition) = wanted.header("if-none-match")
                    && etag.is_some_and(|etag| has(condition, etag))
                {
                    return Err(Rejection(412, "PreconditionFailed"));
                }
                let object = Object::new(wanted.content().ok_or(Rejection(400, "IncompleteBody"))?);
                let response = complete(head(200).header("etag", &object.etag), "");
                objects.insert(wanted.key.clone(), object);
                Ok(response)
            }
            "DeleteObject" => {
                objects.remove(&wanted.key);
                Ok(complete(head(204), ""))
            }
            _ => Err(Rejection(405, "MethodNotAllowed")),
        }
    }

    fn list(&self, wanted: &Wanted<'_>) -> Result<HttpResponse, Rejection> {
        if wanted.query("list-type") != Some("2") {
            return Err(Rejection(501, "NotImplemented"));
        }
        let nothing = BTreeMap::new();
        // A bucket that was created after the stale list was recorded is empty in that list.
        let objects = match &self.listed {
            Some(listed) => listed.get(&wanted.bucket).unwrap_or(&nothing),
            None => self.buckets.get(&wanted.bucket).ok_or(Rejection(404, "NoSuchBucket"))?,
        };
        let invalid = || Rejection(400, "InvalidArgument");
        let max = wanted.query("max-keys").map_or(Ok(1_000), str::parse::<usize>).map_err(|_| invalid())?;
        let prefix = wanted.query("prefix").unwrap_or_default();
        let after = match wanted.query("continuation-token") {
            Some(token) => {
                let key = STANDARD.decode(token).map_err(|_| invalid())?;
                String::from_utf8(key).map_err(|_| invalid())?
            }
            None => wanted.query("start-after").unwrap_or_default().to_owned(),
        };
        let all = objects.range::<str, _>((Bound::Excluded(after.as_str()), Bound::Unbounded));
        let mut all = all.filter(|(key, _)| key.starts_with(prefix)).peekable();
        let page: Vec<(&String, &Object)> = all.by_ref().take(max.min(self.page_size)).collect();
        let name = |text: &str| {
            let is_url = wanted.query("encoding-type") == Some("url");
            if is_url { encode(text) } else { escape(text) }
        };
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>{}</Name><Prefix>{}</Prefix><MaxKeys>{max}</MaxKeys><KeyCount>{}</KeyCount>",
            escape(&wanted.bucket),
            name(prefix),
            page.len(),
        );
        // A list with `max-keys=0` ends after its first page.
        let next = page.last().filter(|_| all.peek().is_some());
        let _ = write!(body, "<IsTruncated>{}</IsTruncated>", next.is_some());
        if let Some(encoding) = wanted.query("encoding-type") {
            let _ = write!(body, "<EncodingType>{}</EncodingType>", escape(encoding));
        }
        if let Some(token) = wanted.query("continuation-token") {
            let _ = write!(body, "<ContinuationToken>{}</ContinuationToken>", escape(token));
        }
        if let Some((key, _)) = next {
            let _ = write!(body, "<NextContinuationToken>{}</NextContinuationToken>", STANDARD.encode(key.as_bytes()));
        }
        for (key, object) in page {
            let _ = write!(
                body,
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                 <StorageClass>STANDARD</StorageClass></Contents>",
                name(key),
                iso_date(object.modified),
                escape(&object.etag),
                object.bytes.len(),
            );
        }
        body.push_str("</ListBucketResult>");
        Ok(complete(head(200).header("content-type", "application/xml"), body))
    }
}

/// Returns an object, or the requested range of it. Checks the conditions before the range.
fn get(object: &Object, wanted: &Wanted<'_>) -> Result<HttpResponse, Rejection> {
    if wanted.header("if-match").is_some_and(|condition| !has(condition, &object.etag)) {
        return Err(Rejection(412, "PreconditionFailed"));
    }
    let common = |status: u16| {
        head(status)
            .header("etag", &object.etag)
            .header("last-modified", http_date(object.modified))
            .header("accept-ranges", "bytes")
    };
    if wanted.header("if-none-match").is_some_and(|condition| has(condition, &object.etag)) {
        return Ok(complete(common(304), ""));
    }
    let len = object.bytes.len();
    let (head, bytes) = match part(wanted.header("range"), len) {
        Part::All => (common(200), object.bytes.clone()),
        Part::Some(from, to) => (
            common(206).header("content-range", format!("bytes {from}-{}/{len}", to - 1)),
            object.bytes.slice(from..to),
        ),
        Part::None => return Err(Rejection(416, "InvalidRange")),
    };
    let head = head.header("content-type", "binary/octet-stream").header("content-length", bytes.len());
    // For HEAD, the HTTP server sends only the head.
    Ok(complete(head, bytes))
}
