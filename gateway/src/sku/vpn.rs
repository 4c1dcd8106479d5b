//! SKUs of the VPN gateway (docs/azure.md, sections 3 and 4).

use super::{Edition, MBPS, PREFIXES_PER_SITE, UNLIMITED, known};
use std::fmt;

/// What a VPN gateway of one SKU and generation can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpnSku {
    /// Name as users know it.
    pub name: &'static str,
    /// Generation; 0 where there are none: `Unlimited`, and the 2016 edition.
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

impl VpnSku {
    /// A SKU of this name without any limit and of no generation.
    const fn unlimited(name: &'static str) -> Self {
        Self {
            name,
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
        }
    }
}

/// Why there is no such VPN gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownVpnSku {
    /// No generation of the edition has this name.
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

/// One row of the table: generation, names, tunnels, clients, Mbps, BGP, Mbps and packets/s of a tunnel.
type Row = (
    u8,
    &'static [&'static str],
    u32,
    u32,
    u64,
    bool,
    Option<(u64, u64)>,
);

#[rustfmt::skip]
const CURRENT: &[Row] = &[
    (1, &["Basic"],              10,    128,    100, false, None),
    (1, &["VpnGw1", "VpnGw1AZ"], 30,    250,    650, true,  Some((650, 62_000))),
    (1, &["VpnGw2", "VpnGw2AZ"], 30,    500,  1_000, true,  Some((1_200, 100_000))),
    (1, &["VpnGw3", "VpnGw3AZ"], 30,  1_000,  1_250, true,  Some((1_250, 120_000))),
    (2, &["VpnGw2", "VpnGw2AZ"], 30,    500,  1_250, true,  Some((1_250, 120_000))),
    (2, &["VpnGw3", "VpnGw3AZ"], 30,  1_000,  2_500, true,  Some((1_500, 140_000))),
    (2, &["VpnGw4", "VpnGw4AZ"], 100, 5_000,  5_000, true,  Some((2_300, 220_000))),
    (2, &["VpnGw5", "VpnGw5AZ"], 100, 10_000, 10_000, true, Some((2_300, 220_000))),
];

/// The table of 2016: name, tunnels, Mbps, and whether it coexists and speaks BGP.
#[rustfmt::skip]
const OF_2016: &[(&str, u32, u64, bool)] = &[
    ("Basic",           10, 100, false),
    ("Standard",        10, 100, true),
    ("HighPerformance", 30, 200, true),
];

/// The VPN gateway SKU of this name, upper or lower case, and generation. The 2016 edition has no
/// generations: any will do.
///
/// # Errors
/// Whether the name is unknown or only the generation does not fit.
pub fn vpn(edition: Edition, name: &str, generation: u8) -> Result<VpnSku, UnknownVpnSku> {
    if name.eq_ignore_ascii_case(UNLIMITED) {
        return Ok(VpnSku::unlimited(UNLIMITED));
    }
    match edition {
        Edition::Current => current(name, generation),
        Edition::Of2016 => of_2016(name).ok_or(UnknownVpnSku::Name),
    }
}

fn current(name: &str, generation: u8) -> Result<VpnSku, UnknownVpnSku> {
    for &(of, names, tunnels, clients, mbps, bgp, tunnel) in CURRENT {
        let Some(known) = known(names, name).filter(|_| of == generation) else {
            continue;
        };
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
    match vpn_generations(Edition::Current, name) {
        there if there.is_empty() => Err(UnknownVpnSku::Name),
        there => Err(UnknownVpnSku::Generation(there)),
    }
}

fn of_2016(name: &str) -> Option<VpnSku> {
    let mut rows = OF_2016.iter();
    let &(known, tunnels, mbps, full) = rows.find(|row| row.0.eq_ignore_ascii_case(name))?;
    Some(VpnSku {
        bits_per_second: Some(mbps * MBPS),
        tunnels: Some(tunnels),
        bgp: full,
        coexists: full,
        ..VpnSku::unlimited(known)
    })
}

/// The generations in which a VPN SKU exists, ascending; empty if the name is unknown, `Unlimited`, or of the
/// 2016 edition, which has none.
pub fn vpn_generations(edition: Edition, name: &str) -> Vec<u8> {
    if edition == Edition::Of2016 {
        return Vec::new();
    }
    let rows = CURRENT.iter().filter(|row| known(row.1, name).is_some());
    let mut generations: Vec<u8> = rows.map(|row| row.0).collect();
    generations.sort_unstable();
    generations
}

/// Names of all VPN gateway SKUs of an edition, for messages.
pub fn vpn_names(edition: Edition) -> Vec<&'static str> {
    let mut names: Vec<&str> = match edition {
        Edition::Current => CURRENT
            .iter()
            .flat_map(|row| row.1.iter().copied())
            .collect(),
        Edition::Of2016 => OF_2016.iter().map(|row| row.0).collect(),
    };
    if edition == Edition::Current {
        names.sort_unstable();
        names.dedup();
    }
    names.push(UNLIMITED);
    names
}
