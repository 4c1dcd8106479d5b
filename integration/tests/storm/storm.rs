//! A storm around its packets: the lab before it, the pace of it, and what must hold after it.

use crate::PATIENCE;
use gateway::show::view::Counters;
use integration::lab::{Lab, LabOptions, ONPREM_HOST};
use integration::stage::{Turn, settled};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

/// Packets of one storm.
const PACKETS: u64 = 1_000_000;
const SEED: u64 = 0x5eed_0f57_0a11;
/// How much resident memory may be more after a storm than before it, KiB. All buffers are of fixed size,
/// but untouched pages of them are not resident before.
const GROWTH: u64 = 48 * 1024;

/// A lab with a gateway in it, which a storm is to hit. One at a time: each needs the whole machine.
pub(crate) struct Storm {
    /// The lab; its branch's gateway does not run.
    pub(crate) lab: Lab,
    /// What all chance follows from.
    pub(crate) seed: u64,
    packets: u64,
    process: u32,
    /// Resident memory before, KiB.
    resident: u64,
    before: Counters,
    /// Packets that the kernel has taken so far.
    pub(crate) sent: u64,
    _turn: Turn,
}

impl Storm {
    /// A lab in which packets pass.
    pub(crate) fn new() -> Self {
        let turn = Turn::take();
        let number =
            |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
        let (seed, packets) = (
            number("VNG_STORM_SEED", SEED),
            number("VNG_STORM_PACKETS", PACKETS),
        );
        println!("seed {seed}, {packets} packets");
        let options = LabOptions {
            program: Some(env!("CARGO_BIN_EXE_vng-lab").into()),
            ..LabOptions::default()
        };
        let mut lab = Lab::new(&options).unwrap();
        // The branch's gateway stays off: the test plays it where it needs it.
        lab.edge.start().unwrap();
        lab.gateway.start().unwrap();
        assert!(passes(&lab), "{}", lab.gateway.log());
        let process = lab.gateway.pid().unwrap();
        Self {
            seed,
            packets,
            process,
            resident: memory(process, "VmRSS:"),
            before: lab.gateway.counters().unwrap(),
            sent: 0,
            lab,
            _turn: turn,
        }
    }

    /// Has `send` send all packets, and waits for the gateway after every `burst`. `send` is told whether
    /// it is the last of a burst, and says whether the kernel has taken the packet.
    pub(crate) fn send(&mut self, burst: u64, port: &str, mut send: impl FnMut(bool) -> bool) {
        let began = Instant::now();
        let mut refused = 0_u64;
        let mut received = self.received(port);
        while self.sent < self.packets {
            let last = (self.sent + 1).is_multiple_of(burst) || self.sent + 1 == self.packets;
            if send(last) {
                self.sent += 1;
                if last {
                    self.catch_up(port, received, burst);
                    received = self.received(port);
                }
            } else {
                refused += 1;
                assert!(refused < self.packets, "the kernel refuses most of them");
            }
        }
        println!(
            "{} packets in {:.1?}, {refused} more refused by the kernel",
            self.sent,
            began.elapsed()
        );
    }

    /// Waits until most of a burst has come in at `port`, which had received `before` then, and nothing more
    /// comes; or for a bounded number of looks, since not every packet is for the gateway.
    fn catch_up(&self, port: &str, before: u64, burst: u64) {
        const LOOKS: usize = 40;
        let mut last = before;
        for _ in 0..LOOKS {
            let now = self.received(port);
            if now == last && now >= before + burst * 3 / 4 {
                return;
            }
            last = now;
        }
    }

    fn received(&self, port: &str) -> u64 {
        let counters = self.lab.gateway.counters();
        let counters =
            counters.unwrap_or_else(|error| panic!("{error}\n{}", self.lab.gateway.log()));
        counters
            .totals
            .received
            .get(port)
            .map_or(0, |sum| sum.packets)
    }

    /// What must hold after a storm into `port`.
    pub(crate) fn judge(mut self, port: &str, reasons: &[&str]) {
        let gateway = &self.lab.gateway;
        let log = gateway.log();
        assert!(!log.contains("panicked"), "{log}");
        assert_eq!(gateway.pid(), Some(self.process));

        let counters = self.balanced();
        let packets = |counters: &Counters| counters.totals.received[port].packets;
        let received = packets(&counters) - packets(&self.before);
        println!(
            "{port} received {received}, kernel drops {:?}",
            counters.kernel_drops
        );
        for (reason, sum) in &counters.totals.dropped {
            println!("  {reason:24} {:>9}", sum.packets);
        }
        assert!(received >= self.sent / 2, "{received} of {}", self.sent);
        for &reason in reasons {
            let dropped = counters.totals.dropped.contains_key(reason);
            assert!(dropped, "nothing dropped for {reason}");
        }

        let (resident, peak) = (
            memory(self.process, "VmRSS:"),
            memory(self.process, "VmHWM:"),
        );
        println!(
            "resident {} KiB before, {resident} after, {peak} at most",
            self.resident
        );
        assert!(
            peak < self.resident + GROWTH,
            "{} to {peak} KiB",
            self.resident
        );

        assert!(passes(&self.lab), "{}", self.lab.gateway.log());
        self.balanced();
        self.lab.stop().unwrap();
    }

    /// The counters as `vng show counters --json` prints them, once they balance.
    fn balanced(&self) -> Counters {
        settled(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_vng-lab"))
                .arg0("vng")
                .args(["show", "counters", "--json", "--socket"])
                .arg(self.lab.gateway.socket())
                .output()
                .unwrap();
            let log = self.lab.gateway.log();
            assert!(output.status.success(), "{output:?}\n{log}");
            serde_json::from_slice(&output.stdout).unwrap()
        })
    }
}

/// Whether a ping gets through the gateway and back, in both families.
fn passes(lab: &Lab) -> bool {
    let host = lab.host("vnet").unwrap();
    let pass = |target: &str| host.reaches(target.parse().unwrap(), PATIENCE).unwrap();
    ONPREM_HOST.into_iter().all(pass)
}

/// A line of `/proc/PID/status`, KiB.
fn memory(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
