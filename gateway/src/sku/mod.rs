//! Gateway SKUs and their limits (docs/azure.md, sections 3 and 4), in two editions.
//!
//! - [`mod@expressroute`], [`mod@vpn`]: the tables of the two gateways
//! - [`resize`]: which SKU can become which other, and how
//!
//! A limit that is `None` does not exist: nothing is shaped or counted against it. Bandwidths are bits
//! of IP packets per second, 1 Mbps = 1,000,000 bits/s. Azure names each direction's limit once and
//! applies it to both directions together.

mod expressroute;
pub mod resize;
mod vpn;

pub use expressroute::{
    ExpressRouteSku, SCALE_UNITS, expressroute, expressroute_names, scale_units_of,
};
pub use vpn::{UnknownVpnSku, VpnSku, vpn, vpn_generations, vpn_names};

use std::fmt;

/// The SKU name without limits, for both gateways and both editions.
pub const UNLIMITED: &str = "Unlimited";

/// Routes that a gateway advertises at most over ExpressRoute.
pub const EXPRESSROUTE_ADVERTISED_ROUTES: u32 = 1_000;

/// Prefixes of one local network gateway (site).
pub const PREFIXES_PER_SITE: usize = 1_000;

const MBPS: u64 = 1_000_000;

/// Which of Azure's published tables a SKU's name is looked up in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edition {
    /// Today's.
    #[default]
    Current,
    /// That of 2016. What its tables do not have is not limited: packets/s, flows, new flows/s, routes,
    /// circuits, clients, and the rates of one tunnel.
    Of2016,
}

impl Edition {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Of2016 => "2016",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Current => Self::Of2016,
            Self::Of2016 => Self::Current,
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => formatter.write_str("the current edition"),
            Self::Of2016 => formatter.write_str("the 2016 edition"),
        }
    }
}

/// The names' own spelling of `name`, upper or lower case.
fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    let mut names = names.iter();
    names.find(|it| it.eq_ignore_ascii_case(name)).copied()
}

#[cfg(test)]
mod tests;
