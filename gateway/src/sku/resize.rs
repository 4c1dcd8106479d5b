//! Which SKU can become which other, and how (docs/azure.md, section 3).
//!
//! | gateway | in place | recreated |
//! |---|---|---|
//! | ExpressRoute | upwards in a family: Standard, HighPerformance, UltraPerformance; ErGw1Az, ErGw2Az, ErGw3Az, and from these to an ErGwScale of at least their Mbps; ErGwScale to more units | every downgrade; between families |
//! | ExpressRoute, 2016 | upwards | to or from UltraPerformance; every downgrade |
//! | Vpn | between sizes of a generation, up and down | to or from Basic; to another generation; between a SKU with availability zones and one without |
//! | Vpn, 2016 | Standard to HighPerformance | to or from Basic; the downgrade |
//!
//! Another edition is another gateway. `Unlimited` is no tier of Azure's: to and from it nothing is recreated.

use super::{Edition, UNLIMITED, expressroute, scale_units_of, vpn};
use std::fmt;

/// A SKU as a configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The table.
    pub edition: Edition,
    /// Its name, known there.
    pub name: String,
    /// Generation of a VPN gateway; what stands here is of no matter elsewhere.
    pub generation: u8,
}

/// How a gateway gets from one SKU to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has that SKU.
    None,
    /// While packets move: only limits change.
    InPlace,
    /// As a new gateway: sessions and what was learned are lost.
    Recreate(Obstacle),
}

/// Why a gateway cannot take a SKU as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The new one is smaller.
    Downgrade,
    /// They are of two families, such as with and without availability zones.
    Family,
    /// `UltraPerformance`, in the 2016 edition.
    UltraPerformance,
    /// `Basic`, of VPN gateways.
    Basic,
    /// Two generations of VPN gateways.
    Generation,
    /// Two editions.
    Edition,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Downgrade => "a gateway is made smaller only as a new one",
            Self::Family => "the two are of different families (availability zones, scale units)",
            Self::UltraPerformance => {
                "in the 2016 edition a gateway does not become UltraPerformance, nor another from it"
            }
            Self::Basic => "a VPN gateway does not become Basic, nor another from it",
            Self::Generation => "the two are of different generations",
            Self::Edition => "the two are of different editions",
        })
    }
}

/// How an ExpressRoute gateway gets from `old` to `new`; `None` if either is unknown.
pub fn of_expressroute(old: &Choice, new: &Choice) -> Option<Step> {
    let from = expressroute(old.edition, &old.name)?;
    let to = expressroute(new.edition, &new.name)?;
    let (smaller, same) = (
        to.bits_per_second < from.bits_per_second,
        from.name == to.name,
    );
    if let Some(step) = at_once(old, new, same) {
        return Some(step);
    }
    Some(match new.edition {
        Edition::Of2016
            if [&from.name, &to.name]
                .iter()
                .any(|n| *n == "UltraPerformance") =>
        {
            Step::Recreate(Obstacle::UltraPerformance)
        }
        Edition::Of2016 if smaller => Step::Recreate(Obstacle::Downgrade),
        Edition::Of2016 => Step::InPlace,
        Edition::Current => match (Family::of(&from.name), Family::of(&to.name)) {
            (a, b) if a != b && (a, b) != (Family::Zones, Family::Scale) => {
                Step::Recreate(Obstacle::Family)
            }
            _ if smaller => Step::Recreate(Obstacle::Downgrade),
            _ => Step::InPlace,
        },
    })
}

/// How a VPN gateway gets from `old` to `new`; `None` if either is unknown.
pub fn of_vpn(old: &Choice, new: &Choice) -> Option<Step> {
    let from = vpn(old.edition, &old.name, old.generation).ok()?;
    let to = vpn(new.edition, &new.name, new.generation).ok()?;
    let same = (from.name, from.generation) == (to.name, to.generation);
    if let Some(step) = at_once(old, new, same) {
        return Some(step);
    }
    let zones = |name: &str| name.ends_with("AZ");
    Some(if [from.name, to.name].contains(&"Basic") {
        Step::Recreate(Obstacle::Basic)
    } else if from.generation != to.generation {
        Step::Recreate(Obstacle::Generation)
    } else if zones(from.name) != zones(to.name) {
        Step::Recreate(Obstacle::Family)
    } else if new.edition == Edition::Of2016 && to.bits_per_second < from.bits_per_second {
        Step::Recreate(Obstacle::Downgrade)
    } else {
        Step::InPlace
    })
}

/// What holds for both gateways, before their own rules.
fn at_once(old: &Choice, new: &Choice, same: bool) -> Option<Step> {
    let unlimited = |choice: &Choice| choice.name.eq_ignore_ascii_case(UNLIMITED);
    if unlimited(old) && unlimited(new) {
        return Some(Step::None);
    }
    if unlimited(old) || unlimited(new) {
        return Some(Step::InPlace);
    }
    if old.edition != new.edition {
        return Some(Step::Recreate(Obstacle::Edition));
    }
    same.then_some(Step::None)
}

/// The families of today's ExpressRoute gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Plain,
    Zones,
    Scale,
}

impl Family {
    fn of(name: &str) -> Self {
        if scale_units_of(name).is_some() {
            Self::Scale
        } else if name.ends_with("Az") {
            Self::Zones
        } else {
            Self::Plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Edition::{Current, Of2016};
    use super::*;
    use Obstacle::{Basic, Downgrade, Family, Generation, UltraPerformance};

    fn choice(edition: Edition, name: &str, generation: u8) -> Choice {
        Choice {
            edition,
            name: name.to_owned(),
            generation,
        }
    }

    #[test]
    fn every_row_of_the_expressroute_matrix() {
        let (place, recreate) = (Step::InPlace, Step::Recreate);
        #[rustfmt::skip]
        let rows = [
            (Current, "Standard",        "HighPerformance",  place),
            (Current, "Standard",        "UltraPerformance", place),
            (Current, "HighPerformance", "UltraPerformance", place),
            (Current, "ErGw1Az",         "ErGw2Az",          place),
            (Current, "ErGw2Az",         "ErGw3Az",          place),
            (Current, "ErGw1Az",         "ErGw3Az",          place),
            (Current, "ErGw1Az",         "ErGwScale",        place),
            (Current, "ErGw2Az",         "ErGwScale:2",      place),
            (Current, "ErGw3Az",         "ErGwScale:40",     place),
            (Current, "ErGwScale:2",     "ErGwScale:3",      place),
            (Current, "Standard",        "standard",         Step::None),
            (Current, "ErGwScale",       "ErGwScale:1",      Step::None),
            (Current, "HighPerformance", "Standard",         recreate(Downgrade)),
            (Current, "UltraPerformance","Standard",         recreate(Downgrade)),
            (Current, "ErGw2Az",         "ErGw1Az",          recreate(Downgrade)),
            (Current, "ErGw3Az",         "ErGwScale:9",      recreate(Downgrade)),
            (Current, "ErGwScale:3",     "ErGwScale:2",      recreate(Downgrade)),
            (Current, "Standard",        "ErGw1Az",          recreate(Family)),
            (Current, "Standard",        "ErGw3Az",          recreate(Family)),
            (Current, "ErGw1Az",         "HighPerformance",  recreate(Family)),
            (Current, "Standard",        "ErGwScale:4",      recreate(Family)),
            (Current, "ErGwScale:1",     "ErGw3Az",          recreate(Family)),
            (Of2016,  "Basic",           "Standard",         place),
            (Of2016,  "Basic",           "HighPerformance",  place),
            (Of2016,  "Standard",        "HighPerformance",  place),
            (Of2016,  "HighPerformance", "Standard",         recreate(Downgrade)),
            (Of2016,  "Standard",        "Basic",            recreate(Downgrade)),
            (Of2016,  "HighPerformance", "UltraPerformance", recreate(UltraPerformance)),
            (Of2016,  "UltraPerformance","HighPerformance",  recreate(UltraPerformance)),
            (Current, "Unlimited",       "Standard",         place),
            (Current, "Standard",        "Unlimited",        place),
            (Of2016,  "unlimited",       "Unlimited",        Step::None),
        ];
        for (edition, old, new, step) in rows {
            let found = of_expressroute(&choice(edition, old, 1), &choice(edition, new, 1));
            assert_eq!(found, Some(step), "{edition}: {old} to {new}");
        }
    }

    #[test]
    fn every_row_of_the_vpn_matrix() {
        let (place, recreate) = (Step::InPlace, Step::Recreate);
        #[rustfmt::skip]
        let rows = [
            (Current, ("VpnGw1", 1),   ("VpnGw2", 1),          place),
            (Current, ("VpnGw3", 1),   ("VpnGw1", 1),          place),
            (Current, ("VpnGw2", 2),   ("VpnGw5", 2),          place),
            (Current, ("VpnGw5AZ", 2), ("VpnGw2AZ", 2),        place),
            (Current, ("VpnGw2", 1),   ("vpngw2", 1),          Step::None),
            (Current, ("VpnGw2", 1),   ("VpnGw2", 2),          recreate(Generation)),
            (Current, ("VpnGw3", 1),   ("VpnGw4", 2),          recreate(Generation)),
            (Current, ("Basic", 1),    ("VpnGw1", 1),          recreate(Basic)),
            (Current, ("VpnGw1", 1),   ("Basic", 1),           recreate(Basic)),
            (Current, ("VpnGw1", 1),   ("VpnGw1AZ", 1),        recreate(Family)),
            (Current, ("Unlimited", 1),("VpnGw1", 1),          place),
            (Current, ("VpnGw1", 1),   ("Unlimited", 1),       place),
            (Of2016,  ("Standard", 1), ("HighPerformance", 1), place),
            (Of2016,  ("HighPerformance", 1), ("Standard", 1), recreate(Downgrade)),
            (Of2016,  ("Basic", 1),    ("Standard", 1),        recreate(Basic)),
            (Of2016,  ("Standard", 1), ("Basic", 1),           recreate(Basic)),
        ];
        for (edition, old, new, step) in rows {
            let (a, b) = (choice(edition, old.0, old.1), choice(edition, new.0, new.1));
            assert_eq!(of_vpn(&a, &b), Some(step), "{edition}: {old:?} to {new:?}");
        }
    }

    #[test]
    fn another_edition_is_another_gateway() {
        let (old, new) = (
            choice(Of2016, "Standard", 1),
            choice(Current, "Standard", 1),
        );
        let step = Some(Step::Recreate(Obstacle::Edition));
        assert_eq!(of_expressroute(&old, &new), step);
        let (old, new) = (choice(Of2016, "Basic", 1), choice(Current, "Basic", 1));
        assert_eq!(of_vpn(&old, &new), step);
    }

    #[test]
    fn an_unknown_sku_has_no_way() {
        let (old, new) = (choice(Current, "Standard", 1), choice(Current, "VpnGw1", 1));
        assert_eq!(of_expressroute(&old, &new), None);
        assert_eq!(of_vpn(&new, &old), None);
    }
}
