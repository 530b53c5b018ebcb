//! A gRPC client, based on tonic. Calls are made by path. Invalid calls send raw bytes instead of messages.

use std::{net::SocketAddr, time::Duration};

use larder_grpc::proto::feast::serving::{GetOnlineFeaturesRequest, GetOnlineFeaturesResponse};
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use tonic_prost::ProstCodec;

use crate::fixture::Fixture;

/// The paths of the lookup in both services.
pub(crate) const LOOKUPS: [&str; 2] =
    ["/GrpcFeatureServer/GetOnlineFeatures", "/feast.serving.ServingService/GetOnlineFeatures"];
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A client with one connection.
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    pub(crate) channel: Grpc<Channel>,
    token: Option<&'static str>,
}

/// A codec that sends and returns raw bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

// === impl Client ===

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(Duration::from_secs(60));
        let channel = Grpc::new(runtime.block_on(endpoint.connect()).unwrap());
        Self { runtime, channel: channel.max_decoding_message_size(64 << 20), token: None }
    }

    pub(crate) fn of(fixture: &Fixture) -> Self {
        Self::to(fixture.grpc_address())
    }

    pub(crate) fn with(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(token) = self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request
    }

    pub(crate) fn call<M, A>(&mut self, path: &'static str, message: M) -> Result<A, Status>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        let request = self.request(message);
        self.runtime.block_on(async {
            self.channel.ready().await.unwrap();
            let codec = ProstCodec::<M, A>::default();
            Ok(self.channel.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
        })
    }

    pub(crate) fn raw(&mut self, path: &'static str, bytes: &[u8]) -> Result<Vec<u8>, Status> {
        let request = self.request(bytes.to_vec());
        self.runtime.block_on(async {
            self.channel.ready().await.unwrap();
            Ok(self.channel.unary(request, PathAndQuery::from_static(path), Raw).await?.into_inner())
        })
    }

    pub(crate) fn look_up(&mut self, message: &GetOnlineFeaturesRequest) -> Result<GetOnlineFeaturesResponse, Status> {
        self.call(LOOKUPS[0], message.clone())
    }

    pub(crate) fn health(&mut self, service: &str) -> Result<ServingStatus, Status> {
        let answer: HealthCheckResponse = self.call(CHECK, HealthCheckRequest { service: service.to_owned() })?;
        Ok(answer.status())
    }
}

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}
