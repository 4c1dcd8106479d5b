//! A gateway on a machine of its own with an underlay, and what the machine's kernel says of itself.
//!
//! ```text
//!   near: gateway, vng0 10.1.0.4, fd00:1::4                  far: the kernel
//!   underlay eth0: 192.0.2.1, 2001:db8::1  ----- veth -----  192.0.2.2, 2001:db8::2
//!   link eth1: 172.16.0.1, fd00:16::1      ----- veth -----  172.16.0.2, fd00:16::2
//! ```

use crypto::key::PrivateKey;
use gateway::device::filter::Instruction;
use gateway::device::link::{LinkOptions, LinkSocket};
use gateway::device::offload::Offload;
use integration::gateway::Gateway;
use integration::host::{Host, connect};
use integration::process::Nursery;
use integration::scratch::Scratch;
use serde_json::Value;
use std::io::IoSlice;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take that is only waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) near: Arc<Host>,
    pub(crate) far: Arc<Host>,
    pub(crate) scratch: Scratch,
    nursery: Arc<Nursery>,
    vng: PathBuf,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        let vng = scratch.path().join("vng");
        // VNG_LAB_PROGRAM: another build's, to see what a test says of it.
        let program = std::env::var_os("VNG_LAB_PROGRAM");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_vng-lab").into());
        symlink(program, &vng).unwrap();
        let [near, far] = ["near", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
        for (link, family4, family6, length) in [
            ("eth0", "192.0.2", "2001:db8:", ["24", "64"]),
            ("eth1", "172.16.0", "fd00:16:", ["30", "126"]),
        ] {
            connect((&near, link), (&far, link)).unwrap();
            for (host, n) in [(&near, 1), (&far, 2)] {
                let v4 = format!("{family4}.{n}/{}", length[0]);
                let v6 = format!("{family6}:{n}/{}", length[1]);
                if link == "eth1" && n == 1 {
                    host.address(link, &[]).unwrap();
                } else {
                    host.address(link, &[&v4, &v6]).unwrap();
                }
            }
        }
        Self {
            near,
            far,
            scratch,
            nursery: Arc::new(Nursery::new().unwrap()),
            vng,
        }
    }

    /// A gateway on the near machine; it does not run yet.
    pub(crate) fn gateway(&self, name: &str, device: &str, rest: &str) -> Gateway {
        let socket = self.scratch.path().join(format!("{name}.sock"));
        let text = format!(
            r#"[vnet]
name          = "vnet-1"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
device        = "{device}"
address       = ["10.1.255.4/27", "fd00:1:0:ff::4/64"]
host_address  = ["10.1.0.4/16", "fd00:1::4/48"]
host_routes   = true

{rest}

[control]
socket = "{}"
"#,
            socket.display()
        );
        let config = self.scratch.write(&format!("{name}.toml"), &text).unwrap();
        Gateway::new(
            Arc::clone(&self.near),
            Arc::clone(&self.nursery),
            self.vng.clone(),
            config,
            socket,
        )
    }

    /// A `[vpn]` table with one site, on this port, with these prefixes.
    pub(crate) fn vpn(&self, port: u16, prefixes: &[&str]) -> String {
        let key = PrivateKey::generate().unwrap();
        let peer = PrivateKey::generate().unwrap().public_key();
        let file = self.scratch.write("key", &key.to_base64()).unwrap();
        format!(
            r#"[vpn]
sku              = "Unlimited"
private_key_file = "{}"
listen_port      = {port}

[[vpn.site]]
name       = "far"
public_key = "{peer}"
endpoint   = "192.0.2.2:51820"
prefixes   = {prefixes:?}
"#,
            file.display()
        )
    }

    pub(crate) fn show(&self, gateway: &Gateway, what: &str) -> Value {
        let output = Command::new(&self.vng)
            .args(["show", what, "--json", "--socket"])
            .arg(gateway.socket())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "vng show {what}: {error}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `vng reload`; what it says.
    pub(crate) fn reload(&self, gateway: &Gateway) -> String {
        let output = Command::new(&self.vng)
            .args(["reload", "--socket"])
            .arg(gateway.socket())
            .output()
            .unwrap();
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

/// Waits until `holds`; `what` it was that did not come.
pub(crate) fn wait_for(what: &str, say: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}:\n{}", say());
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Stage {
    /// Takes the link's interface away, and lays another of the same name.
    pub(crate) fn lay_again(&self) {
        self.near
            .configure(|netlink| netlink.delete_link("eth1"))
            .unwrap();
        connect((&self.near, "eth1"), (&self.far, "eth1")).unwrap();
        self.near.address("eth1", &[]).unwrap();
        let far = ["172.16.0.2/30", "fd00:16::2/126"];
        self.far.address("eth1", &far).unwrap();
    }
}

/// Takes every frame: `ret #-1`.
const EVERYTHING: [Instruction; 1] = [Instruction {
    code: 6,
    jt: 0,
    jf: 0,
    k: u32::MAX,
}];

/// Sends a frame out of a host's end of the link.
pub(crate) fn send(host: &Host, frame: &[u8]) {
    host.run(|| {
        let socket = LinkSocket::open(&LinkOptions::new("eth1", &EVERYTHING)).unwrap();
        let parts = [IoSlice::new(frame)];
        socket.send(&Offload::default(), 0, &[], &parts).unwrap();
    })
    .unwrap();
}
