//! Explanations of packets for and from point-to-site clients. The route table leads to their pool only; which client a
//! packet is for, and whether a client may send it, the workers ask behind and before it ([`crate::worker::clients`]),
//! and what they do about it is said here.

use crate::config::schema::{Client, Config};
use crate::config::value::POINT_TO_SITE;
use crate::plan::{Origin, PathPlan, Plan};
use crate::show::view::{Explanation, WouldChange};
use routing::path::Ingress;
use routing::reason::DropReason;
use std::net::IpAddr;

/// What is known of a client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientSession {
    /// Nothing runs: it is taken for connected.
    Assumed,
    /// It has one.
    Up,
    /// It has none, but it is known where it was last.
    Over,
    /// It has not called yet: it is not known where it is.
    Never,
}

/// The way in of a client of this name, and the client.
pub(super) fn named<'c>(
    config: &'c Config,
    plan: &Plan,
    name: &str,
) -> Option<(Ingress, &'c Client)> {
    let client = config.clients().iter().find(|client| client.name == name)?;
    let path = plan
        .live()
        .find(|path| path.origin == Origin::PointToSite)?;
    Some((Ingress::Path(path.id), client))
}

/// What becomes of a packet from a client, or from any of them, whose source no client may use: it is dropped before
/// anything else is asked.
pub(super) fn refused(
    config: &Config,
    from: Option<&PathPlan>,
    client: Option<&Client>,
    source: IpAddr,
) -> Option<Explanation> {
    from.filter(|from| from.origin == Origin::PointToSite)?;
    let mut may = client
        .map_or_else(|| config.clients(), std::slice::from_ref)
        .iter();
    if may.any(|client| client.address.contains(&source)) {
        return None;
    }
    let (why, allowed) = if let Some(client) = client {
        let own: Vec<String> = client.address.iter().map(IpAddr::to_string).collect();
        let (name, list) = (&client.name, own.join(", "));
        let why =
            format!("dropped: {name} may use its own addresses only ({list}), and not {source}");
        (why, own)
    } else {
        let why = format!(
            "dropped: a client may use its own addresses only, and {source} is no client's"
        );
        (why, Vec::new())
    };
    Some(Explanation {
        verdict: "drop".to_owned(),
        reason: DropReason::SpoofedSource.name().to_owned(),
        story: vec![why],
        allowed_sources: allowed,
        ..Explanation::default()
    })
}

/// Goes on with an explanation that ends at the clients' path: to the client that has the destination, or to nobody.
pub(super) fn arrive(
    explanation: &mut Explanation,
    config: &Config,
    out: Option<&PathPlan>,
    destination: IpAddr,
    session: impl Fn(&str) -> ClientSession,
) {
    let of_pool = |path: &&PathPlan| path.origin == Origin::PointToSite;
    let client = config
        .clients()
        .iter()
        .find(|client| client.address.contains(&destination));
    let session = client.map(|client| session(&client.name));
    let reason = match session {
        None => Some(DropReason::NoClient),
        Some(ClientSession::Never) => Some(DropReason::TunnelNoSession),
        Some(ClientSession::Assumed | ClientSession::Up | ClientSession::Over) => None,
    };
    if let Some(reason) = reason {
        // What another circumstance leads to the clients as well comes no further.
        for other in &mut explanation.would_change {
            if other.member.as_deref() == Some(POINT_TO_SITE) {
                dropped(other, reason);
            }
        }
    }
    let Some(out) = out.filter(of_pool) else {
        return;
    };
    let name = client.map_or("", |client| client.name.as_str());
    let forwarded = WouldChange {
        verdict: explanation.verdict.clone(),
        reason: explanation.reason.clone(),
        path: explanation.path.clone(),
        member: explanation.member.clone(),
        set_dscp: explanation.set_dscp.clone(),
        change: format!("{name} had called"),
    };
    explanation.story.push(match session {
        None => format!("dropped: no client has {destination}"),
        Some(ClientSession::Never) => format!(
            "dropped: {destination} is {name}'s, which has not called yet, so it is not known where it is"
        ),
        Some(ClientSession::Over) => format!(
            "{destination} is {name}'s, which has no session now: the packet waits while it is called where it was \
             last, and is dropped (tunnel_no_session) if it does not answer"
        ),
        Some(ClientSession::Up) => format!("{destination} is {name}'s"),
        Some(ClientSession::Assumed) => {
            format!("{destination} is {name}'s, which is taken for connected")
        }
    });
    match (session, reason) {
        (Some(ClientSession::Assumed), _) => {
            let mut silent = forwarded;
            silent.change = format!("{name} has not called");
            dropped(&mut silent, DropReason::TunnelNoSession);
            explanation.would_change.push(silent);
        }
        (Some(ClientSession::Never), _) => explanation.would_change.push(forwarded),
        _ => {}
    }
    if let Some(reason) = reason {
        "drop".clone_into(&mut explanation.verdict);
        reason.name().clone_into(&mut explanation.reason);
        (explanation.path, explanation.member) = (None, None);
        explanation.health = None;
        explanation.set_dscp = None;
        explanation.shaper.clear();
        explanation.flow_limits.clear();
        for member in &mut explanation.group {
            if member.path == out.name {
                "in use".clone_into(&mut member.role);
            }
        }
    }
}

fn dropped(other: &mut WouldChange, reason: DropReason) {
    "drop".clone_into(&mut other.verdict);
    reason.name().clone_into(&mut other.reason);
    (other.path, other.member, other.set_dscp) = (None, None, None);
}
