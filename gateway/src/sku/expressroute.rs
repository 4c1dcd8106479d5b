//! SKUs of the ExpressRoute gateway (docs/azure.md, section 3).

use super::{EXPRESSROUTE_ADVERTISED_ROUTES, Edition, MBPS, UNLIMITED, known};

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
    /// Whether the SKU may stand beside a VPN gateway in one virtual network.
    pub coexists: bool,
}

impl ExpressRouteSku {
    /// A SKU of this name without any limit.
    fn unlimited(name: String) -> Self {
        Self {
            name,
            bits_per_second: None,
            packets_per_second: None,
            flows: None,
            flows_per_second: None,
            routes_learned: None,
            routes_advertised: None,
            circuits: None,
            fast_path: true,
            coexists: true,
        }
    }
}

/// One row of the table: names, Mbps, packets/s, flows, new flows/s, routes, circuits, FastPath.
type Row = (&'static [&'static str], u64, u64, u64, u64, u32, u32, bool);

#[rustfmt::skip]
const CURRENT: &[Row] = &[
    (&["Standard", "ErGw1Az"],          1_000,   100_000,   200_000,  7_000, 4_000,  4, false),
    (&["HighPerformance", "ErGw2Az"],   2_000,   200_000,   400_000, 14_000, 9_500,  8, false),
    (&["UltraPerformance", "ErGw3Az"], 10_000, 1_000_000, 1_000_000, 16_000, 9_500, 16, true),
];

/// The table of 2016: name, Mbps, coexistence.
#[rustfmt::skip]
const OF_2016: &[(&str, u64, bool)] = &[
    ("Basic",               500, false),
    ("Standard",          1_000, true),
    ("HighPerformance",   2_000, true),
    ("UltraPerformance", 10_000, true),
];

/// The scalable SKU; its units follow a colon, as in `ErGwScale:4`. Without them it has one.
const SCALE: &str = "ErGwScale";
/// Its units.
pub const SCALE_UNITS: std::ops::RangeInclusive<u64> = 1..=40;

/// The ExpressRoute gateway SKU of this name, upper or lower case, in this edition; `None` if there is none.
pub fn expressroute(edition: Edition, name: &str) -> Option<ExpressRouteSku> {
    if name.eq_ignore_ascii_case(UNLIMITED) {
        return Some(ExpressRouteSku::unlimited(UNLIMITED.to_owned()));
    }
    match edition {
        Edition::Current => current(name).or_else(|| scale_units(name).map(scale)),
        Edition::Of2016 => of_2016(name),
    }
}

fn current(name: &str) -> Option<ExpressRouteSku> {
    for &(names, mbps, packets, flows, new_flows, routes, circuits, fast_path) in CURRENT {
        if let Some(known) = known(names, name) {
            return Some(ExpressRouteSku {
                name: known.to_owned(),
                bits_per_second: Some(mbps * MBPS),
                packets_per_second: Some(packets),
                flows: Some(flows),
                flows_per_second: Some(new_flows),
                routes_learned: Some(routes),
                routes_advertised: Some(EXPRESSROUTE_ADVERTISED_ROUTES),
                circuits: Some(circuits),
                fast_path,
                coexists: true,
            });
        }
    }
    None
}

fn of_2016(name: &str) -> Option<ExpressRouteSku> {
    let mut rows = OF_2016.iter();
    let &(known, mbps, coexists) = rows.find(|row| row.0.eq_ignore_ascii_case(name))?;
    Some(ExpressRouteSku {
        bits_per_second: Some(mbps * MBPS),
        fast_path: false,
        coexists,
        ..ExpressRouteSku::unlimited(known.to_owned())
    })
}

/// The units of a scalable SKU's name, in range or not; `None` if it is none.
pub fn scale_units_of(name: &str) -> Option<&str> {
    let (family, units) = name.split_once(':').unwrap_or((name, "1"));
    family.eq_ignore_ascii_case(SCALE).then_some(units)
}

fn scale_units(name: &str) -> Option<u64> {
    let units = scale_units_of(name)?.parse().ok()?;
    SCALE_UNITS.contains(&units).then_some(units)
}

/// Units 1 to 10 bring 100,000 packets/s each, units 11 to 40 200,000 each; the rest is docs/azure.md's row.
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
        coexists: true,
    }
}

/// Names of all ExpressRoute gateway SKUs of an edition, for messages; `ErGwScale` takes its units behind a
/// colon.
pub fn expressroute_names(edition: Edition) -> Vec<&'static str> {
    match edition {
        Edition::Current => {
            let rows = CURRENT.iter().flat_map(|row| row.0.iter().copied());
            rows.chain([SCALE, UNLIMITED]).collect()
        }
        Edition::Of2016 => OF_2016.iter().map(|row| row.0).chain([UNLIMITED]).collect(),
    }
}
