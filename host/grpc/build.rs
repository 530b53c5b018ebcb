//! Makes Rust of the `.proto` files under `host/grpc/proto`, and the descriptors that gRPC's reflection hands out.
//!
//! Feast's values are not made: `larder_model` has them, and there is one type for them in the tree.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["feast/serving/ServingService.proto", "feast/serving/GrpcServer.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out_dir).join("feast.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        // Messages in the order of their keys, so that equal ones have equal bytes.
        .btree_map(".")
        .extern_path(".feast.types", "::larder_model::model")
        .extern_path(".feast.types.Value", "::larder_model::model::FeastValue")
        .compile_fds(descriptors)?;
    Ok(())
}
