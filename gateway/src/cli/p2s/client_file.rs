//! A client's WireGuard file, as `wg-quick` and the apps read it, and its QR code.

use super::super::Failure;
use crate::config::schema::Config;
use crate::config::value::POINT_TO_SITE;
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use std::fmt::Write as _;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// How often a client says that it is there: more often than NAT forgets a UDP flow (RFC 4787, REQ-5, asks for
/// two minutes; many forget after 30 s).
const KEEPALIVE_SECONDS: u16 = 25;

/// What a client's file says.
pub(super) struct ClientFile<'a> {
    pub(super) name: &'a str,
    pub(super) private_key: &'a PrivateKey,
    pub(super) preshared_key: Option<&'a PresharedKey>,
    pub(super) address: &'a [IpAddr],
    pub(super) gateway: PublicKey,
    pub(super) endpoint: &'a str,
}

impl ClientFile<'_> {
    /// The text, for a gateway of this configuration.
    pub(super) fn text(&self, config: &Config) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(4_096));
        let _ = writeln!(text, "# {} of {}", self.name, config.vnet.name);
        text.push_str(&self.settings(config));
        text
    }

    fn settings(&self, config: &Config) -> Zeroizing<String> {
        // Room for all: a key is not left behind in memory that was too small.
        let mut text = Zeroizing::new(String::with_capacity(4_096));
        let address: Vec<String> = self
            .address
            .iter()
            .map(|&address| IpNet::from(address).to_string())
            .collect();
        let mtu = config.vpn.as_ref().map_or(1_420, |vpn| vpn.mtu);
        let private_key = self.private_key.to_base64();
        let _ = writeln!(text, "[Interface]\nPrivateKey = {}", private_key.as_str());
        let _ = writeln!(text, "Address = {}\nMTU = {mtu}", address.join(", "));
        let _ = writeln!(text, "\n[Peer]\nPublicKey = {}", self.gateway);
        if let Some(key) = self.preshared_key {
            let _ = writeln!(text, "PresharedKey = {}", key.to_base64().as_str());
        }
        let reachable: Vec<String> = reachable(config, self.address)
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(text, "Endpoint = {}", self.endpoint);
        let _ = writeln!(text, "AllowedIPs = {}", reachable.join(", "));
        let _ = writeln!(text, "PersistentKeepalive = {KEEPALIVE_SECONDS}");
        text
    }

    /// The settings as a QR code for a terminal: light on dark, as cameras read it from a dark screen.
    pub(super) fn qr_code(&self, config: &Config) -> Result<String, Failure> {
        let code =
            QrCode::with_error_correction_level(self.settings(config).as_bytes(), EcLevel::L);
        let code = code.map_err(|error| {
            Failure::Work(format!(
                "the client's file is too long for a QR code: {error}"
            ))
        })?;
        let mut picture = code.render::<Dense1x2>();
        picture
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark);
        Ok(picture.build() + "\n")
    }
}

/// What a client reaches through the gateway: the virtual network, and with transit the branches and the other
/// clients; of the IP versions that it has addresses of.
fn reachable(config: &Config, address: &[IpAddr]) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = config.vnet.address_space.clone();
    if config.failover.branch_transit {
        let circuits = config.circuits().iter();
        all.extend(circuits.flat_map(|circuit| &circuit.prefixes));
        let sites = config.sites().iter();
        all.extend(sites.flat_map(|site| &site.prefixes));
        let clients = config.point_to_site().into_iter();
        all.extend(clients.flat_map(|clients| &clients.address_pool));
        let named = config.route.iter().filter(|route| {
            matches!(&route.next_hop, crate::config::schema::NextHop::Path(name) if name != POINT_TO_SITE)
        });
        all.extend(named.map(|route| route.prefix));
    }
    all.retain(|prefix| {
        address
            .iter()
            .any(|a| a.is_ipv4() == prefix.addr().is_ipv4())
    });
    IpNet::aggregate(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use std::path::Path;

    fn example(transit: bool) -> Config {
        let text = include_str!("../../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        let mut config = loaded.unwrap().config;
        config.failover.branch_transit = transit;
        config
    }

    #[test]
    fn the_file_leads_to_the_virtual_network_and_with_transit_to_the_branches() {
        let (own, gateway) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap().public_key(),
        );
        let address = ["172.31.0.7".parse().unwrap()];
        let file = ClientFile {
            name: "laptop",
            private_key: &own,
            preshared_key: None,
            address: &address,
            gateway,
            endpoint: "vpn.example.net:51820",
        };
        let expected = |allowed: &str| {
            format!(
                "# laptop of vnet-lab\n[Interface]\nPrivateKey = {}\nAddress = 172.31.0.7/32\nMTU = 1420\n\n\
                 [Peer]\nPublicKey = {gateway}\nEndpoint = vpn.example.net:51820\nAllowedIPs = {allowed}\n\
                 PersistentKeepalive = 25\n",
                own.to_base64().as_str()
            )
        };
        assert_eq!(*file.text(&example(false)), expected("10.1.0.0/16"));
        let far = "10.1.0.0/16, 10.2.0.0/15, 172.31.0.0/24";
        assert_eq!(*file.text(&example(true)), expected(far));
    }
}
