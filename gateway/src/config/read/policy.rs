//! Prefix sets, policies and user-defined routes.

use crate::config::schema::{Action, NextHop, PolicyRule, PrefixSet, UserRoute};
use crate::config::value::NameOf;
use crate::config::value::PrefixOrSet;
use crate::config::value::{Address, Kind, Name, Network, OneOf, Text, Wrong};
use crate::config::walk::{Section, Walk};
use toml::de::DeValue;

pub(super) fn prefix_set(walk: &mut Walk, section: Section) -> PrefixSet {
    let set = PrefixSet {
        name: section.required(walk, "name", &Name).unwrap_or_default(),
        prefixes: section.required_list(walk, "prefixes", &PrefixOrSet),
    };
    section.finish(walk);
    set
}

pub(super) fn policy(walk: &mut Walk, section: Section) -> PolicyRule {
    let name = section.required(walk, "name", &Name).unwrap_or_default();
    let matches = crate::config::matches::read(walk, &section);
    let (action, set_dscp) = action(walk, &section);
    let rule = PolicyRule {
        name,
        matches,
        action,
        set_dscp,
    };
    section.finish(walk);
    rule
}

const ACTIONS: OneOf<u8> = OneOf(&[("route", 0), ("drop", 1), ("reject", 2)]);

/// `action = "route" | "drop" | "reject"`, or a table of `via = [NAME, ...]`, `set_dscp = DSCP` or both;
/// with `set_dscp` alone the route table leads the way.
fn action(walk: &mut Walk, section: &Section) -> (Action, Option<u8>) {
    let table = "{ via = [NAME, ...] }, { set_dscp = DSCP }, or both in one table";
    let allowed = format!("{}, or {table}", ACTIONS.allowed());
    let Some(value) = section.value(walk, "action") else {
        section.missing(walk, "action", allowed);
        return (Action::Route, None);
    };
    if value.get_ref().is_table() {
        let Some(section) = section.section(walk, "action") else {
            return (Action::Route, None);
        };
        let set_dscp = section.optional(walk, "set_dscp", &crate::config::matches::DSCP);
        let leads = section.raw("via").is_some() || section.raw("set_dscp").is_none();
        let action = if leads {
            Action::Via(section.required_list(
                walk,
                "via",
                &NameOf("names of circuits and sites, the preferred one first"),
            ))
        } else {
            // Asked for all the same: a key with a slip is held against it.
            let _ = section.value(walk, "via");
            Action::Route
        };
        section.finish(walk);
        return (action, set_dscp);
    }
    let action = match ACTIONS.parse(value.get_ref()) {
        Ok(0) => Action::Route,
        Ok(1) => Action::Drop,
        Ok(_) => Action::Reject,
        Err(wrong) => {
            walk.error(
                &section.path("action"),
                value.span(),
                wrong.what,
                wrong.found,
                Some(allowed),
                wrong.help,
            );
            Action::Route
        }
    };
    (action, None)
}

/// `next_hop` of a user-defined route.
struct NextHopKind;

impl Kind for NextHopKind {
    type Value = NextHop;

    fn allowed(&self) -> String {
        "\"None\", \"VnetLocal\", \"Internet\", \"VirtualAppliance\", \"VirtualNetworkGateway\", \
         or the name of a circuit or site"
            .to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<NextHop, Wrong> {
        let written = Text.parse(value)?;
        match written.as_str() {
            "None" => Ok(NextHop::None),
            "VnetLocal" => Ok(NextHop::VnetLocal),
            "Internet" => Ok(NextHop::Internet),
            "VirtualAppliance" => Ok(NextHop::VirtualAppliance(None)),
            "VirtualNetworkGateway" => Ok(NextHop::VirtualNetworkGateway),
            _ => Ok(NextHop::Path(written)),
        }
    }
}

/// A wrong prefix leaves the default route in its place; the rules skip a route that is not sound.
pub(super) fn route(walk: &mut Walk, section: Section) -> UserRoute {
    let mut route = UserRoute {
        prefix: section
            .required(walk, "prefix", &Network)
            .unwrap_or_default(),
        next_hop: section
            .required(walk, "next_hop", &NextHopKind)
            .unwrap_or(NextHop::None),
    };
    let address = section.optional(walk, "next_hop_ip", &Address);
    if let NextHop::VirtualAppliance(of) = &mut route.next_hop {
        *of = address;
    }
    section.finish(walk);
    route
}
