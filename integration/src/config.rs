//! The gateways' configuration files: what a user would write, from the lab's addresses.

use crate::error::Error;
use crate::scratch::Scratch;
use crypto::key::{PrivateKey, PublicKey};
use gateway::device::vlan::{CUSTOMER_TAG, SERVICE_TAG, Tags};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How frames of the gateway's ExpressRoute links are tagged on their way to the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tagging {
    /// No tag.
    Untagged,
    /// One 802.1Q tag: 10.
    Dot1q,
    /// 802.1ad: outer 100 with type 0x88a8, inner 10.
    #[default]
    QinQ,
    /// Two tags as older switches have them: outer 100 with type 0x8100, inner 10.
    QinQ8100,
}

impl Tagging {
    /// The tags.
    pub fn tags(self) -> Tags {
        let (ids, kind): (&[u16], u16) = match self {
            Self::Untagged => (&[], CUSTOMER_TAG),
            Self::Dot1q => (&[10], CUSTOMER_TAG),
            Self::QinQ => (&[100, 10], SERVICE_TAG),
            Self::QinQ8100 => (&[100, 10], CUSTOMER_TAG),
        };
        // The ids above are valid ones; were they not, the lab would be untagged and its wire drop all.
        Tags::new(ids, kind).unwrap_or(Tags::NONE)
    }

    /// The lines of a link in the configuration file.
    pub fn lines(self) -> &'static str {
        match self {
            Self::Untagged => "",
            Self::Dot1q => "  vlan      = [10]\n",
            Self::QinQ => "  vlan      = [100, 10]\n  vlan_type = \"0x88a8\"\n",
            Self::QinQ8100 => "  vlan      = [100, 10]\n  vlan_type = \"0x8100\"\n",
        }
    }
}

/// How paths are watched: echo requests through the path itself, to the far gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Time between requests.
    pub interval: Duration,
    /// Requests lost in a row until the path is down.
    pub fail: u32,
    /// Answers in a row until the path is up.
    pub pass: u32,
}

impl Default for Probing {
    /// As BFD on ExpressRoute: every 300 ms, three of them.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(300),
            fail: 3,
            pass: 3,
        }
    }
}

/// A private key; the system may have no random bytes for it.
pub(crate) fn new_key() -> Result<PrivateKey, Error> {
    PrivateKey::generate().map_err(|e| Error::unexpected("a new private key", e.to_string()))
}

/// A key pair: the file with the private key, and the public key for the others.
pub(crate) struct KeyPair {
    pub(crate) file: PathBuf,
    pub(crate) public: PublicKey,
}

impl KeyPair {
    pub(crate) fn generate(scratch: &Scratch, name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let file = scratch.write(&format!("{name}.key"), &key.to_base64())?;
        Ok(Self {
            file,
            public: key.public_key(),
        })
    }
}

/// A site of the lab as one gateway sees it.
pub(crate) struct Site<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a PublicKey,
    pub(crate) endpoint: &'a str,
    pub(crate) prefixes: [&'a str; 2],
    pub(crate) probe: &'a str,
}

/// A link of the circuit: name, interface, addresses and neighbours of both families.
pub(crate) struct Link<'a> {
    pub(crate) name: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) address: [&'a str; 2],
    pub(crate) neighbor: [&'a str; 2],
}

/// A circuit of the lab as one gateway sees it.
pub(crate) struct Circuit<'a> {
    pub(crate) name: &'a str,
    pub(crate) prefixes: [&'a str; 2],
    pub(crate) probe: &'a str,
    pub(crate) tagging: Tagging,
    pub(crate) links: [Link<'a>; 2],
}

/// A whole configuration file.
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    pub(crate) address_space: [&'a str; 2],
    pub(crate) address: [&'a str; 2],
    pub(crate) host_address: [&'a str; 2],
    pub(crate) circuit: Option<Circuit<'a>>,
    pub(crate) key: &'a KeyPair,
    pub(crate) sites: Vec<Site<'a>>,
    pub(crate) probing: Probing,
    pub(crate) hold_down: Duration,
    pub(crate) sku: &'a str,
    pub(crate) socket: PathBuf,
    /// More tables, at the end: policies, routes.
    pub(crate) more: &'a str,
}

impl Plan<'_> {
    /// The file's text.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> std::fmt::Result {
        writeln!(to, "[vnet]")?;
        writeln!(to, "name          = {:?}", self.name)?;
        writeln!(to, "address_space = {:?}", self.address_space)?;
        writeln!(to, "device        = \"vng0\"")?;
        writeln!(to, "address       = {:?}", self.address)?;
        writeln!(to, "host_address  = {:?}", self.host_address)?;
        writeln!(to, "host_routes   = true\n")?;
        if let Some(circuit) = &self.circuit {
            self.write_circuit(to, circuit)?;
        }
        writeln!(to, "[vpn]\nsku              = {:?}", self.sku)?;
        writeln!(to, "private_key_file = {}", quoted(&self.key.file))?;
        writeln!(to, "listen_port      = 51820\n")?;
        for site in &self.sites {
            writeln!(to, "[[vpn.site]]\nname       = {:?}", site.name)?;
            writeln!(to, "public_key = \"{}\"", site.key)?;
            writeln!(to, "endpoint   = {:?}", site.endpoint)?;
            writeln!(to, "prefixes   = {:?}", site.prefixes)?;
            writeln!(to, "keepalive  = \"25s\"")?;
            writeln!(to, "probe      = {}\n", self.probe(site.probe))?;
        }
        let hold_down = self.hold_down.as_millis();
        writeln!(to, "[failover]\nhold_down = \"{hold_down}ms\"\n")?;
        writeln!(
            to,
            "[control]\nsocket = {}\n{}",
            quoted(&self.socket),
            self.more
        )
    }

    fn write_circuit(&self, to: &mut String, circuit: &Circuit<'_>) -> std::fmt::Result {
        writeln!(to, "[expressroute]\nsku = {:?}\n", self.sku)?;
        writeln!(
            to,
            "[[expressroute.circuit]]\nname     = {:?}",
            circuit.name
        )?;
        writeln!(to, "model    = \"colocated\"")?;
        writeln!(to, "prefixes = {:?}", circuit.prefixes)?;
        writeln!(to, "probe    = {}\n", self.probe(circuit.probe))?;
        for link in &circuit.links {
            writeln!(
                to,
                "  [[expressroute.circuit.link]]\n  name      = {:?}",
                link.name
            )?;
            writeln!(
                to,
                "  interface = {:?}\n{}",
                link.interface,
                circuit.tagging.lines().trim_end()
            )?;
            writeln!(to, "  address   = {:?}", link.address)?;
            writeln!(to, "  neighbor  = {:?}\n", link.neighbor)?;
        }
        Ok(())
    }

    fn probe(&self, target: &str) -> String {
        let Probing {
            interval,
            fail,
            pass,
        } = self.probing;
        let interval = interval.as_millis();
        format!(
            "{{ target = {target:?}, interval = \"{interval}ms\", fail = {fail}, pass = {pass} }}"
        )
    }
}

/// A path as a TOML string; the lab's own paths have no character that TOML would escape otherwise.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
