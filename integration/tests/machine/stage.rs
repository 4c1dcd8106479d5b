//! A gateway on a machine of its own with an underlay, and what the machine's kernel says of itself.
//!
//! ```text
//!   near: gateway, vng0 10.1.0.4, fd00:1::4                  far: the kernel
//!   underlay eth0: 192.0.2.1, 2001:db8::1  ----- veth -----  192.0.2.2, 2001:db8::2
//!   link eth1: 172.16.0.1, fd00:16::1      ----- veth -----  172.16.0.2, fd00:16::2
//! ```

use crypto::key::PrivateKey;
use gateway::device::link::{LinkOptions, LinkSocket};
use gateway::device::offload::Offload;
use integration::gateway::Gateway;
use integration::host::{Host, connect};
pub(crate) use integration::stage::{PATIENCE, wait_for};
use integration::wire::EVERYTHING;
use integration::{pair, stage};
use std::io::IoSlice;
use std::ops::Deref;
use std::process::Command;
use std::sync::Arc;

pub(crate) struct Stage {
    pub(crate) near: Arc<Host>,
    pub(crate) far: Arc<Host>,
    shared: stage::Stage,
}

impl Deref for Stage {
    type Target = stage::Stage;

    fn deref(&self) -> &stage::Stage {
        &self.shared
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let [near, far] = pair::hosts().unwrap();
        let stage = Self {
            near,
            far,
            shared: stage::Stage::new(env!("CARGO_BIN_EXE_vng-lab")),
        };
        stage.lay_link();
        stage
    }

    /// Takes the link's interface away, and lays another of the same name.
    pub(crate) fn lay_again(&self) {
        self.near
            .configure(|netlink| netlink.delete_link("eth1"))
            .unwrap();
        self.lay_link();
    }

    fn lay_link(&self) {
        connect((&self.near, "eth1"), (&self.far, "eth1")).unwrap();
        self.near.address("eth1", &[]).unwrap();
        let far = ["172.16.0.2/30", "fd00:16::2/126"];
        self.far.address("eth1", &far).unwrap();
    }

    /// A gateway on the near machine; it does not run yet.
    pub(crate) fn gateway(&self, name: &str, device: &str, rest: &str) -> Gateway {
        let (vnet, control) = (pair::vnet(1, device, ""), self.control(name));
        self.gateway_on(&self.near, name, &format!("{vnet}\n{rest}\n\n{control}"))
    }

    /// A `[vpn]` table with one site, on this port, with these prefixes.
    pub(crate) fn vpn(&self, port: u16, prefixes: &[&str]) -> String {
        let [key, peer] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let port = format!("listen_port      = {port}\n");
        let table = pair::vpn(&self.key_file("vpn", &key), &port);
        format!(
            r#"{table}[[vpn.site]]
name       = "far"
public_key = "{}"
endpoint   = "192.0.2.2:51820"
prefixes   = {prefixes:?}
"#,
            peer.public_key()
        )
    }

    /// `vng reload`; what it says.
    pub(crate) fn reload(&self, gateway: &Gateway) -> String {
        let output = self.command(gateway, &["reload"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "vng reload: {error}");
        String::from_utf8(output.stdout).unwrap() + &error
    }
}

/// Runs `ip` on a host; its output.
pub(crate) fn ip(host: &Host, arguments: &str) -> String {
    let output = host
        .run(|| {
            Command::new("ip")
                .args(arguments.split_ascii_whitespace())
                .output()
        })
        .unwrap()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// All routes of a host, one a line, without what changes by itself.
pub(crate) fn routes(host: &Host) -> Vec<String> {
    let mut lines: Vec<String> = ["-4", "-6"]
        .into_iter()
        .flat_map(|family| {
            let text = ip(host, &format!("{family} route show table main"));
            // The kernel makes a link-local address up as it likes.
            text.lines()
                .filter(|line| !line.contains("fe80::"))
                .map(|line| format!("{family} {}", line.trim_end()))
                .collect::<Vec<_>>()
        })
        .collect();
    lines.sort();
    lines
}

/// Sends a frame out of a host's end of the link.
pub(crate) fn send(host: &Host, frame: &[u8]) {
    host.run(|| {
        let socket = LinkSocket::open(&LinkOptions::new("eth1", &EVERYTHING)).unwrap();
        let parts = [IoSlice::new(frame)];
        socket.send(&Offload::default(), 0, &[], &parts).unwrap();
    })
    .unwrap();
}
