//! Tables of the policy, circuits, tunnels, clients, neighbours and BGP sessions.

use super::status::connection;
use crate::cli::output::{
    Style, bandwidth, bandwidth_limit, limit, list, or_dash, sentence, span, state, table,
    thousands,
};
use crate::show::view::{BgpView, CircuitView, ClientView, NeighborView, PolicyView, TunnelView};
use crate::telemetry::ledger::Sum;

/// The policy route table.
pub(in crate::cli) fn policy(style: Style, rules: &[PolicyView]) -> String {
    if rules.is_empty() {
        return "no policy rules: every packet goes by the route table\n".to_owned();
    }
    let counted = rules.iter().any(|rule| rule.hits.is_some());
    let remarked = rules.iter().any(|rule| rule.out_of_reach.is_some());
    let mut header = vec!["#", "name", "match", "action", "leads to"];
    if counted {
        header.extend(["packets", "+bytes"]);
    }
    if remarked {
        header.push("remark");
    }
    let row = |rule: &PolicyView| {
        let mut row = vec![
            rule.order.to_string(),
            rule.name.clone(),
            rule.matches.clone(),
            rule.action.clone(),
            list(&rule.paths),
        ];
        if counted {
            let hits = rule.hits.unwrap_or_default();
            row.extend([thousands(hits.packets), thousands(hits.bytes)]);
        }
        if remarked {
            let remark = rule.out_of_reach.as_ref();
            row.push(remark.map_or_else(String::new, |why| format!("out of reach: {why}")));
        }
        row
    };
    table(style, &header, rules.iter().map(row))
}

pub(super) fn circuits(style: Style, circuits: &[CircuitView]) -> String {
    if circuits.is_empty() {
        return "no ExpressRoute circuits\n".to_owned();
    }
    let header = [
        "circuit/link",
        "state",
        "interface",
        "VLAN",
        "+MAC",
        "+address",
        "neighbor",
        "ARP",
        "+received",
        "+sent",
    ];
    let rows = circuits.iter().flat_map(|circuit| {
        circuit.links.iter().map(move |link| {
            [
                format!("{}/{}", circuit.name, link.name),
                state(&link.state, link.reason.as_deref()),
                link.interface.clone(),
                list(&link.vlan),
                or_dash(link.mac.as_ref()),
                list(&link.address),
                list(&link.neighbor),
                if link.arp_available { "yes" } else { "no" }.to_owned(),
                sum(link.received),
                sum(link.sent),
            ]
        })
    });
    let mut text = table(style, &header, rows);
    for circuit in circuits {
        for link in &circuit.links {
            if let Some(seen) = &link.mistagged {
                let told = format!(
                    "{}/{}: {} frames for it had other tags than its own, the last {}: see that both ends have \
                     the same VLAN",
                    circuit.name,
                    link.name,
                    thousands(seen.frames),
                    seen.tags
                );
                text.push_str(&sentence(style, &told));
            }
        }
    }
    text.push('\n');
    let row = |circuit: &CircuitView| {
        [
            circuit.name.clone(),
            circuit.model_name.clone(),
            circuit.wire.clone(),
            list(&circuit.prefixes),
        ]
    };
    text += &table(
        style,
        &["circuit", "+model", "+on the wire", "prefixes"],
        circuits.iter().map(row),
    );
    text
}

fn sum(sum: Sum) -> String {
    format!(
        "{} packets, {} bytes",
        thousands(sum.packets),
        thousands(sum.bytes)
    )
}

pub(super) fn tunnels(style: Style, tunnels: &[TunnelView]) -> String {
    if tunnels.is_empty() {
        return "no VPN tunnels\n".to_owned();
    }
    let header = [
        "tunnel",
        "+kind",
        "state",
        "endpoint",
        "handshake",
        "+used of limit",
        "+received",
        "+sent",
        "prefixes",
        "+public key",
    ];
    let row = |tunnel: &TunnelView| {
        let carrying = tunnel.lanes.iter().filter(|lane| lane.has_session);
        let lanes = match tunnel.lanes.len() {
            0 | 1 => String::new(),
            all => format!(" ({} of {all} lanes)", carrying.count()),
        };
        let ago = tunnel.last_handshake_seconds;
        [
            format!("{}{lanes}", tunnel.name),
            connection(&tunnel.kind).to_owned(),
            state(&tunnel.state, tunnel.reason.as_deref()),
            match (&tunnel.endpoint, &tunnel.over) {
                (Some(endpoint), Some(over)) => format!("{endpoint} over {over}"),
                (endpoint, _) => or_dash(endpoint.as_ref()),
            },
            ago.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago))),
            match (
                tunnel.limit_bits_per_second,
                tunnel.limit_packets_per_second,
            ) {
                (None, None) => "-".to_owned(),
                (bits, packets) => format!(
                    "{} of {}, {} of {}/s",
                    bandwidth(tunnel.bits_per_second),
                    bandwidth_limit(bits),
                    thousands(tunnel.packets_per_second as u64),
                    limit(packets)
                ),
            },
            sum(tunnel.ingress),
            sum(tunnel.egress),
            list(&tunnel.prefixes),
            tunnel.public_key.clone(),
        ]
    };
    let own = tunnels.first().map_or("", |one| &one.gateway_public_key);
    let own = match own {
        "" => String::new(),
        key => format!("public key of this gateway: {key}\n\n"),
    };
    own + &table(style, &header, tunnels.iter().map(row))
}

/// Also what `vng p2s list` prints.
pub(in crate::cli) fn clients(style: Style, clients: &[ClientView]) -> String {
    if clients.is_empty() {
        return "no point-to-site clients\n".to_owned();
    }
    let header = [
        "client",
        "address",
        "connected",
        "endpoint",
        "handshake",
        "+received",
        "+sent",
        "+public key",
    ];
    let row = |client: &ClientView| {
        let ago = client.last_handshake_seconds;
        [
            client.name.clone(),
            list(&client.address),
            match client.connected {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "-".to_owned(),
            },
            or_dash(client.endpoint.as_ref()),
            match (ago, client.connected) {
                (Some(ago), _) => format!("{} ago", span(ago)),
                (None, Some(_)) => "never".to_owned(),
                (None, None) => "-".to_owned(),
            },
            sum(client.ingress),
            sum(client.egress),
            client.public_key.clone(),
        ]
    };
    table(style, &header, clients.iter().map(row))
}

pub(super) fn neighbors(style: Style, neighbors: &[NeighborView]) -> String {
    if neighbors.is_empty() {
        return "no neighbors: no ExpressRoute links\n".to_owned();
    }
    let header = [
        "age",
        "link",
        "+interface",
        "+side",
        "IP address",
        "MAC address",
        "state",
    ];
    let row = |neighbor: &NeighborView| {
        let mac = neighbor.mac.clone();
        let state = match (&neighbor.conflict_mac, &neighbor.previous_mac) {
            (Some(other), _) => format!("{}, conflict: {other} claims it too", neighbor.state),
            (None, Some(before)) => format!("{}, was {before}", neighbor.state),
            (None, None) => neighbor.state.clone(),
        };
        [
            neighbor.age_seconds.map_or_else(|| "-".to_owned(), span),
            neighbor.path.clone(),
            neighbor.interface.clone(),
            neighbor.side.clone(),
            neighbor.address.to_string(),
            mac.unwrap_or_else(|| "Incomplete".to_owned()),
            state,
        ]
    };
    table(style, &header, neighbors.iter().map(row))
}

pub(super) fn bgp(style: Style, sessions: &[BgpView]) -> String {
    if sessions.is_empty() {
        return "no BGP sessions\n".to_owned();
    }
    let header = ["link", "neighbor", "AS", "state", "learned", "advertised"];
    let row = |session: &BgpView| {
        [
            session.path.clone(),
            session.neighbor.to_string(),
            session.asn.to_string(),
            session.state.clone(),
            thousands(session.routes_learned),
            thousands(session.routes_advertised),
        ]
    };
    table(style, &header, sessions.iter().map(row))
}
