//! Which of the routes that are wanted may be set, beside those that the machine has of its own.
//!
//! A route of the gateway's own stands beside others to the same destination, with a metric of its own; it
//! never takes another's place. It is not set where that would do harm, or nothing:
//!
//! 1. the destination is a network that the machine itself is on (a route of the kernel's)
//! 2. another route to it has a metric that is not worse, so that the kernel would take that one
//! 3. it would lead the datagrams of a tunnel, which the kernel sends, back into the gateway: the endpoint has
//!    no route more specific than it

use crate::device::netlink::{TableRoute, protocol_name};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

/// RTPROT_KERNEL: what the kernel sets by itself for an address.
pub(super) const BY_KERNEL: u8 = 2;

/// RTN_UNICAST; the others above it that a table has are blackhole, unreachable and prohibit.
const UNICAST: u8 = 1;

/// Why a wanted route is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The machine is on this network itself.
    Connected,
    /// Another route is preferred.
    Preferred {
        /// The other's metric.
        metric: u32,
        /// Who has set it.
        protocol: u8,
        /// RTN_UNICAST and the like.
        kind: u8,
    },
    /// It would swallow the way to this endpoint.
    Endpoint(IpAddr),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str(
                "the machine has an address in that network itself; take the prefix out of the \
                 configuration, or the address off the machine",
            ),
            Self::Preferred {
                metric,
                protocol,
                kind,
            } => {
                let kind = match kind {
                    6 => "a blackhole route",
                    7 => "an unreachable route",
                    8 => "a prohibit route",
                    _ => "a route",
                };
                let by = protocol_name(*protocol);
                write!(
                    f,
                    "the machine has {kind} of its own there (protocol {by}, metric {metric}), which \
                     stays in force; take it away, or give it a metric above vnet.host_route_metric"
                )
            }
            Self::Endpoint(endpoint) => write!(
                f,
                "it would lead the tunnel to {endpoint} back into the gateway; give the machine a more \
                 specific route to it: ip route add {endpoint} via GATEWAY dev INTERFACE"
            ),
        }
    }
}

/// What the machine's table says to what is wanted.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Routes of the gateway's own, with their metrics, as they stand there.
    pub(crate) present: HashMap<IpNet, u32>,
    /// Networks of the device's own addresses that the kernel has a route to.
    pub(crate) networks: HashSet<IpNet>,
    /// The best of the others to a wanted destination.
    others: HashMap<IpNet, TableRoute>,
    /// The best way to each endpoint that is not the gateway's: length of its prefix, and metric.
    ways: HashMap<IpAddr, (u8, u32)>,
}

impl Survey {
    /// Takes one route of the main table. `endpoints` are sorted.
    pub(crate) fn take(
        &mut self,
        route: TableRoute,
        own: bool,
        wanted: &HashSet<IpNet>,
        endpoints: &[IpAddr],
    ) {
        if own {
            self.present.insert(route.destination, route.metric);
            return;
        }
        if wanted.contains(&route.destination) {
            let best = self.others.entry(route.destination).or_insert(route);
            // A network of the machine's own is one whatever else leads there.
            let rank = |route: &TableRoute| (route.protocol != BY_KERNEL, route.metric);
            if rank(&route) < rank(best) {
                *best = route;
            }
        }
        // A blackhole is no way to an endpoint, but neither does it lead into the gateway.
        let (first, last) = (route.destination.network(), route.destination.broadcast());
        let from = endpoints.partition_point(|endpoint| *endpoint < first);
        for endpoint in endpoints.iter().skip(from).take_while(|e| **e <= last) {
            let way = (route.destination.prefix_len(), route.metric);
            let known = self.ways.entry(*endpoint).or_insert(way);
            if way.0 > known.0 || (way.0 == known.0 && way.1 < known.1) {
                *known = way;
            }
        }
    }

    /// The wanted routes that are not to be set at this metric, with the reason.
    pub(crate) fn conflicts(
        &self,
        wanted: &HashSet<IpNet>,
        endpoints: &[IpAddr],
        metric: u32,
    ) -> BTreeMap<IpNet, Conflict> {
        let mut conflicts = BTreeMap::new();
        for (prefix, other) in &self.others {
            let conflict = if other.protocol == BY_KERNEL && other.kind == UNICAST {
                Conflict::Connected
            } else if other.metric <= metric {
                Conflict::Preferred {
                    metric: other.metric,
                    protocol: other.protocol,
                    kind: other.kind,
                }
            } else {
                continue;
            };
            conflicts.insert(*prefix, conflict);
        }
        for endpoint in endpoints {
            let known = self.ways.get(endpoint);
            let most = if endpoint.is_ipv4() { 32 } else { 128 };
            for length in 0..=most {
                let Ok(prefix) = IpNet::new(*endpoint, length) else {
                    continue;
                };
                let swallows = known.is_none_or(|&(longest, best)| {
                    length > longest || (length == longest && metric < best)
                });
                if swallows && wanted.contains(&prefix.trunc()) {
                    conflicts
                        .entry(prefix.trunc())
                        .or_insert(Conflict::Endpoint(*endpoint));
                }
            }
        }
        conflicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, protocol: u8, metric: u32) -> TableRoute {
        TableRoute {
            destination: destination.parse().unwrap(),
            table: 254,
            protocol,
            kind: UNICAST,
            metric,
            interface: 2,
        }
    }

    /// What of `wanted` is refused beside `others`, at metric 20 and with these endpoints.
    fn refused(wanted: &[&str], others: &[TableRoute], endpoints: &[&str]) -> Vec<String> {
        let wanted: HashSet<IpNet> = wanted.iter().map(|w| w.parse().unwrap()).collect();
        let mut endpoints: Vec<IpAddr> = endpoints.iter().map(|e| e.parse().unwrap()).collect();
        endpoints.sort();
        let mut survey = Survey::default();
        for other in others {
            survey.take(*other, false, &wanted, &endpoints);
        }
        let conflicts = survey.conflicts(&wanted, &endpoints, 20);
        conflicts.keys().map(IpNet::to_string).collect()
    }

    #[test]
    fn a_preferred_route_of_the_machine_stays_and_a_worse_one_is_no_conflict() {
        let wanted = ["10.2.0.0/16", "10.3.0.0/16", "fd00:2::/48", "10.5.0.0/16"];
        let others = [
            route("10.2.0.0/16", 3, 0),
            route("10.3.0.0/16", 16, 100),
            route("fd00:2::/48", 4, 20),
            route("10.4.0.0/16", 3, 0),
        ];
        assert_eq!(
            refused(&wanted, &others, &[]),
            ["10.2.0.0/16", "fd00:2::/48"]
        );
    }

    #[test]
    fn a_network_of_the_machine_is_refused_whatever_its_metric() {
        let others = [
            route("fd00:2::/64", 186, 20_000),
            route("fd00:2::/64", BY_KERNEL, 256),
        ];
        assert_eq!(refused(&["fd00:2::/64"], &others, &[]), ["fd00:2::/64"]);
    }

    #[test]
    fn a_route_that_would_swallow_an_endpoint_is_refused() {
        let default = route("0.0.0.0/0", 16, 100);
        let wanted = ["0.0.0.0/0", "203.0.113.0/24"];
        let endpoint = ["203.0.113.9"];
        let both = ["0.0.0.0/0", "203.0.113.0/24"];
        assert_eq!(refused(&wanted, &[default], &endpoint), both);
        let specific = route("203.0.113.9/32", 3, 0);
        let none: [String; 0] = [];
        assert_eq!(refused(&wanted, &[default, specific], &endpoint), none);
        // A network between the two lets the wider one pass.
        let network = route("203.0.112.0/23", 3, 0);
        assert_eq!(
            refused(&wanted, &[default, network], &endpoint),
            ["203.0.113.0/24"]
        );
        // With no way to it at all, any would be the wrong one.
        assert_eq!(refused(&wanted, &[], &endpoint), both);
    }

    #[test]
    fn every_conflict_names_its_remedy() {
        let blackhole = Conflict::Preferred {
            metric: 0,
            protocol: 3,
            kind: 6,
        };
        for conflict in [
            blackhole,
            Conflict::Connected,
            Conflict::Endpoint("203.0.113.9".parse().unwrap()),
        ] {
            assert!(conflict.to_string().contains("; "), "{conflict}");
        }
    }
}
