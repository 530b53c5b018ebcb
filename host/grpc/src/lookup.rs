//! Decodes lookup messages, and encodes their responses.

use larder_serving::{Answer, LookupError, OnlineRequest, Protocol, ResponseBudget};
use prost::Message;
use tonic::Status;

use super::{
    answer,
    message::{Encoding, PREFIX_BYTES, framed},
    proto::feast::serving::GetOnlineFeaturesRequest,
    request,
    weight::lookup_bytes,
};

/// The protocol of lookups over gRPC. Requests are decompressed messages without a prefix. Responses have the prefix,
/// and are compressed with `encoding` if that makes them shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grpc {
    /// The compression of the response, if any.
    pub(super) encoding: Option<Encoding>,
}

impl Protocol for Grpc {
    type Error = Status;

    /// All bytes are leased, because a connection can have many responses that its client does not read.
    const UNLEASED_BYTES_MAX: usize = 0;

    fn decoded_bytes(&self, body: &[u8]) -> usize {
        lookup_bytes(body)
    }

    fn decode<T>(
        &self,
        body: &[u8],
        then: impl FnOnce(&OnlineRequest<'_>) -> Result<T, LookupError<Status>>,
    ) -> Result<T, LookupError<Status>> {
        let message = GetOnlineFeaturesRequest::decode(body).map_err(|error| {
            LookupError::Protocol(Status::internal(format!("the message cannot be decoded: {error}")))
        })?;
        then(&request::translate(&message).map_err(LookupError::Protocol)?)
    }

    fn encode(
        &self,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
        budget: &mut ResponseBudget,
    ) -> Result<(), LookupError<Status>> {
        let message = answer::translate(answer, budget)?;
        let len = PREFIX_BYTES + message.encoded_len();
        let mut encoded = Vec::new();
        budget.reserve(&mut encoded, len, len)?;
        encoded.resize(PREFIX_BYTES, 0);
        // Encoding does not fail, because the capacity was reserved.
        let _ = message.encode(&mut encoded);
        drop(message);
        if self.encoding.is_some() {
            budget.hold(len)?;
        }
        let mut framed = framed(encoded, self.encoding);
        // A call has one response, so this does not copy.
        if out.is_empty() {
            *out = framed
        } else {
            out.append(&mut framed)
        }
        Ok(())
    }
}
