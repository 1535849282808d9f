//! An S3-speaking server (moto), in memory, one per test that asks.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, free_port};
use crate::tools::installed;

/// A running server with one bucket, `freshet`.
#[derive(Debug)]
pub struct S3 {
    _process: Process,
    port: u16,
}

impl S3 {
    /// Starts it; its log goes into `run`.
    pub fn start(run: &Path) -> S3 {
        let home = installed("python").expect("need() was asked before");
        let port = free_port();
        let mut command = Command::new(home.join("venv/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut process = Process::start(&mut command, &run.join("s3.log"));
        process.wait_ready(Duration::from_secs(60), |_| TcpStream::connect(("127.0.0.1", port)).ok());
        let bucket = Command::new(home.join("venv/bin/python"))
            .args(["-c", CREATE_BUCKET, &format!("http://127.0.0.1:{port}")])
            .status()
            .expect("python runs");
        assert!(bucket.success(), "the bucket was made");
        S3 { _process: process, port }
    }

    /// Settings of a server whose data is `s3://freshet/<prefix>`.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("storage.s3.endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("storage.s3.region", "us-east-1".to_owned()),
            ("storage.s3.access-key", "freshet".to_owned()),
            ("storage.s3.secret-key", "freshet-secret".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

const CREATE_BUCKET: &str = "import sys, boto3; boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', \
aws_access_key_id='freshet', aws_secret_access_key='freshet-secret').create_bucket(Bucket='freshet')";
