//! Generates Rust code from the `.proto` files in `host/grpc/proto`, and the descriptors for gRPC reflection.
//!
//! Generates no types for Feast's values, because they are in `larder_model`.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["feast/serving/ServingService.proto", "feast/serving/GrpcServer.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&out_dir).join("feast.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        // Maps are sorted by key, so that equal messages have equal bytes.
        .btree_map(".")
        .extern_path(".feast.types", "::larder_model::model")
        .extern_path(".feast.types.Value", "::larder_model::model::FeastValue")
        .compile_fds(descriptors)?;
    Ok(())
}
