//! Two hosts face to face, 1 and 2, and what the configuration file of a gateway on each of them says: address
//! space, tables and names follow from the number.
//!
//! ```text
//!   1: near                                                  2: far
//!   vng0: 10.1.0.4, fd00:1::4                                vng0: 10.2.0.4, fd00:2::4
//!   vng: 10.1.255.4, fd00:1:0:ff::4                          vng: 10.2.255.4, fd00:2:0:ff::4
//!   underlay eth0: 192.0.2.1, 2001:db8::1  ----- veth -----  192.0.2.2, 2001:db8::2
//!   link eth1: 172.16.0.1, fd00:16::1      ----- veth -----  172.16.0.2, fd00:16::2
//! ```

use crate::config::Tagging;
use crate::error::Error;
use crate::host::{Host, connect};
use crate::peer::End;
use crypto::key::{PrivateKey, PublicKey};
use std::path::Path;
use std::sync::Arc;

/// The two, with the underlay between them. Its IPv6 addresses are of use once the kernel has told IPv6 of the new
/// carrier, up to a second later.
///
/// # Errors
/// As of [`Host::new`], [`connect`] and [`Host::address`].
pub fn hosts() -> Result<[Arc<Host>; 2], Error> {
    let [near, far] = [Host::new("near")?, Host::new("far")?];
    connect((&near, "eth0"), (&far, "eth0"))?;
    near.address("eth0", &["192.0.2.1/24", "2001:db8::1/64"])?;
    far.address("eth0", &["192.0.2.2/24", "2001:db8::2/64"])?;
    Ok([near, far].map(Arc::new))
}

/// Lays the link between them, of this MTU and without kernel addresses.
///
/// # Errors
/// As of [`connect`], [`Host::set`] and [`Host::configure`].
pub fn lay_link(hosts: &[Arc<Host>; 2], mtu: u32) -> Result<(), Error> {
    let [near, far] = hosts;
    connect((near, "eth1"), (far, "eth1"))?;
    for host in hosts {
        // Nobody but the gateway lives there.
        host.set("ipv6/conf/eth1/disable_ipv6", "1")?;
        host.configure(|netlink| {
            netlink.set_mtu("eth1", mtu)?;
            netlink.set_up("eth1", true)
        })?;
    }
    Ok(())
}

/// A peer in the place of gateway `n`, with its host's addresses: what stands in its tunnel is the other's.
pub fn end<'a>(n: u8, key: &'a PrivateKey, other: &'a PublicKey, endpoint: &'a str) -> End<'a> {
    let near = (
        ["10.1.0.4/16", "fd00:1::4/48"],
        ["10.1.0.0/16", "fd00:1::/48"],
    );
    let far = (
        ["10.2.0.4/16", "fd00:2::4/48"],
        ["10.2.0.0/16", "fd00:2::/48"],
    );
    let (name, (addresses, _), (_, prefixes)) = match n {
        1 => ("peer-1", near, far),
        _ => ("peer-2", far, near),
    };
    End {
        name,
        key,
        other,
        preshared: None,
        endpoint,
        addresses,
        prefixes,
    }
}

/// The `[vnet]` table of gateway `n`, with this device and `more` lines.
pub fn vnet(n: u8, device: &str, more: &str) -> String {
    format!(
        r#"[vnet]
name          = "vnet-{n}"
address_space = ["10.{n}.0.0/16", "fd00:{n}::/48"]
device        = "{device}"
address       = ["10.{n}.255.4/27", "fd00:{n}:0:ff::4/64"]
host_address  = ["10.{n}.0.4/16", "fd00:{n}::4/48"]
host_routes   = true
{more}
"#
    )
}

/// A `[vpn]` table without sites: the file with its key, and `more` lines, which may have another port than 51820.
pub fn vpn(key: &Path, more: &str) -> String {
    let port = if more.contains("listen_port") {
        ""
    } else {
        "listen_port = 51820\n"
    };
    format!(
        "[vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"{}\"\n{port}{more}\n",
        key.display()
    )
}

/// The site that gateway `n` is for the other one; lines of it may follow.
pub fn site(n: u8, key: &PublicKey) -> String {
    format!(
        "[[vpn.site]]\nname = \"site-{n}\"\npublic_key = \"{key}\"\n\
         prefixes = [\"10.{n}.0.0/16\", \"fd00:{n}::/48\"]\n"
    )
}

/// The `[expressroute]` table of gateway `n`, whose circuit leads to the other one, with `more` lines of the circuit.
pub fn circuit(n: u8, tagging: Tagging, more: &str) -> String {
    let other = 3 - n;
    format!(
        r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "circuit-{other}"
model    = "point-to-point"
prefixes = ["10.{other}.0.0/16", "fd00:{other}::/48"]
{more}
  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
{}  address   = ["172.16.0.{n}/30", "fd00:16::{n}/126"]
  neighbor  = ["172.16.0.{other}", "fd00:16::{other}"]
"#,
        tagging.lines()
    )
}
