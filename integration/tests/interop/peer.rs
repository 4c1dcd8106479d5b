//! A WireGuard implementation that is not ours, as the far side of a tunnel.

use crate::program::{self, Background, word};
use crate::stage::{Family, PATIENCE, Stage, host_address, underlay};
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use gateway::device::netlink::{Route, Via};
use integration::host::Host;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    WireguardGo,
    Boringtun,
}

impl Kind {
    /// The programs that it needs.
    pub(crate) fn programs(self) -> [&'static str; 2] {
        match self {
            Self::WireguardGo => ["wireguard-go", "wg"],
            Self::Boringtun => ["boringtun-cli", "wg"],
        }
    }
}

/// Starts it on `host` as side 2, with vng of this key as side 1. Its device is `wg0`.
pub(crate) fn start(
    stage: &Stage,
    host: &Arc<Host>,
    kind: Kind,
    key: &PrivateKey,
    vng: &PublicKey,
    preshared: Option<&PresharedKey>,
    over: Family,
) -> Background {
    let words: &[&str] = match kind {
        Kind::WireguardGo => &["wireguard-go", "-f", "wg0"],
        Kind::Boringtun => &[
            "boringtun-cli",
            "--foreground",
            "--disable-drop-privileges",
            // With more it reads one socket on several threads, and so reorders a flow by itself: at 1 Gbps
            // a tenth of all segments was sent again.
            "--threads",
            "1",
            "--log",
            "/dev/null",
            "wg0",
        ],
    };
    // Both put their socket into /run/wireguard: here a /run of their own, which goes with them.
    let private = "mount -t tmpfs tmpfs /run && exec \"$@\"";
    let wrapped = [&["unshare", "--mount", "sh", "-c", private, "sh"], words].concat();
    let process = Background::start(stage, host, &wrapped);
    let socket = format!("/proc/{}/root/run/wireguard/wg0.sock", process.pid());
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(&socket).exists() {
        assert!(Instant::now() < deadline, "{kind:?}: {}", process.said());
        std::thread::yield_now();
    }

    let preshared = preshared.map_or(String::new(), |key| {
        format!("PresharedKey = {}\n", &*key.to_base64())
    });
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\n[Peer]\nPublicKey = {vng}\n{preshared}\
         AllowedIPs = 10.1.0.0/16, fd00:1::/48\nEndpoint = {}:51820\n",
        &*key.to_base64(),
        underlay(1, over)
    );
    let file = stage.scratch.write("peer.conf", &text).unwrap();
    let mounts = format!("--mount=/proc/{}/ns/mnt", process.pid());
    let set = ["nsenter", &mounts, "wg", "setconf", "wg0", word(&file)];
    let done = program::run(stage, host, Duration::from_secs(10), &set);
    assert!(done.success, "{kind:?}: {done:?} {}", process.said());

    host.configure(|netlink| netlink.set_mtu("wg0", 1420))
        .unwrap();
    let addresses = Family::BOTH.map(|family| {
        let length = family.of([16, 48]);
        format!("{}/{length}", host_address(2, family))
    });
    host.address("wg0", &addresses.each_ref().map(String::as_str))
        .unwrap();
    for prefix in ["10.1.0.0/16", "fd00:1::/48"] {
        let route = Route::new(prefix.parse().unwrap(), Via::Link("wg0"));
        host.configure(|netlink| netlink.add_route(&route)).unwrap();
    }
    process
}
