//! Parameters of a link's interface: changed while the gateway runs, put back at every end, `kill -9`
//! included; and what a forged router advertisement does meanwhile.

use crate::stage::{Stage, ip, send, wait_for};
use integration::host::Host;
use rustix::process::Signal;
use std::fs;

const PARAMETERS: [&str; 3] = [
    "ipv6/conf/eth1/accept_ra",
    "ipv4/conf/eth1/rp_filter",
    "ipv6/conf/eth1/disable_ipv6",
];

fn circuit(mac: &str) -> String {
    format!(
        r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "er"
prefixes = ["10.2.0.0/16", "fd00:2::/48"]
probe    = {{ interval = "100ms", fail = 5, pass = 1 }}

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
  mac       = "{mac}"
  address   = ["172.16.0.1/30", "fd00:16::1/126"]
  neighbor  = ["172.16.0.2", "fd00:16::2"]
"#
    )
}

fn parameters(host: &Host) -> Vec<String> {
    host.run(|| {
        let read = |name: &&str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
        PARAMETERS
            .iter()
            .map(|name| read(name).trim().to_owned())
            .collect()
    })
    .unwrap()
}

#[test]
fn parameters_of_a_link_come_back_after_every_end() {
    let stage = Stage::new();
    stage.near.set("ipv6/conf/eth1/accept_ra", "1").unwrap();
    let before = parameters(&stage.near);
    assert_eq!(before, ["1", "0", "0"]);
    let mut gateway = stage.gateway("first", "vng0", &circuit("interface"));
    gateway.start().unwrap();
    assert_eq!(parameters(&stage.near), ["0", "1", "1"]);
    gateway.stop().unwrap();
    assert_eq!(parameters(&stage.near), before);
    gateway.start().unwrap();
    gateway.signal(Signal::KILL).unwrap();
    gateway.wait().unwrap();
    // Any configuration will do, and one that knows nothing of the link.
    let mut other = stage.gateway("other", "vng1", &stage.vpn(51820, &["10.3.0.0/16"]));
    other.start().unwrap();
    assert_eq!(parameters(&stage.near), before, "left by kill -9");
    // And one that is killed twice in a row.
    for _ in 0..2 {
        gateway.start().unwrap();
        gateway.signal(Signal::KILL).unwrap();
        gateway.wait().unwrap();
    }
    gateway.start().unwrap();
    gateway.stop().unwrap();
    assert_eq!(parameters(&stage.near), before, "killed twice");
    other.stop().unwrap();
}

/// A router advertisement that offers a default route and a prefix (RFC 4861, 4.2 and 4.6.2), as a frame.
fn advertisement(mac: [u8; 6]) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend([1, 1]);
    icmp.extend(mac);
    // Prefix 2001:db8:bad::/64, on link and autonomous, an hour long.
    icmp.extend([
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
    ]);
    icmp.extend([
        0x20, 1, 0x0d, 0xb8, 0x0b, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x66];
    let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let length = icmp.len() as u16;
    let mut sum: u32 = u32::from(length) + 58;
    for pair in [&source[..], &all[..], &icmp[..]].concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source);
    frame.extend(all);
    frame.extend(icmp);
    frame
}

/// The kernel alone takes the forged route: that is what the gateway's link must not do.
#[test]
fn a_forged_router_advertisement_gives_the_host_nothing() {
    let stage = Stage::new();
    let near = &stage.near;
    near.set("ipv6/conf/eth1/accept_ra", "1").unwrap();
    let frame = advertisement([2, 0, 0, 0, 0, 0x66]);
    let forged = || {
        let routes = ip(near, "-6 route show");
        let addresses = ip(near, "-6 addr show dev eth1");
        routes.contains("fe80::66") || addresses.contains("2001:db8:bad")
    };
    send(&stage.far, &frame);
    wait_for("the kernel's own answer to it", String::new, forged);
    ip(near, "-6 route flush proto ra");
    ip(near, "-6 addr flush dev eth1 scope global");
    ip(
        near,
        "-6 route flush dev eth1 proto kernel 2001:db8:bad::/64",
    );
    assert!(!forged(), "{}", ip(near, "-6 route show"));
    let mut gateway = stage.gateway("first", "vng0", &circuit("own"));
    gateway.start().unwrap();
    // A second one of the same name begins with the system's defaults, and is no weaker.
    for round in 0..2 {
        send(&stage.far, &frame);
        // What comes after it on the same wire has been taken after it.
        wait_for(
            "the link",
            || gateway.log(),
            || {
                let status = stage.show(&gateway, "status");
                status["paths"][0]["state"] == "up"
            },
        );
        assert!(!forged(), "round {round}: {}", ip(near, "-6 route show"));
        if round == 0 {
            near.set("ipv6/conf/default/accept_ra", "1").unwrap();
            stage.lay_again();
            wait_for(
                "accept_ra of the new link",
                || parameters(near).join(" "),
                || parameters(near)[0] == "0",
            );
        }
    }
    gateway.stop().unwrap();
    assert_eq!(parameters(near)[0], "1");
}
