//! The tunnels of a worker that circuits carry: no socket, but an engine for each circuit.

use super::{Parts, private_key};
use crate::build::slots::WorkerSlot;
use crate::config::schema::Config;
use crate::error::RunError;
use crate::tunnels::keys::Keys;
use crate::worker::private::{Outlet, Private};
use crate::worker::tunnels::{Tunnels, Underlay};
use crypto::limiter::Limiter;
use crypto::wireguard::Endpoint;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// One for each circuit that carries tunnels, in the same order in every worker, still without any.
pub(super) fn privates(
    config: &Config,
    parts: &Parts,
    slot: &WorkerSlot,
    (keys, limiter): (&Keys, &Arc<Limiter>),
    started: Instant,
) -> Result<Vec<Private<Endpoint>>, RunError> {
    let Some(vpn) = &config.vpn else {
        return Ok(Vec::new());
    };
    let own: Vec<IpAddr> = config.vnet.address.iter().map(IpNet::addr).collect();
    let outlet = |v4: bool| {
        let own = own.iter().find(|address| address.is_ipv4() == v4)?;
        Some(Outlet::new(SocketAddr::new(*own, vpn.listen_port)))
    };
    let mut privates = Vec::new();
    for &circuit in &parts.underlays {
        let underlay = Underlay {
            v4: outlet(true),
            v6: outlet(false),
        };
        let number = slot.number as u8;
        let endpoint = Endpoint::new(
            private_key(keys)?,
            Arc::clone(limiter),
            number,
            Arc::new(SystemTime::now),
        );
        let (ledger, is_last) = (Arc::clone(&slot.ledger), slot.is_last());
        let tunnels = Tunnels::new(endpoint, underlay, ledger, started, is_last);
        privates.push(Private {
            tunnels,
            circuit,
            port: vpn.listen_port,
        });
    }
    Ok(privates)
}
