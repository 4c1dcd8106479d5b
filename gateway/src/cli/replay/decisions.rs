//! A capture's packets through the pipeline, offline: what becomes of each, a table of it, and a hash.
//!
//! 1. where the packet comes in: as it was asked for, or by its source
//! 2. `process`, the function that the workers call
//! 3. one line a packet, which goes into the hash; one row of the table for those that fare alike

use super::capture::{Content, Record};
use crate::config::matches::{dscp_name, protocol_name};
use crate::config::schema::Config;
use crate::device::offload::{Gso, GsoKind, Offload};
use crate::pipeline::forward;
use crate::pipeline::process::{Egress, Forwarding, Outcome, process};
use crate::plan::{Origin, Plan};
use crate::telemetry::ledger::Sum;
use ipnet::IpNet;
use ring::digest::{Context, SHA256};
use routing::cache::FlowCache;
use routing::decide::{Decision, Verdict};
use routing::packet::{Headers, Version, protocol};
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Flows whose decision is remembered; more only cost a decision each.
const FLOWS: usize = 65_536;

/// What fares alike: one row of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Fate {
    /// `forward`, `local`, `drop` or `skipped`.
    pub(super) verdict: &'static str,
    /// The path, `vnet` or `local`.
    pub(super) path: Option<String>,
    /// The policy rule that matched.
    pub(super) policy: Option<String>,
    /// The DSCP that the rule gave.
    pub(super) set_dscp: Option<String>,
    /// What decided, or why the packet was dropped or skipped.
    pub(super) reason: &'static str,
}

/// A packet that went through, for whoever measures.
pub(super) struct Measured<'a> {
    pub(super) headers: &'a Headers,
    pub(super) sum: Sum,
    /// The paths that it came in and went out by.
    pub(super) paths: [Option<PathId>; 2],
}

/// The gateway of a configuration, with no device, and what it has decided so far.
pub(super) struct Decisions<'a> {
    plan: &'a Plan,
    forwarding: Forwarding,
    cache: FlowCache,
    ingress: Ways,
    clients: Clients,
    hash: Context,
    number: u64,
    /// Packets and bytes by fate.
    pub(super) fates: BTreeMap<Fate, Sum>,
    /// Packets that the capture held in part.
    pub(super) cut: u64,
    /// Super-packets that an offload merged before they were captured.
    pub(super) merged: u64,
    /// Frames of links that are not read, by LINKTYPE_ value.
    pub(super) unread: BTreeMap<u16, u64>,
}

impl<'a> Decisions<'a> {
    /// Nothing decided yet. `from` is where all packets come in; without it their source says.
    pub(super) fn new(
        config: &Config,
        plan: &'a Plan,
        forwarding: Forwarding,
        from: Option<Ingress>,
    ) -> Self {
        Self {
            plan,
            forwarding,
            // Not random: nobody aims at it here, and every run is to be the same.
            cache: FlowCache::new(FLOWS, 1),
            ingress: Ways::new(config, plan, from),
            clients: Clients::new(config, plan),
            hash: Context::new(&SHA256),
            number: 0,
            fates: BTreeMap::new(),
            cut: 0,
            merged: 0,
            unread: BTreeMap::new(),
        }
    }

    /// Decides about one record; its line, and what went through, if it did.
    pub(super) fn decide(
        &mut self,
        record: Record,
        mut measure: impl FnMut(&Measured<'_>),
    ) -> String {
        let (fate, from, headers, sum) = match record.content {
            Content::NotIp => (skipped("not_ip"), None, None, one(0)),
            Content::Link(kind) => {
                *self.unread.entry(kind).or_default() += 1;
                (skipped("link_type"), None, None, one(0))
            }
            Content::Ip {
                bytes,
                captured,
                merged,
            } => self.ip(bytes, captured, merged, &mut measure),
        };
        *self.fates.entry(fate.clone()).or_default() += sum;
        let line = self.line(&fate, from, headers.as_ref(), sum);
        self.hash.update(line.as_bytes());
        self.number += 1;
        line
    }

    /// The hash of all lines so far: SHA-256 in hexadecimal.
    pub(super) fn hash(&self) -> String {
        let digest = self.hash.clone().finish();
        digest
            .as_ref()
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    fn ip(
        &mut self,
        mut bytes: Vec<u8>,
        captured: usize,
        merged: Option<u32>,
        measure: &mut impl FnMut(&Measured<'_>),
    ) -> (Fate, Option<Ingress>, Option<Headers>, Sum) {
        let length = merged.map_or(bytes.len() as u64, u64::from);
        let is_cut = captured < bytes.len();
        self.cut += u64::from(is_cut);
        let mut headers = match Headers::parse(&bytes) {
            // What the capture left out cannot be judged, not even as malformed.
            _ if is_cut && captured < 20 => return (skipped("cut"), None, None, one(length)),
            Ok(headers) if is_cut && captured < usize::from(headers.payload) => {
                return (skipped("cut"), None, None, one(length));
            }
            Err(_) if is_cut => return (skipped("cut"), None, None, one(length)),
            Ok(headers) => headers,
            Err(reason) => {
                let fate = Fate {
                    verdict: "drop",
                    ..skipped(reason.name())
                };
                return (fate, None, None, one(length));
            }
        };
        headers.total_len = merged.unwrap_or(headers.total_len);
        let Some(ingress) = self.ingress.of(&headers) else {
            return (skipped("no_ingress"), None, Some(headers), one(length));
        };
        if self.clients.refuse(ingress, &headers) {
            let fate = Fate {
                verdict: "drop",
                ..skipped(DropReason::SpoofedSource.name())
            };
            return (fate, Some(ingress), Some(headers), one(length));
        }
        let offload = self.offload(ingress, &headers);
        self.merged += u64::from(offload.gso.is_some() || merged.is_some());
        let sum = forward::on_the_wire(&headers, &offload);
        // The pipeline asks the same cache, and so decides the same.
        let decision = self
            .cache
            .decide(&self.forwarding.snapshot, ingress, &headers);
        let mut outcome = process(
            &self.forwarding,
            &mut self.cache,
            ingress,
            &mut bytes,
            &offload,
        );
        if let Outcome::Forward { to, .. } | Outcome::Fragment { to, .. } = outcome
            && self.clients.miss(to, &headers)
        {
            outcome = Outcome::Drop {
                reason: DropReason::NoClient,
                complaint: None,
                headers: Some(headers),
            };
        }
        let fate = self.fate(&decision, &outcome);
        if let Outcome::Forward { to, .. } | Outcome::Fragment { to, .. } = outcome {
            let path_in = match ingress {
                Ingress::Path(path) => Some(path),
                Ingress::Vnet | Ingress::Local => None,
            };
            let path_out = match to {
                Egress::Path(path) => Some(path),
                Egress::Vnet | Egress::Local => None,
            };
            if to != Egress::Local {
                measure(&Measured {
                    headers: &headers,
                    sum,
                    paths: [path_in, path_out],
                });
            }
        }
        (fate, Some(ingress), Some(headers), sum)
    }

    /// TCP longer than its side's MTU has not come in so: an offload merged it before it was captured.
    fn offload(&self, ingress: Ingress, headers: &Headers) -> Offload {
        let side = self.forwarding.side(match ingress {
            Ingress::Path(path) => Some(path),
            Ingress::Vnet | Ingress::Local => None,
        });
        let mtu = side.mtu.load(std::sync::atomic::Ordering::Relaxed);
        let size = mtu.saturating_sub(headers.payload);
        let merged =
            headers.key.protocol == protocol::TCP && headers.total_len > u32::from(mtu) && size > 0;
        Offload {
            gso: merged.then_some(Gso {
                kind: match headers.key.version {
                    Version::V4 => GsoKind::Tcp4,
                    Version::V6 => GsoKind::Tcp6,
                },
                size,
                ecn: false,
            }),
            ..Offload::default()
        }
    }

    fn fate(&self, decision: &Decision, outcome: &Outcome) -> Fate {
        let snapshot = &self.plan.snapshot;
        let (verdict, path, reason) = match *outcome {
            Outcome::Forward { to, .. } | Outcome::Fragment { to, .. } => {
                let by = if decision.is_routed {
                    "route"
                } else {
                    "policy"
                };
                match to {
                    Egress::Vnet => ("forward", Some("vnet".to_owned()), by),
                    Egress::Local => ("local", Some("local".to_owned()), "own_address"),
                    Egress::Path(path) => ("forward", Some(self.path_name(path)), by),
                }
            }
            Outcome::Drop { reason, .. } => {
                // A packet that has a way and is dropped on it (too big, no hops left) names it.
                let path = match decision.verdict {
                    Verdict::Path(path) => Some(self.path_name(path)),
                    Verdict::Vnet | Verdict::Local | Verdict::Drop(_) => None,
                };
                ("drop", path, reason.name())
            }
        };
        let rule = decision.rule.and_then(|rule| snapshot.rule_name(rule));
        Fate {
            verdict,
            path,
            policy: rule.map(str::to_owned),
            set_dscp: decision
                .set_dscp
                .filter(|_| verdict == "forward")
                .map(dscp_name),
            reason,
        }
    }

    fn path_name(&self, path: PathId) -> String {
        let path = self.plan.paths.get(usize::from(path.0));
        path.map_or_else(String::new, |path| path.name.clone())
    }

    /// One line a packet, fields with tabs between, `-` for what is not there: number from 0, bytes, way in,
    /// protocol, source, source port, destination, destination port, verdict, way out, policy, DSCP, reason.
    fn line(
        &self,
        fate: &Fate,
        from: Option<Ingress>,
        headers: Option<&Headers>,
        sum: Sum,
    ) -> String {
        let dash = || "-".to_owned();
        let from = match from {
            Some(Ingress::Vnet) => "vnet".to_owned(),
            Some(Ingress::Path(path)) => self.path_name(path),
            Some(Ingress::Local) | None => dash(),
        };
        let flow = headers.map_or_else(
            || ["-"; 5].join("\t"),
            |headers| {
                let key = &headers.key;
                format!(
                    "{}\t{}\t{}\t{}\t{}",
                    protocol_name(key.protocol),
                    address(key.version, key.source),
                    key.source_port,
                    key.destination_address(),
                    key.destination_port
                )
            },
        );
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(dash);
        format!(
            "{}\t{}\t{from}\t{flow}\t{}\t{}\t{}\t{}\t{}\n",
            self.number,
            sum.bytes,
            fate.verdict,
            or_dash(&fate.path),
            or_dash(&fate.policy),
            or_dash(&fate.set_dscp),
            fate.reason
        )
    }
}

fn address(version: Version, bits: u128) -> IpAddr {
    match version {
        Version::V4 => IpAddr::from((bits as u32).to_be_bytes()),
        Version::V6 => IpAddr::from(bits.to_be_bytes()),
    }
}

fn skipped(reason: &'static str) -> Fate {
    Fate {
        verdict: "skipped",
        path: None,
        policy: None,
        set_dscp: None,
        reason,
    }
}

fn one(bytes: u64) -> Sum {
    Sum { packets: 1, bytes }
}

/// The addresses of point-to-site clients: what the workers ask beside the pipeline. Every client is taken for
/// connected.
struct Clients {
    path: Option<PathId>,
    addresses: HashSet<IpAddr>,
}

impl Clients {
    fn new(config: &Config, plan: &Plan) -> Self {
        let path = plan.live().find(|path| path.origin == Origin::PointToSite);
        let clients = config.clients().iter();
        Self {
            path: path.map(|path| path.id),
            addresses: clients.flat_map(|client| client.address.clone()).collect(),
        }
    }

    /// Whether a packet comes from a client with an address that none has.
    fn refuse(&self, from: Ingress, headers: &Headers) -> bool {
        let key = &headers.key;
        self.path.is_some_and(|path| from == Ingress::Path(path))
            && !self.addresses.contains(&address(key.version, key.source))
    }

    /// Whether a packet goes to a client that there is not.
    fn miss(&self, to: Egress, headers: &Headers) -> bool {
        let key = &headers.key;
        self.path.is_some_and(|path| to == Egress::Path(path))
            && !self
                .addresses
                .contains(&address(key.version, key.destination))
    }
}

/// Where packets come in.
struct Ways {
    fixed: Option<Ingress>,
    vnet: Vec<IpNet>,
    /// Prefixes of circuits, links and sites with the path that stands for each, circuits first.
    paths: Vec<(IpNet, PathId)>,
}

impl Ways {
    fn new(config: &Config, plan: &Plan, fixed: Option<Ingress>) -> Self {
        let mut vnet = config.vnet.address_space.clone();
        vnet.extend(
            config
                .vnet
                .host_address
                .iter()
                .map(|own| IpNet::from(own.addr())),
        );
        let mut paths = Vec::new();
        for path in &plan.paths {
            let prefixes: Vec<IpNet> = match path.origin {
                Origin::Link { circuit, link } => {
                    let circuits = config.circuits().iter();
                    let Some(circuit) = circuits.into_iter().nth(circuit) else {
                        continue;
                    };
                    let subnets = circuit
                        .links
                        .get(link)
                        .map_or(&[][..], |link| &link.address);
                    let subnets = subnets.iter().map(IpNet::trunc);
                    circuit.prefixes.iter().copied().chain(subnets).collect()
                }
                Origin::Site { site } => {
                    let sites = config.sites().iter();
                    let site = sites.into_iter().nth(site);
                    site.map_or_else(Vec::new, |site| site.prefixes.clone())
                }
                Origin::PointToSite => {
                    let clients = config.point_to_site().into_iter();
                    clients.flat_map(|p| p.address_pool.clone()).collect()
                }
                Origin::Gone => Vec::new(),
            };
            paths.extend(prefixes.into_iter().map(|prefix| (prefix, path.id)));
        }
        Self { fixed, vnet, paths }
    }

    /// The virtual network if the source is in it, else the path with the longest prefix that holds it; of
    /// equals the first, which is ExpressRoute's.
    fn of(&self, headers: &Headers) -> Option<Ingress> {
        if self.fixed.is_some() {
            return self.fixed;
        }
        let source = address(headers.key.version, headers.key.source);
        if self.vnet.iter().any(|prefix| prefix.contains(&source)) {
            return Some(Ingress::Vnet);
        }
        let mut best: Option<(u8, PathId)> = None;
        for &(prefix, path) in &self.paths {
            let length = prefix.prefix_len();
            if prefix.contains(&source) && best.is_none_or(|(longest, _)| longest < length) {
                best = Some((length, path));
            }
        }
        best.map(|(_, path)| Ingress::Path(path))
    }
}
