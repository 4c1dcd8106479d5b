//! Azure's SKUs beside what one core moves.
//!
//! A limit holds for both directions together, so the slower direction is what counts. Packets come one by
//! one; super-packets only make it cheaper.

use super::rate::{Rate, Way};
use super::traffic::{Form, Size};
use gateway::sku::{self, Edition};
use serde::Serialize;

/// Of a core, what is planned with: a fifth stays free.
pub const PLANNED: f64 = 0.8;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// An ExpressRoute gateway.
    ExpressRoute,
    /// A VPN gateway, all its tunnels together.
    Vpn,
    /// One tunnel, which one core owns.
    Tunnel,
}

impl Scope {
    fn ways(self) -> [Way; 2] {
        match self {
            Self::ExpressRoute => [Way::ExpressRouteOut, Way::ExpressRouteIn],
            Self::Vpn | Self::Tunnel => [Way::VpnOut, Way::VpnIn],
        }
    }
}

/// Limits with the names of all SKUs that have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tier {
    /// Of what.
    pub scope: Scope,
    /// SKUs.
    pub name: String,
    /// Bits of IP packets per second.
    pub bits_per_second: u64,
    /// Packets per second; `None`: none is published.
    pub packets_per_second: Option<u64>,
}

/// Which limit is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Bandwidth.
    Bits,
    /// Packets per second.
    Packets,
}

impl Bound {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bits => "bits",
            Self::Packets => "packets",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The limits.
    #[serde(flatten)]
    pub tier: Tier,
    /// Size of packets.
    pub size: Size,
    /// Their mean length, bytes.
    pub packet_bytes: f64,
    /// The limit that is met first at this size.
    pub bound: Bound,
    /// Packets per second that the limits allow at this size.
    pub allowed_packets_per_second: f64,
    /// Packets per second of one core.
    pub core_packets_per_second: f64,
    /// Bits per second of one core.
    pub core_bits_per_second: f64,
    /// How often one core has the bandwidth limit.
    pub headroom_bits: f64,
    /// How often one core has the limit of packets.
    pub headroom_packets: Option<f64>,
    /// Cores that are busy at the limit.
    pub cores_busy: f64,
    /// Whole cores, each busy to [`PLANNED`] at most.
    pub cores: u32,
}

impl Row {
    /// How often one core has what the limits allow.
    pub fn headroom(&self) -> f64 {
        1.0 / self.cores_busy
    }
}

/// Every SKU of the built-in tables, with 1, 10 and 40 units of the one that scales; then what the VPN SKUs
/// allow one tunnel.
pub fn tiers() -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    let mut add = |scope, name: &str, bits: Option<u64>, packets| {
        let Some(bits_per_second) = bits else {
            return;
        };
        let tier = Tier {
            scope,
            name: name.to_owned(),
            bits_per_second,
            packets_per_second: packets,
        };
        let same = |known: &&mut Tier| {
            (known.scope, known.bits_per_second, known.packets_per_second)
                == (scope, bits_per_second, packets)
        };
        match tiers.iter_mut().find(same) {
            Some(known) => known.name = format!("{}, {name}", known.name),
            None => tiers.push(tier),
        }
    };
    let scale = ["ErGwScale:1", "ErGwScale:10", "ErGwScale:40"];
    let named = sku::expressroute_names(Edition::Current)
        .into_iter()
        .filter(|name| *name != "ErGwScale");
    for name in named.chain(scale) {
        if let Some(sku) = sku::expressroute(Edition::Current, name) {
            let (bits, packets) = (sku.bits_per_second, sku.packets_per_second);
            add(Scope::ExpressRoute, name, bits, packets);
        }
    }
    let mut vpn = Vec::new();
    for generation in [1, 2] {
        for name in sku::vpn_names(Edition::Current) {
            // One with availability zones has the limits of its namesake without.
            if !name.ends_with("AZ")
                && let Ok(sku) = sku::vpn(Edition::Current, name, generation)
            {
                vpn.push((format!("{name} gen {generation}"), sku));
            }
        }
    }
    for (name, sku) in &vpn {
        add(Scope::Vpn, name, sku.bits_per_second, None);
    }
    for (name, sku) in &vpn {
        let (bits, packets) = (sku.tunnel_bits_per_second, sku.tunnel_packets_per_second);
        add(Scope::Tunnel, name, bits, packets);
    }
    tiers
}

/// The table: every tier at every size.
pub fn rows(rates: &[Rate]) -> Vec<Row> {
    let row = |(tier, size): (&Tier, Size)| {
        let of_tier = |rate: &&Rate| {
            rate.size == size && rate.form == Form::Single && tier.scope.ways().contains(&rate.way)
        };
        let slower = rates
            .iter()
            .filter(of_tier)
            .max_by(|a, b| a.nanoseconds.total_cmp(&b.nanoseconds));
        slower.map(|rate| Row::new(tier, rate))
    };
    let tiers = tiers();
    let all = tiers
        .iter()
        .flat_map(|tier| Size::ALL.map(|size| (tier, size)));
    all.filter_map(row).collect()
}

impl Row {
    fn new(tier: &Tier, rate: &Rate) -> Self {
        let by_bits = tier.bits_per_second as f64 / (rate.packet_bytes * 8.0);
        let by_packets = tier.packets_per_second.map(|packets| packets as f64);
        let (bound, allowed) = match by_packets {
            Some(packets) if packets < by_bits => (Bound::Packets, packets),
            _ => (Bound::Bits, by_bits),
        };
        let cores_busy = allowed / rate.packets_per_second;
        Self {
            tier: tier.clone(),
            size: rate.size,
            packet_bytes: rate.packet_bytes,
            bound,
            allowed_packets_per_second: allowed,
            core_packets_per_second: rate.packets_per_second,
            core_bits_per_second: rate.bits_per_second,
            headroom_bits: rate.packets_per_second / by_bits,
            headroom_packets: by_packets.map(|packets| rate.packets_per_second / packets),
            cores_busy,
            cores: (cores_busy / PLANNED).ceil() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_with_the_same_limits_are_one() {
        let tiers = tiers();
        let of = |scope| {
            let names = tiers.iter().filter(move |tier| tier.scope == scope);
            names.map(|tier| tier.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            of(Scope::ExpressRoute),
            [
                "Standard, ErGw1Az, ErGwScale:1",
                "HighPerformance, ErGw2Az",
                "UltraPerformance, ErGw3Az, ErGwScale:10",
                "ErGwScale:40",
            ]
        );
        assert_eq!(of(Scope::Vpn).len(), 7, "{:?}", of(Scope::Vpn));
        assert_eq!(
            of(Scope::Tunnel).last(),
            Some(&"VpnGw4 gen 2, VpnGw5 gen 2")
        );
    }

    #[test]
    fn the_limit_that_binds_is_the_one_that_headroom_is_over() {
        let tier = Tier {
            scope: Scope::ExpressRoute,
            name: String::new(),
            bits_per_second: 10_000_000_000,
            packets_per_second: Some(1_000_000),
        };
        let rate = |packet_bytes: f64| Rate {
            way: Way::ExpressRouteOut,
            size: Size::Small,
            form: Form::Single,
            packet_bytes,
            nanoseconds: 500.0,
            fastest_nanoseconds: 400.0,
            packets_per_second: 2e6,
            bits_per_second: 2e6 * packet_bytes * 8.0,
        };
        let small = Row::new(&tier, &rate(64.0));
        assert_eq!(
            (small.bound, small.headroom(), small.cores),
            (Bound::Packets, 2.0, 1)
        );
        // 10 Gbps of 1,400 B are 892,857 packets/s.
        let large = Row::new(&tier, &rate(1_400.0));
        assert_eq!((large.bound, large.cores), (Bound::Bits, 1));
        assert!(
            (large.headroom() - 2.24).abs() < 1e-9,
            "{}",
            large.headroom()
        );
    }
}
