//! A request out of a line, and what is wrong with one in plain words.

use super::Request;
use crate::show::refusal::Refusal;
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// A request of one line.
pub(super) fn read(line: &[u8]) -> Result<Request, Refusal> {
    let refused = |why: String| Refusal::bad(format!("no such request: {why}"));
    match serde_json::from_slice(line) {
        // serde takes whatever stands beside a command that takes nothing.
        Ok(Request::Reload) => match why(line) {
            Some(why) => Err(refused(why)),
            None => Ok(Request::Reload),
        },
        Ok(request) => Ok(request),
        // A name that stands twice is the only thing that a table of values does not show.
        Err(_) => Err(refused(
            why(line).unwrap_or_else(|| "a name stands in it twice".to_owned()),
        )),
    }
}

/// A field of a request.
struct Field {
    name: &'static str,
    holds: Holds,
    needed: bool,
}

/// What a field holds.
enum Holds {
    Text,
    Flag,
    /// A whole number, at most so large.
    Number(u64),
    Address,
    Prefix,
    OneOf(&'static [&'static str]),
    Fields(&'static [Field]),
}

const fn needed(name: &'static str, holds: Holds) -> Field {
    Field {
        name,
        holds,
        needed: true,
    }
}

const fn optional(name: &'static str, holds: Holds) -> Field {
    Field {
        name,
        holds,
        needed: false,
    }
}

const VIEWS: &[&str] = &[
    "status",
    "routes",
    "policy",
    "circuits",
    "tunnels",
    "clients",
    "neighbors",
    "bgp",
    "flows",
    "counters",
];
const FILTER: &[Field] = &[
    optional("prefix", Holds::Prefix),
    optional("source", Holds::Text),
    optional("path", Holds::Text),
];
const QUERY: &[Field] = &[
    needed("from", Holds::Text),
    needed("source", Holds::Address),
    needed("destination", Holds::Address),
    needed("protocol", Holds::Number(0xFF)),
    optional("source_port", Holds::Number(0xFFFF)),
    optional("destination_port", Holds::Number(0xFFFF)),
    optional("icmp_type", Holds::Number(0xFF)),
    optional("dscp", Holds::Number(0xFF)),
];
const RESIZE: &[Field] = &[
    needed("gateway", Holds::OneOf(&["expressroute", "vpn"])),
    needed("sku", Holds::Text),
    optional("generation", Holds::Number(0xFF)),
    optional("recreate", Holds::Flag),
];
/// Every command and its fields: what serde derives from [`Request`], which a test holds this to.
const COMMANDS: &[(&str, &[Field])] = &[
    ("show", &[needed("what", Holds::OneOf(VIEWS))]),
    ("routes", &[needed("filter", Holds::Fields(FILTER))]),
    ("explain", &[needed("query", Holds::Fields(QUERY))]),
    ("reload", &[]),
    ("resize", &[needed("resize", Holds::Fields(RESIZE))]),
    ("revoke", &[needed("client", Holds::Text)]),
];

/// What is wrong with a line that is no request.
fn why(line: &[u8]) -> Option<String> {
    let object = "a request is one JSON object on one line, such as {\"command\":\"show\",\"what\":\"status\"}";
    let request = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(request)) => request,
        Ok(_) => return Some(object.to_owned()),
        Err(error) => {
            let place = error.column();
            return Some(format!(
                "this is no JSON from character {place} on; {object}"
            ));
        }
    };
    let names: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
    let given = request.get("command");
    let is_given = |(name, _): &&(&str, _)| given.and_then(Value::as_str) == Some(*name);
    let Some((command, fields)) = COMMANDS.iter().find(is_given) else {
        let is = given.map_or_else(
            || "is missing".to_owned(),
            |given| format!("is {}", shown(given)),
        );
        return Some(format!(
            "\"command\" {is}; it is one of {}",
            names.join(", ")
        ));
    };
    let others = request.iter().filter(|(name, _)| *name != "command");
    wrong(command, fields, others)
}

/// What is wrong with these values, given the fields that there should be.
fn wrong<'v>(
    of: &str,
    fields: &[Field],
    values: impl Iterator<Item = (&'v String, &'v Value)>,
) -> Option<String> {
    let mut missing: Vec<&Field> = fields.iter().filter(|field| field.needed).collect();
    for (name, value) in values {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            let takes = if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(", ")
            };
            let name = shown(&Value::from(name.as_str()));
            return Some(format!(
                "{name} has no meaning here; \"{of}\" takes {takes}"
            ));
        };
        missing.retain(|missing| missing.name != name);
        if let Holds::Fields(fields) = &field.holds
            && let Value::Object(inner) = value
        {
            if let Some(wrong) = wrong(name, fields, inner.iter()) {
                return Some(wrong);
            }
        } else if !field.holds.may_be(value) {
            return Some(format!(
                "\"{name}\" is {}; it is {}",
                shown(value),
                field.holds.told()
            ));
        }
    }
    let missing = missing.first()?;
    Some(format!(
        "\"{}\" is missing; it is {}",
        missing.name,
        missing.holds.told()
    ))
}

impl Holds {
    fn may_be(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Self::Text => text.is_some(),
            Self::Flag => value.is_boolean(),
            Self::Number(most) => value.as_u64().is_some_and(|number| number <= *most),
            Self::Address => text.is_some_and(|text| text.parse::<IpAddr>().is_ok()),
            Self::Prefix => text.is_some_and(|text| text.parse::<IpNet>().is_ok()),
            Self::OneOf(all) => text.is_some_and(|text| all.contains(&text)),
            Self::Fields(_) => false,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number(most) => format!("a whole number from 0 to {most}"),
            Self::Address => "an IP address".to_owned(),
            Self::Prefix => "a prefix such as \"10.2.0.0/16\"".to_owned(),
            Self::OneOf(all) => format!("one of {}", all.join(", ")),
            Self::Fields(fields) => {
                let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
                format!("an object of {}", names.join(", "))
            }
        }
    }
}

/// A value as it is quoted, without its end where it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
