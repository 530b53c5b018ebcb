//! A server that emulates S3 and DynamoDB: `moto_server`, which runs in a separate process.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{fixture::eventually, venv, wire};

pub(crate) struct Moto {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// A dummy signature. The server does not check signatures, but rejects changes without one.
const SIGNED: (&str, &str) = (
    "authorization",
    "AWS4-HMAC-SHA256 Credential=stand-in/20261125/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
);

impl Moto {
    pub(crate) fn start() -> Self {
        let python = venv::python("aws-venv", &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aws"));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(python.with_file_name("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, address };
        eventually("moto responds", || {
            TcpStream::connect(address).is_ok() && wire::send(address, "GET", "/moto-api/", &[], b"").status == 200
        });
        moto
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn bucket(&self, name: &str) {
        let made = wire::send(self.address, "PUT", &format!("/{name}"), &[SIGNED], b"");
        assert_eq!(made.status, 200, "{}", made.text());
    }

    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let put = wire::send(self.address, "PUT", &format!("/{bucket}/{key}"), &[SIGNED], bytes);
        assert_eq!(put.status, 200, "{}", put.text());
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let got = wire::send(self.address, "GET", &format!("/{bucket}/{key}"), &[SIGNED], b"");
        assert_eq!(got.status, 200, "{}", got.text());
        got.body
    }

    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        assert_eq!(wire::send(self.address, "DELETE", &format!("/{bucket}/{key}"), &[SIGNED], b"").status, 204);
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
