//! Another SKU: in the configuration file, where it stays, and whether the gateway that runs can take it.
//!
//! 1. [`edited`]: the file's text with the new SKU, everything else as it was
//! 2. the text is read and checked as any file is: what the new SKU has no room for is refused there
//! 3. [`changes`]: what becomes of each gateway, by the matrix of [`crate::sku::resize`]
//! 4. [`crate::config::file`]: the file, in one step, so that nobody ever reads half of it

use crate::config::schema::Config;
use crate::show::view::GatewayKind;
use crate::show::view::Resize;
use crate::sku::resize::{Choice, Obstacle, Step, of_expressroute, of_vpn};
use crate::sku::{self, Edition};
use std::fmt;
use toml_edit::{DocumentMut, Item, TableLike, TomlError, Value};

/// A gateway whose SKU is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SkuChange {
    /// As the command line names it.
    pub(crate) gateway: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
    /// SKU and generation as `vng resize` takes them.
    arguments: String,
    /// What keeps the gateway from taking it as it runs.
    pub(crate) obstacle: Option<Obstacle>,
}

impl SkuChange {
    /// Why not, and what helps.
    pub(crate) fn refusal(&self) -> String {
        let why = self.obstacle.map(|obstacle| format!(": {obstacle}"));
        format!(
            "{} {} does not become {} as it runs{}\n\
             nothing was changed; vng resize {} {} --recreate makes the gateway anew, and its sessions, flows \
             and what it has learned are lost",
            self.gateway,
            self.from,
            self.to,
            why.unwrap_or_default(),
            self.gateway,
            self.arguments,
        )
    }
}

/// The gateways that have another SKU in `new`.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<SkuChange> {
    let mut changes = Vec::new();
    let mut compare = |gateway, old: Choice, new: Choice, step: Option<Step>| {
        let obstacle = match step {
            // One that is unknown was never in force, and never will be.
            None | Some(Step::None) => return,
            Some(Step::InPlace) => None,
            Some(Step::Recreate(obstacle)) => Some(obstacle),
        };
        let is_vpn = gateway == "vpn";
        let arguments = match new.generation {
            generation @ 1.. if is_vpn => format!("{} --generation {generation}", new.name),
            _ => new.name.clone(),
        };
        changes.push(SkuChange {
            gateway,
            from: described(&old, &new),
            to: described(&new, &old),
            arguments,
            obstacle,
        });
    };
    if let (Some(old), Some(new)) = (&old.expressroute, &new.expressroute) {
        let (old, new) = (old.choice(), new.choice());
        let step = of_expressroute(&old, &new);
        compare("expressroute", old, new, step);
    }
    if let (Some(old), Some(new)) = (&old.vpn, &new.vpn) {
        let (old, new) = (old.choice(), new.choice());
        let step = of_vpn(&old, &new);
        compare("vpn", old, new, step);
    }
    changes
}

/// A SKU with whatever tells it from the other.
fn described(choice: &Choice, other: &Choice) -> String {
    let name = &choice.name;
    if choice.edition != other.edition {
        format!("{name} of {}", choice.edition)
    } else if choice.generation != other.generation {
        format!("{name} of generation {}", choice.generation)
    } else {
        name.clone()
    }
}

/// Why a configuration file cannot have another SKU.
#[derive(Debug)]
pub(crate) enum EditError {
    /// It is no TOML.
    Toml(TomlError),
    /// It has no gateway of this name.
    NoGateway(&'static str),
    /// A generation was asked for where there is none.
    NoGeneration,
}

impl fmt::Display for EditError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(error) => error.fmt(formatter),
            Self::NoGateway(name) => write!(formatter, "the configuration has no [{name}]"),
            Self::NoGeneration => {
                formatter.write_str("an ExpressRoute gateway has no generation: leave it out")
            }
        }
    }
}

impl std::error::Error for EditError {}

/// The text of a configuration file with another SKU; comments and order stay.
///
/// # Errors
/// See [`EditError`].
pub(crate) fn edited(text: &str, wanted: &Resize) -> Result<String, EditError> {
    let mut document: DocumentMut = text.parse().map_err(EditError::Toml)?;
    let name = wanted.gateway.section();
    let table = document.get_mut(name).and_then(Item::as_table_like_mut);
    let Some(table) = table else {
        return Err(EditError::NoGateway(name));
    };
    set(table, "sku", Value::from(official_name(wanted)));
    if let Some(generation) = wanted.generation {
        if wanted.gateway == GatewayKind::Expressroute {
            return Err(EditError::NoGeneration);
        }
        set(table, "generation", Value::from(i64::from(generation)));
    }
    Ok(document.to_string())
}

/// The SKU's name as Azure writes it, whatever case was asked for; what no table has stays, for the check of the
/// file to refuse.
fn official_name(wanted: &Resize) -> &str {
    let editions = [Edition::Current, Edition::Of2016];
    let mut names = editions
        .into_iter()
        .flat_map(|edition| match wanted.gateway {
            GatewayKind::Expressroute => sku::expressroute_names(edition),
            GatewayKind::Vpn => sku::vpn_names(edition),
        });
    let same = |name: &&str| name.eq_ignore_ascii_case(&wanted.sku);
    names.find(same).unwrap_or(&wanted.sku)
}

/// Sets a value where it stands, with the white space and comment around it.
fn set(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use std::path::Path;

    const FILE: &str = include_str!("../../../docs/examples/coexist.toml");

    fn wanted(gateway: GatewayKind, sku: &str, generation: Option<u8>) -> Resize {
        Resize {
            gateway,
            sku: sku.to_owned(),
            generation,
            recreate: false,
        }
    }

    fn read(text: &str) -> Config {
        let none = Path::new("");
        let loaded = config::parse(none, text.to_owned(), none, KeyFiles::Skipped);
        loaded.unwrap().config
    }

    #[test]
    fn only_the_sku_of_a_file_changes() {
        let text = edited(FILE, &wanted(GatewayKind::Expressroute, "ErGw2Az", None)).unwrap();
        let changed: Vec<_> = FILE
            .lines()
            .zip(text.lines())
            .filter(|(old, new)| old != new)
            .collect();
        let [(old, new)] = changed[..] else {
            panic!("{changed:?}");
        };
        assert_eq!(new, old.replace("ErGw1Az", "ErGw2Az"));
        assert_eq!(text.lines().count(), FILE.lines().count());
        assert_eq!(read(&text).expressroute.unwrap().sku, "ErGw2Az");
    }

    #[test]
    fn comments_stay_and_a_generation_is_added_where_there_is_none() {
        let text = "# first\n[vpn] # the gateway\nsku = \"VpnGw2\" # small\n\n# last\n";
        let new = edited(text, &wanted(GatewayKind::Vpn, "VpnGw3", Some(2))).unwrap();
        assert_eq!(
            new,
            "# first\n[vpn] # the gateway\nsku = \"VpnGw3\" # small\ngeneration = 2\n\n# last\n"
        );
    }

    #[test]
    fn what_the_file_does_not_have_is_said() {
        let error = edited(
            "[vpn]\nsku = \"VpnGw1\"",
            &wanted(GatewayKind::Expressroute, "x", None),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "the configuration has no [expressroute]"
        );
        let error = edited(
            FILE,
            &wanted(GatewayKind::Expressroute, "Standard", Some(1)),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "an ExpressRoute gateway has no generation: leave it out"
        );
    }

    #[test]
    fn a_refusal_names_reason_and_remedy() {
        let old = read(FILE);
        let to = |gateway, sku, generation| {
            let text = edited(FILE, &wanted(gateway, sku, generation)).unwrap();
            changes(&old, &read(&text))
        };
        assert_eq!(to(GatewayKind::Expressroute, "ErGw1Az", None), []);
        let place = to(GatewayKind::Expressroute, "ErGw3Az", None);
        assert_eq!(place.iter().map(|c| c.obstacle).collect::<Vec<_>>(), [None]);
        let [change] = &to(GatewayKind::Vpn, "VpnGw2", Some(2))[..] else {
            panic!("one change");
        };
        assert_eq!(
            change.refusal(),
            "vpn VpnGw2 of generation 1 does not become VpnGw2 of generation 2 as it runs: the two are of \
             different generations\nnothing was changed; vng resize vpn VpnGw2 --generation 2 --recreate makes \
             the gateway anew, and its sessions, flows and what it has learned are lost"
        );
    }
}
