//! Why a packet was dropped: one enum for the whole gateway, which indexes the drop counters.

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped. The discriminant indexes [`DropReason::ALL`] and the drop counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in discriminant order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason's name in counters, JSON and `vng explain`: lower case with underscores.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

reasons! {
    // ---- parsing -----------------------------------------------------------------------------
    /// Shorter than its own headers or lengths say, or longer than any IP packet.
    Malformed = "malformed",
    /// A super-packet that stands for more than 2,048 packets, which no kernel makes.
    TooManySegments = "too_many_segments",
    /// The version field is neither 4 nor 6.
    NotIp = "not_ip",
    /// The IPv4 header checksum does not hold (RFC 1812, 5.2.2).
    HeaderChecksum = "header_checksum",
    /// Source routing or another option that a gateway must not follow (RFC 7126).
    IpOption = "ip_option",
    /// A source or destination that must never be forwarded: multicast, loopback, link-local,
    /// unspecified, broadcast, class E (RFC 1812, 5.3.7; RFC 6890).
    Martian = "martian",
    /// A frame whose ethertype is not carried.
    EtherType = "ethertype",
    /// A frame whose VLAN tags are not the link's.
    VlanTag = "vlan_tag",
    /// A frame for another station's MAC address.
    OtherStation = "other_station",
    // ---- deciding ----------------------------------------------------------------------------
    /// The source is not one that this ingress may use.
    SpoofedSource = "spoofed_source",
    /// A policy rule says drop.
    Policy = "policy",
    /// A policy rule says reject; the sender got an ICMP error.
    PolicyReject = "policy_reject",
    /// No route to the destination.
    NoRoute = "no_route",
    /// The route's next hop is None.
    RouteNone = "route_none",
    /// Every path of the route is down.
    NoPath = "no_path",
    /// An address of the point-to-site pool that no client has.
    NoClient = "no_client",
    /// Between two branches (ExpressRoute, VPN) while branch transit is off.
    BranchTransit = "branch_transit",
    /// It would go back out of where it came from.
    Hairpin = "hairpin",
    // ---- forwarding --------------------------------------------------------------------------
    /// TTL or hop limit ran out (RFC 792, RFC 4443 3.3).
    TtlExpired = "ttl_expired",
    /// Larger than the path's MTU and may not be fragmented (RFC 1191, RFC 8201).
    TooBig = "too_big",
    /// A fragment where the path's policy drops fragments.
    Fragment = "fragment",
    /// The congestion mark of the outer header on an inner packet that cannot carry one (RFC 6040, 4.2).
    EcnIllegal = "ecn_illegal",
    /// The gateway SKU's bandwidth.
    GatewayBandwidth = "gateway_bandwidth",
    /// The gateway SKU's packets per second.
    GatewayPacketRate = "gateway_packet_rate",
    /// The gateway SKU's flows.
    GatewayFlows = "gateway_flows",
    /// The gateway SKU's rate of new flows.
    GatewayFlowRate = "gateway_flow_rate",
    /// The tunnel's bandwidth.
    TunnelBandwidth = "tunnel_bandwidth",
    /// The tunnel's packets per second.
    TunnelPacketRate = "tunnel_packet_rate",
    /// Its queue has stood for too long: the loss tells the sender to slow down (CoDel, RFC 8289).
    QueueDelay = "queue_delay",
    // ---- neighbours and devices --------------------------------------------------------------
    /// The next hop's MAC address did not resolve in time.
    NeighborUnresolved = "neighbor_unresolved",
    /// Too many packets wait for that neighbour already.
    NeighborQueueFull = "neighbor_queue_full",
    /// The interface is down or gone.
    InterfaceDown = "interface_down",
    /// The kernel refused the write for want of room (EAGAIN, ENOBUFS).
    TransmitQueueFull = "transmit_queue_full",
    /// The kernel refused the write for another reason.
    TransmitError = "transmit_error",
    /// The gateway's own host port has no room.
    LocalQueueFull = "local_queue_full",
    /// For the gateway itself, but nothing of it listens there.
    LocalUnreachable = "local_unreachable",
    /// The worker that owns the tunnel has no room.
    HandoverFull = "handover_full",
    /// Held when the gateway stopped or its configuration took the path away.
    Shutdown = "shutdown",
    // ---- tunnels -----------------------------------------------------------------------------
    /// No session with the tunnel's far end yet, and too many packets wait already, or too long.
    TunnelNoSession = "tunnel_no_session",
    /// A datagram on the tunnel port that is none of the protocol's messages.
    TunnelMalformed = "tunnel_malformed",
    /// A receiver index that no session has.
    TunnelUnknownIndex = "tunnel_unknown_index",
    /// Seen before, or older than the replay window.
    TunnelReplay = "tunnel_replay",
    /// Its authentication tag does not hold.
    TunnelAuthentication = "tunnel_authentication",
    /// A handshake message whose MAC, key or timestamp does not hold.
    TunnelHandshake = "tunnel_handshake",
    /// Handshake messages beyond what one source may send.
    TunnelHandshakeRate = "tunnel_handshake_rate",
    /// A key that no site has.
    TunnelUnknownPeer = "tunnel_unknown_peer",
}

impl Serialize for DropReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn discriminants_index_all_and_names_are_unique() {
        let mut names = HashSet::new();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(names.insert(reason.name()));
        }
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
