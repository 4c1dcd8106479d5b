//! The one function in the middle: what becomes of a packet. Deterministic: no socket, no clock.
//! The workers, the benches, `vng explain`, replay, property tests and fuzzers all call it.
//!
//! 1. parse once: headers, flow key, segments
//! 2. decide: flow cache, policy, longest prefix, active path; a new flow must be within the SKU's limits;
//!    count for the rule that decided
//! 3. hop limit
//! 4. fragments, and size against the way out
//! 5. only then edit: hop limit, DSCP, MSS clamp
//!
//! Whatever is refused is refused before the first edit, so an ICMP error quotes what the sender sent.

use crate::device::offload::{MAX_SEGMENTS, Offload};
pub use crate::pipeline::egress::Egress;
use crate::pipeline::field::{flag, length};
use crate::pipeline::flow::{self, FlowLimits, FlowTable};
use crate::pipeline::fragment::FragmentPolicy;
use crate::pipeline::icmp::Complaint;
use crate::pipeline::shape::RateLimits;
use crate::pipeline::{ecn, forward};
use crate::telemetry::hits::Hits;
use crypto::wireguard;
use routing::cache::FlowCache;
use routing::decide::Verdict;
use routing::packet::{Fragment, Headers, Version, protocol};
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use routing::snapshot::Snapshot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// What the pipeline knows of one side of the gateway.
#[derive(Debug)]
pub struct Side {
    /// Largest IP packet there, bytes; control changes it when the interface's does.
    pub mtu: AtomicU16,
    /// What to do with fragments on the way out.
    pub fragments: FragmentPolicy,
    /// The gateway's own IPv4 address there: the source of its ICMP errors.
    pub v4: Option<Ipv4Addr>,
    /// The gateway's own IPv6 address there.
    pub v6: Option<Ipv6Addr>,
}

impl Side {
    /// Largest IP packet there now, bytes.
    #[inline]
    pub fn mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }
}

/// A tunnel over a circuit: it is as wide as the narrowest link of the circuit lets it be.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The tunnel's path.
    pub path: PathId,
    /// The circuit's links.
    pub links: Box<[PathId]>,
    /// MTU that the configuration gives it, bytes of the inner packet.
    pub mtu: u16,
    /// What the tunnel puts around each packet: 60 bytes over IPv4, 80 over IPv6.
    pub overhead: u16,
}

/// The least MTU of IPv6 (RFC 8200, 5): senders go no lower, whatever they are told.
const LEAST_V6: u16 = 1_280;

impl Carried {
    /// The MTU of the tunnel over links whose narrowest has this MTU. Over IPv4 it is never less than IPv6 needs: on
    /// a link that is narrower still, what the tunnel makes of such packets goes in fragments.
    pub fn mtu_over(&self, narrowest: u16) -> u16 {
        let least = if self.overhead == 60 { LEAST_V6 } else { 0 };
        self.room_over(narrowest).max(least).min(self.mtu)
    }

    /// The longest inner packet that goes whole over a way of this MTU, padding included, at most the configured.
    pub fn room_over(&self, narrowest: u16) -> u16 {
        let room = narrowest.saturating_sub(self.overhead);
        if room >= self.mtu {
            return self.mtu;
        }
        // Padded to a multiple of it, but not beyond the configured MTU.
        let padding = wireguard::PADDING as u16;
        room / padding * padding
    }
}

/// The forwarding state: immutable, loaded once per batch.
#[derive(Debug)]
pub struct Forwarding {
    /// Routes, policy, paths.
    pub snapshot: Arc<Snapshot>,
    /// The virtual network's side.
    pub vnet: Side,
    /// The side of each path, by [`PathId`].
    pub paths: Box<[Side]>,
    /// Tunnels over circuits.
    pub carried: Box<[Carried]>,
    /// Rates that packets are held to; `None` without such.
    pub limits: Option<Arc<RateLimits>>,
    /// Flows that there may be; `None` without such a limit.
    pub flows: Option<Arc<FlowLimits>>,
    /// What each policy rule has decided.
    pub hits: Hits,
}

impl Forwarding {
    /// Makes every tunnel over a circuit as wide as its links let it be; gives those that have changed, and how wide
    /// they are now. To be called when a link's MTU is known, or another.
    pub fn fit_carried(&self) -> Vec<(PathId, u16)> {
        let side = |path: PathId| self.paths.get(usize::from(path.0));
        let fit = |carried: &Carried| {
            let links = carried.links.iter().filter_map(|&link| side(link));
            // An interface that is not there has none.
            let known = links.map(Side::mtu).filter(|&mtu| mtu > 0);
            let mtu = carried.mtu_over(known.min()?);
            let before = side(carried.path)?.mtu.swap(mtu, Ordering::Relaxed);
            (before != mtu).then_some((carried.path, mtu))
        };
        self.carried.iter().filter_map(fit).collect()
    }

    /// The side behind an egress or ingress; the gateway's own host is as wide as the virtual network.
    #[inline]
    pub fn side(&self, path: Option<PathId>) -> &Side {
        path.and_then(|path| self.paths.get(usize::from(path.0)))
            .unwrap_or(&self.vnet)
    }

    /// The gateway's address that answers for packets which came in at `ingress`: the address of that
    /// side, or the virtual network's where the side has none of the family (RFC 1812, 4.3.2.4).
    pub fn source_for(&self, ingress: Ingress, version: Version) -> Option<IpAddr> {
        let side = match ingress {
            Ingress::Path(path) => self.side(Some(path)),
            Ingress::Vnet | Ingress::Local => &self.vnet,
        };
        match version {
            Version::V4 => side.v4.or(self.vnet.v4).map(IpAddr::V4),
            Version::V6 => side.v6.or(self.vnet.v6).map(IpAddr::V6),
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send it out; it is edited and ready.
    Forward {
        /// Where.
        to: Egress,
        /// Its headers, with the hop limit as parsed and the DSCP that it leaves with.
        headers: Headers,
    },
    /// Send it out in fragments of at most `mtu` bytes; a super-packet segment by segment.
    Fragment {
        /// Where.
        to: Egress,
        /// Its headers.
        headers: Headers,
        /// Largest fragment, bytes.
        mtu: u16,
    },
    /// Drop it, and tell its sender where `complaint` says so.
    Drop {
        /// Why.
        reason: DropReason,
        /// The ICMP error due, before any rate limit.
        complaint: Option<Complaint>,
        /// Its headers; `None` if they could not be read, or not be believed: it counts as one packet.
        headers: Option<Headers>,
    },
}

impl Outcome {
    /// Of a packet whose headers say too little, or something that is not to be believed.
    fn unread(reason: DropReason) -> Self {
        Self::Drop {
            reason,
            complaint: None,
            headers: None,
        }
    }

    fn refuse(reason: DropReason, complaint: Option<Complaint>, headers: Headers) -> Self {
        Self::Drop {
            reason,
            complaint,
            headers: Some(headers),
        }
    }
}

/// Decides about one packet and edits it for its way. `bytes` is the IP packet; a packet that is
/// forwarded may be shorter than `bytes` (link padding): `headers.total_len` says.
#[inline]
pub fn process(
    forwarding: &Forwarding,
    cache: &mut FlowCache,
    ingress: Ingress,
    bytes: &mut [u8],
    offload: &Offload,
) -> Outcome {
    process_counted(forwarding, (cache, None), ingress, bytes, offload)
}

/// The same, with new flows held to the SKU's limits by `flows`.
#[inline]
pub fn process_counted(
    forwarding: &Forwarding,
    (cache, mut flows): (&mut FlowCache, Option<&mut FlowTable>),
    ingress: Ingress,
    bytes: &mut [u8],
    offload: &Offload,
) -> Outcome {
    // 1. parse
    let headers = match Headers::parse(bytes) {
        Ok(headers) if forward::on_the_wire(&headers, offload).packets <= MAX_SEGMENTS => headers,
        Ok(_) => return Outcome::unread(DropReason::TooManySegments),
        Err(reason) => return Outcome::unread(reason),
    };

    // 2. decide
    let snapshot = &forwarding.snapshot;
    let decision = cache.decide_if(snapshot, ingress, &headers, |verdict| match &mut flows {
        Some(flows) => flows.admit(snapshot, ingress, &headers, verdict),
        None => Ok(()),
    });
    if let Some(rule) = decision.rule {
        let hits = forward::on_the_wire(&headers, offload);
        forwarding
            .hits
            .add(cache.worker(), usize::from(rule.0), hits);
    }
    let to = match decision.verdict {
        Verdict::Vnet => Egress::Vnet,
        Verdict::Local => {
            return Outcome::Forward {
                to: Egress::Local,
                headers,
            };
        }
        Verdict::Path(path) => Egress::Path(path),
        Verdict::Drop(reason) => return Outcome::refuse(reason, complaint_for(reason), headers),
    };
    finish(
        forwarding,
        flows,
        (ingress, to),
        (headers, decision.set_dscp),
        bytes,
        offload,
    )
}

/// Steps 3 to 5, for a packet whose way out is known.
#[inline]
fn finish(
    forwarding: &Forwarding,
    flows: Option<&mut FlowTable>,
    (ingress, to): (Ingress, Egress),
    (mut headers, set_dscp): (Headers, Option<u8>),
    bytes: &mut [u8],
    offload: &Offload,
) -> Outcome {
    let out = forwarding.side(match to {
        Egress::Path(path) => Some(path),
        Egress::Vnet | Egress::Local => None,
    });

    // 3. hop limit; what the gateway sends itself has not travelled yet
    let transit = ingress != Ingress::Local;
    if transit && headers.hop_limit <= 1 {
        return Outcome::refuse(
            DropReason::TtlExpired,
            Some(Complaint::TimeExceeded),
            headers,
        );
    }

    // 4. fragments and size
    if headers.fragment != Fragment::Whole && out.fragments == FragmentPolicy::Drop {
        return Outcome::refuse(DropReason::Fragment, None, headers);
    }
    if forward::largest_segment(&headers, offload) > usize::from(out.mtu()) {
        // A super-packet too: its segments are packets of their own, and each may be cut.
        if headers.dont_fragment {
            let complaint = Complaint::TooBig { mtu: out.mtu() };
            return Outcome::refuse(DropReason::TooBig, Some(complaint), headers);
        }
        if out.fragments == FragmentPolicy::Drop {
            return Outcome::refuse(DropReason::Fragment, None, headers);
        }
        if transit {
            forward::decrement_hop_limit(bytes, &headers);
        }
        set_dscp_of(bytes, &mut headers, set_dscp);
        return Outcome::Fragment {
            to,
            headers,
            mtu: out.mtu(),
        };
    }

    // 5. edit
    set_dscp_of(bytes, &mut headers, set_dscp);
    if transit {
        forward::decrement_hop_limit(bytes, &headers);
        let noted = headers.key.protocol == protocol::TCP && headers.tcp_flags & flow::NOTED != 0;
        if noted && let Some(flows) = flows {
            flows.note(&headers);
        }
        if noted && headers.tcp_flags & flag::SYN != 0 {
            let came = match ingress {
                Ingress::Path(path) => forwarding.side(Some(path)).mtu(),
                Ingress::Vnet | Ingress::Local => forwarding.vnet.mtu(),
            };
            let fixed = length::ip(headers.key.version) + length::TCP;
            let partial = offload.checksum.is_some();
            forward::clamp_mss(
                bytes,
                &headers,
                came.min(out.mtu()).saturating_sub(fixed as u16),
                partial,
            );
        }
    }
    Outcome::Forward { to, headers }
}

/// Writes the DSCP that a policy rule gives. The two bits of ECN stay the sender's and the path's.
#[inline]
fn set_dscp_of(bytes: &mut [u8], headers: &mut Headers, dscp: Option<u8>) {
    if let Some(dscp) = dscp {
        let class = dscp << 2 | headers.traffic_class & ecn::ECN;
        forward::set_traffic_class(bytes, headers, class);
        headers.traffic_class = class;
    }
}

/// The ICMP error that a reason calls for; silence for whatever an attacker could use it with.
fn complaint_for(reason: DropReason) -> Option<Complaint> {
    match reason {
        DropReason::NoRoute | DropReason::RouteNone => Some(Complaint::NoRoute),
        DropReason::NoPath => Some(Complaint::Unreachable),
        DropReason::PolicyReject | DropReason::BranchTransit => Some(Complaint::Prohibited),
        _ => None,
    }
}
