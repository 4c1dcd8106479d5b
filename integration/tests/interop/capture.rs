//! What an interface has carried: dumpcap takes a bounded number of packets, tshark reads them.

use crate::program::{self, Background, word};
use crate::stage::Stage;
use integration::host::Host;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The programs that it needs.
pub(crate) const PROGRAMS: [&str; 2] = ["dumpcap", "tshark"];

/// A capture on its way.
pub(crate) struct Capture<'a> {
    stage: &'a Stage,
    host: Arc<Host>,
    process: Background,
    file: PathBuf,
}

impl<'a> Capture<'a> {
    /// Takes `count` packets of an interface that pass the filter, `length` bytes of each, within 20 s.
    pub(crate) fn start(
        stage: &'a Stage,
        host: &Arc<Host>,
        interface: &str,
        count: u32,
        length: u32,
        filter: &str,
    ) -> Self {
        let file = stage
            .scratch
            .path()
            .join(format!("{}-{interface}.pcapng", host.name()));
        let (count, length) = (count.to_string(), length.to_string());
        let limits = ["-c", &count, "-s", &length, "-a", "duration:20"];
        // dumpcap gives up root's right to open the test's own directory: the shell opens the file.
        let shell = ["sh", "-c", "file=$1; shift; exec \"$@\" > \"$file\"", "sh"];
        let dumpcap = [word(&file), "dumpcap", "-i", interface, "-w", "-"];
        let words = [&shell[..], &dumpcap, &["-f", filter], &limits];
        let process = program::start(stage, host, &words.concat());
        // dumpcap says where it writes once the interface is open.
        process.wait_for("File: ", 1).unwrap();
        Self {
            stage,
            host: Arc::clone(host),
            process,
            file,
        }
    }

    /// Waits for the end; then the packets can be read.
    pub(crate) fn finish(mut self) -> Self {
        let success = self.process.wait().unwrap();
        assert!(success, "dumpcap: {}", self.process.said());
        self
    }

    /// The value of a field in every packet that passes a display filter.
    pub(crate) fn fields(&self, filter: &str, field: &str) -> Vec<String> {
        let text = self.read(filter, &["-T", "fields", "-e", field]);
        text.lines().map(str::to_owned).collect()
    }

    /// Every packet that passes a display filter, for a person to read.
    pub(crate) fn describe(&self, filter: &str) -> String {
        self.read(filter, &["-O", "ip,ipv6,tcp", "-x"])
    }

    fn read(&self, filter: &str, output: &[&str]) -> String {
        let checks = ["tcp", "udp", "ip"].map(|name| format!("{name}.check_checksum:TRUE"));
        let mut words = vec!["tshark", "-n", "-r", word(&self.file), "-2", "-R", filter];
        for check in &checks {
            words.extend(["-o", check]);
        }
        words.extend(output);
        let ended = program::run(self.stage, &self.host, Duration::from_mins(1), &words);
        assert!(ended.success, "tshark: {ended:?}");
        ended.out
    }

    /// How many packets pass a display filter.
    pub(crate) fn count(&self, filter: &str) -> usize {
        self.fields(filter, "frame.number").len()
    }
}
