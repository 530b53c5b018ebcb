//! A limit on the size of AWS responses, so that a server that does not stop sending cannot exhaust memory.

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeDeserializationInterceptorContextMut},
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{body::SdkBody, config_bag::ConfigBag};
use http_body_util::Limited;

/// Limits the size of every response body, except the contents of objects. The limit is larger than any other response
/// of S3 and DynamoDB.
#[derive(Debug)]
pub(super) struct LimitResponses;

/// The maximum size of a response in bytes. DynamoDB returns at most 16 MB of items, and S3 at most 1,000 keys of 1 kB.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// The operation that reads an object. Its callers read the body in chunks and limit its size themselves.
const GET_OBJECT: &str = "GetObject";

impl Intercept for LimitResponses {
    fn name(&self) -> &'static str {
        "LimitResponses"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_get = config.load::<Metadata>().is_some_and(|operation| operation.name() == GET_OBJECT);
        let is_object = is_get && context.response().status().is_success();
        if !is_object {
            let body = context.response_mut().body_mut();
            let whole = std::mem::replace(body, SdkBody::taken());
            *body = SdkBody::from_body_1_x(Limited::new(whole, RESPONSE_BYTES_MAX));
        }
        Ok(())
    }
}
