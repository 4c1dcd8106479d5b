//! Gateway SKUs and their limits (azure.md sections 3 and 4, the current edition).
//!
//! A limit that is `None` does not exist: nothing is shaped or counted against it. Bandwidths are bits
//! of IP packets per second, 1 Mbps = 1,000,000 bits/s. Azure names each direction's limit once and
//! applies it to both directions together.

use std::fmt;

/// The SKU name without limits, for both gateways.
pub const UNLIMITED: &str = "Unlimited";

/// Routes that a gateway advertises at most over ExpressRoute.
pub const EXPRESSROUTE_ADVERTISED_ROUTES: u32 = 1_000;

/// Prefixes of one local network gateway (site).
pub const PREFIXES_PER_SITE: usize = 1_000;

/// What an ExpressRoute gateway of one SKU can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressRouteSku {
    /// Name as users know it; with its scale units where it has any.
    pub name: String,
    /// Aggregate bandwidth, bits/s, not burstable.
    pub bits_per_second: Option<u64>,
    /// Packets per second.
    pub packets_per_second: Option<u64>,
    /// Flows at a time.
    pub flows: Option<u64>,
    /// New flows per second, as last published.
    pub flows_per_second: Option<u64>,
    /// Routes that can be learned.
    pub routes_learned: Option<u32>,
    /// Routes that can be advertised.
    pub routes_advertised: Option<u32>,
    /// Circuits that can be connected.
    pub circuits: Option<u32>,
    /// Whether Azure's FastPath can go around the gateway.
    pub fast_path: bool,
}

/// What a VPN gateway of one SKU and generation can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpnSku {
    /// Name as users know it.
    pub name: &'static str,
    /// Generation; 0 for `Unlimited`, which has none.
    pub generation: u8,
    /// Aggregate bandwidth of all tunnels and clients, bits/s.
    pub bits_per_second: Option<u64>,
    /// Site-to-site and VNet-to-VNet tunnels.
    pub tunnels: Option<u32>,
    /// Point-to-site clients. `Basic` has SSTP clients only; its figure stands here all the same.
    pub clients: Option<u32>,
    /// Bandwidth of one tunnel (GCM-AES256), bits/s.
    pub tunnel_bits_per_second: Option<u64>,
    /// Packets per second of one tunnel (GCM-AES256).
    pub tunnel_packets_per_second: Option<u64>,
    /// Flows at a time, each way.
    pub flows: Option<u64>,
    /// BGP routes.
    pub routes: Option<u32>,
    /// Prefixes of one site.
    pub prefixes_per_site: Option<usize>,
    /// Whether the SKU speaks BGP.
    pub bgp: bool,
    /// Whether the SKU may stand beside an ExpressRoute gateway in one virtual network.
    pub coexists: bool,
}

/// Why there is no such VPN gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownVpnSku {
    /// No generation has this name.
    Name,
    /// The name exists, in these generations.
    Generation(Vec<u8>),
}

impl fmt::Display for UnknownVpnSku {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(formatter, "no VPN gateway SKU has this name"),
            Self::Generation(there) => {
                let there: Vec<String> = there.iter().map(u8::to_string).collect();
                write!(
                    formatter,
                    "the SKU exists in generation {} only",
                    there.join(" and ")
                )
            }
        }
    }
}

const MBPS: u64 = 1_000_000;

/// One row of the ExpressRoute table: names, Mbps, packets/s, flows, new flows/s, routes, circuits, FastPath.
type Row = (&'static [&'static str], u64, u64, u64, u64, u32, u32, bool);

#[rustfmt::skip]
const EXPRESSROUTE: &[Row] = &[
    (&["Standard", "ErGw1Az"],          1_000,   100_000,   200_000,  7_000, 4_000,  4, false),
    (&["HighPerformance", "ErGw2Az"],   2_000,   200_000,   400_000, 14_000, 9_500,  8, false),
    (&["UltraPerformance", "ErGw3Az"], 10_000, 1_000_000, 1_000_000, 16_000, 9_500, 16, true),
];

/// The scalable SKU; its units follow a colon, as in `ErGwScale:4`. Without them it has one.
const SCALE: &str = "ErGwScale";
const SCALE_UNITS: std::ops::RangeInclusive<u64> = 1..=40;

/// One row of the VPN table: generation, names, tunnels, clients, Mbps, BGP, Mbps and packets/s of a tunnel.
type VpnRow = (
    u8,
    &'static [&'static str],
    u32,
    u32,
    u64,
    bool,
    Option<(u64, u64)>,
);

#[rustfmt::skip]
const VPN: &[VpnRow] = &[
    (1, &["Basic"],              10,    128,    100, false, None),
    (1, &["VpnGw1", "VpnGw1AZ"], 30,    250,    650, true,  Some((650, 62_000))),
    (1, &["VpnGw2", "VpnGw2AZ"], 30,    500,  1_000, true,  Some((1_200, 100_000))),
    (1, &["VpnGw3", "VpnGw3AZ"], 30,  1_000,  1_250, true,  Some((1_250, 120_000))),
    (2, &["VpnGw2", "VpnGw2AZ"], 30,    500,  1_250, true,  Some((1_250, 120_000))),
    (2, &["VpnGw3", "VpnGw3AZ"], 30,  1_000,  2_500, true,  Some((1_500, 140_000))),
    (2, &["VpnGw4", "VpnGw4AZ"], 100, 5_000,  5_000, true,  Some((2_300, 220_000))),
    (2, &["VpnGw5", "VpnGw5AZ"], 100, 10_000, 10_000, true, Some((2_300, 220_000))),
];

/// The ExpressRoute gateway SKU of this name, upper or lower case; `None` if there is none.
pub fn expressroute(name: &str) -> Option<ExpressRouteSku> {
    if name.eq_ignore_ascii_case(UNLIMITED) {
        return Some(ExpressRouteSku {
            name: UNLIMITED.to_owned(),
            bits_per_second: None,
            packets_per_second: None,
            flows: None,
            flows_per_second: None,
            routes_learned: None,
            routes_advertised: None,
            circuits: None,
            fast_path: true,
        });
    }
    for &(names, mbps, packets, flows, new_flows, routes, circuits, fast_path) in EXPRESSROUTE {
        if let Some(known) = names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            return Some(ExpressRouteSku {
                name: (*known).to_owned(),
                bits_per_second: Some(mbps * MBPS),
                packets_per_second: Some(packets),
                flows: Some(flows),
                flows_per_second: Some(new_flows),
                routes_learned: Some(routes),
                routes_advertised: Some(EXPRESSROUTE_ADVERTISED_ROUTES),
                circuits: Some(circuits),
                fast_path,
            });
        }
    }
    scale_units(name).map(scale)
}

fn scale_units(name: &str) -> Option<u64> {
    let (family, units) = match name.split_once(':') {
        Some((family, units)) => (family, units.parse().ok()?),
        None => (name, 1),
    };
    (family.eq_ignore_ascii_case(SCALE) && SCALE_UNITS.contains(&units)).then_some(units)
}

/// Units 1 to 10 bring 100,000 packets/s each, units 11 to 40 200,000 each; the rest is azure.md's row.
fn scale(units: u64) -> ExpressRouteSku {
    ExpressRouteSku {
        name: format!("{SCALE}:{units}"),
        bits_per_second: Some(units * 1_000 * MBPS),
        packets_per_second: Some(units.min(10) * 100_000 + units.saturating_sub(10) * 200_000),
        flows: Some(units * 100_000),
        flows_per_second: Some(units * 7_000),
        routes_learned: Some(9_500),
        routes_advertised: Some(EXPRESSROUTE_ADVERTISED_ROUTES),
        circuits: Some(match units {
            1 => 4,
            2..=9 => 8,
            _ => 16,
        }),
        fast_path: units >= 10,
    }
}

/// The VPN gateway SKU of this name, upper or lower case, and generation.
///
/// # Errors
/// Whether the name is unknown or only the generation does not fit.
pub fn vpn(name: &str, generation: u8) -> Result<VpnSku, UnknownVpnSku> {
    if name.eq_ignore_ascii_case(UNLIMITED) {
        return Ok(VpnSku {
            name: UNLIMITED,
            generation: 0,
            bits_per_second: None,
            tunnels: None,
            clients: None,
            tunnel_bits_per_second: None,
            tunnel_packets_per_second: None,
            flows: None,
            routes: None,
            prefixes_per_site: None,
            bgp: true,
            coexists: true,
        });
    }
    for &(of, names, tunnels, clients, mbps, bgp, tunnel) in VPN {
        let Some(known) = names.iter().find(|known| known.eq_ignore_ascii_case(name)) else {
            continue;
        };
        if of == generation {
            return Ok(VpnSku {
                name: known,
                generation,
                bits_per_second: Some(mbps * MBPS),
                tunnels: Some(tunnels),
                clients: Some(clients),
                tunnel_bits_per_second: tunnel.map(|(mbps, _)| mbps * MBPS),
                tunnel_packets_per_second: tunnel.map(|(_, packets)| packets),
                flows: Some(500_000),
                routes: Some(4_000),
                prefixes_per_site: Some(PREFIXES_PER_SITE),
                bgp,
                coexists: bgp,
            });
        }
    }
    match vpn_generations(name) {
        there if there.is_empty() => Err(UnknownVpnSku::Name),
        there => Err(UnknownVpnSku::Generation(there)),
    }
}

/// The generations in which a VPN SKU exists, ascending; empty if the name is unknown or `Unlimited`.
pub fn vpn_generations(name: &str) -> Vec<u8> {
    let named = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let mut generations: Vec<u8> = VPN.iter().filter(|r| named(r.1)).map(|r| r.0).collect();
    generations.sort_unstable();
    generations
}

/// Names of all ExpressRoute gateway SKUs, for messages; `ErGwScale` takes its units behind a colon.
pub fn expressroute_names() -> Vec<&'static str> {
    let rows = EXPRESSROUTE.iter().flat_map(|row| row.0.iter().copied());
    rows.chain([SCALE, UNLIMITED]).collect()
}

/// Names of all VPN gateway SKUs, for messages.
pub fn vpn_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = VPN.iter().flat_map(|row| row.1.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    names.push(UNLIMITED);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_have_the_same_limits() {
        for (old, new) in [
            ("Standard", "ErGw1Az"),
            ("HighPerformance", "ErGw2AZ"),
            ("UltraPerformance", "ergw3az"),
        ] {
            let (old, mut new) = (expressroute(old).unwrap(), expressroute(new).unwrap());
            new.name.clone_from(&old.name);
            assert_eq!(old, new);
        }
    }

    #[test]
    fn scale_units_add_up_as_published() {
        let units = |n: u32| expressroute(&format!("ErGwScale:{n}")).unwrap();
        assert_eq!(expressroute("ErGwScale").unwrap(), units(1));
        assert_eq!((units(1).circuits, units(1).fast_path), (Some(4), false));
        assert_eq!((units(2).circuits, units(9).circuits), (Some(8), Some(8)));
        assert_eq!((units(10).circuits, units(10).fast_path), (Some(16), true));
        assert_eq!(units(10).packets_per_second, Some(1_000_000));
        assert_eq!(units(11).packets_per_second, Some(1_200_000));
        assert_eq!(units(40).bits_per_second, Some(40_000_000_000));
        assert_eq!(expressroute("ErGwScale:0"), None);
        assert_eq!(expressroute("ErGwScale:41"), None);
        assert_eq!(expressroute("ErGwScale:x"), None);
    }

    #[test]
    fn a_generation_that_lacks_the_sku_is_told_from_an_unknown_name() {
        assert_eq!(
            vpn("VpnGw4", 1),
            Err(UnknownVpnSku::Generation(vec![2])),
            "VpnGw4 is of generation 2"
        );
        assert_eq!(vpn("Basic", 2), Err(UnknownVpnSku::Generation(vec![1])));
        assert_eq!(vpn("VpnGw9", 1), Err(UnknownVpnSku::Name));
        assert_eq!(vpn_generations("VpnGw2"), [1, 2]);
    }

    #[test]
    fn generations_of_one_name_differ_in_their_limits() {
        let (one, two) = (vpn("VpnGw3", 1).unwrap(), vpn("VpnGw3AZ", 2).unwrap());
        assert_eq!(one.bits_per_second, Some(1_250_000_000));
        assert_eq!(two.bits_per_second, Some(2_500_000_000));
        assert_eq!(two.tunnel_packets_per_second, Some(140_000));
        assert!(!vpn("Basic", 1).unwrap().coexists);
    }

    #[test]
    fn every_listed_name_is_known() {
        for name in expressroute_names() {
            assert!(expressroute(name).is_some(), "{name}");
        }
        for name in vpn_names() {
            assert!(vpn(name, 1).is_ok() || vpn(name, 2).is_ok(), "{name}");
        }
    }
}
