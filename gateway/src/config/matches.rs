//! `match = { ... }` of a policy rule: protocols, ports and DSCP by name or number.

use super::schema::{From, Match};
use super::value::PrefixOrSet;
use super::value::{Kind, Switch, Text, Whole, Wrong, nearest, quoted};
use super::walk::{Section, Walk};
use toml::de::DeValue;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Names of IANA's protocol numbers that people write in policies.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", TCP),
    ("udp", UDP),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
    ("udplite", 136),
];

/// Names of IANA's DSCP registry (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622).
const DSCPS: &[(&str, u8)] = &[
    ("default", 0),
    ("cs0", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("voice-admit", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// The protocol of this name or number, as the command line writes it too.
pub(crate) fn protocol(written: &str) -> Option<u8> {
    named(PROTOCOLS, written, 255)
}

/// The DSCP of this name or number.
pub(crate) fn dscp(written: &str) -> Option<u8> {
    named(DSCPS, written, 63)
}

/// The name of a protocol number, or the number.
pub(crate) fn protocol_name(number: u8) -> String {
    PROTOCOLS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The name of a DSCP, or the number.
pub(crate) fn dscp_name(number: u8) -> String {
    DSCPS
        .iter()
        .find(|(name, known)| *known == number && *name != "default")
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

fn named(table: &[(&str, u8)], written: &str, highest: u8) -> Option<u8> {
    table
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(written))
        .map(|&(_, number)| number)
        .or_else(|| written.parse().ok().filter(|&number| number <= highest))
}

/// A number of 8 bits or less that may have a name.
pub(super) struct Named {
    what: &'static str,
    table: &'static [(&'static str, u8)],
    highest: u8,
}

const PROTOCOL: Named = Named {
    what: "is not a protocol",
    table: PROTOCOLS,
    highest: 255,
};

pub(super) const DSCP: Named = Named {
    what: "is not a DSCP",
    table: DSCPS,
    highest: 63,
};

impl Kind for Named {
    type Value = u8;

    fn allowed(&self) -> String {
        let names: Vec<&str> = self.table.iter().map(|(name, _)| *name).collect();
        format!(
            "a number from 0 to {}, or {}",
            self.highest,
            names.join(", ")
        )
    }

    fn parse(&self, value: &DeValue) -> Result<u8, Wrong> {
        let DeValue::String(written) = value else {
            return Whole(0, self.highest.into())
                .parse(value)
                .map(|number| number as u8);
        };
        named(self.table, written, self.highest).ok_or_else(|| {
            let help = if written.eq_ignore_ascii_case("any") {
                Some("leave the key out to match any".to_owned())
            } else {
                nearest(written, self.table.iter().map(|(name, _)| *name))
                    .map(|near| format!("did you mean \"{near}\"?"))
            };
            Wrong {
                what: self.what,
                found: format!("found {}", quoted(written)),
                help,
            }
        })
    }
}

/// A port, or a range of ports with both ends included.
struct Ports;

impl Kind for Ports {
    type Value = (u16, u16);

    fn allowed(&self) -> String {
        "a port from 0 to 65535 or a range such as \"1000-2000\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<(u16, u16), Wrong> {
        let DeValue::String(written) = value else {
            let port = Whole(0, 65_535).parse(value)? as u16;
            return Ok((port, port));
        };
        let wrong = |help: Option<String>| Wrong {
            what: "is not a port or a range of ports",
            found: format!("found {}", quoted(written)),
            help,
        };
        let (first, last) = written.split_once('-').unwrap_or((written, written));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
            (Ok(first), Ok(last)) => Err(wrong(Some(format!(
                "the lower port comes first: \"{last}-{first}\""
            )))),
            _ => Err(wrong(None)),
        }
    }
}

/// Where a packet came from: `vnet`, or a path's name, which a rule looks up.
struct Origin;

impl Kind for Origin {
    type Value = From;

    fn allowed(&self) -> String {
        "\"vnet\", or the name of a circuit or site".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<From, Wrong> {
        let name = Text.parse(value)?;
        Ok(if name == "vnet" {
            From::Vnet
        } else {
            From::Path(name)
        })
    }
}

/// Reads `match` of a policy rule. Ports without a protocol mean TCP and UDP, ICMP types without one
/// ICMP and ICMPv6: the flow key has these fields for them alone.
pub(super) fn read(walk: &mut Walk, section: &Section) -> Match {
    let Some(table) = section.section(walk, "match") else {
        if walk.places.sound(&section.path("match")) {
            section.missing(
                walk,
                "match",
                "a table; { } matches every packet".to_owned(),
            );
        }
        return Match::default();
    };
    let mut matches = fields(walk, &table);
    if let Some(not) = table.section(walk, "not") {
        let mut without = fields(walk, &not);
        if let Some(fragment) = without.fragment.take() {
            if matches.fragment.is_some() {
                walk.error(
                    &not.path("fragment"),
                    not.span(),
                    "says again what `fragment` says",
                    format!("found fragment = {fragment} inside not"),
                    Some("fragment in one of the two places".to_owned()),
                    None,
                );
            }
            matches.fragment = Some(!fragment);
        }
        if not.is_empty() {
            walk.error(
                &not.key.clone(),
                not.span(),
                "is empty",
                "found no field".to_owned(),
                Some(not.asked()),
                Some("leave `not` out, or name what the packet must not have".to_owned()),
            );
        }
        not.finish(walk);
        matches.not = (without != Match::default()).then(|| Box::new(without));
    }
    let given = table.given();
    if !given.contains(&"protocol") {
        if given.contains(&"source_port") || given.contains(&"destination_port") {
            matches.protocol = vec![TCP, UDP];
        } else if given.contains(&"icmp_type") {
            matches.protocol = vec![ICMP, ICMPV6];
        }
    }
    fields_fit(walk, &table, &matches);
    table.finish(walk);
    matches
}

/// The fields of `match`, or of its `not`.
fn fields(walk: &mut Walk, table: &Section) -> Match {
    let matches = Match {
        from: table.list(walk, "from", &Origin),
        source: table.list(walk, "source", &PrefixOrSet),
        destination: table.list(walk, "destination", &PrefixOrSet),
        protocol: table.list(walk, "protocol", &PROTOCOL),
        source_port: table.list(walk, "source_port", &Ports),
        destination_port: table.list(walk, "destination_port", &Ports),
        dscp: table.list(walk, "dscp", &DSCP),
        icmp_type: table
            .list(walk, "icmp_type", &Whole(0, 255))
            .into_iter()
            .map(|number| number as u8)
            .collect(),
        fragment: table.optional(walk, "fragment", &Switch),
        not: None,
    };
    for name in table.given() {
        if let Some(value) = table.raw(name)
            && value
                .get_ref()
                .as_array()
                .is_some_and(|list| list.is_empty())
        {
            walk.error(
                &table.path(name),
                value.span(),
                "is empty",
                "found a list without entries, which nothing can match".to_owned(),
                None,
                Some("leave the key out to match any".to_owned()),
            );
        }
    }
    matches
}

/// Ports are of TCP and UDP, types of ICMP: a rule that asks for both, or for a protocol without them,
/// would never match, or not what it seems to.
fn fields_fit(walk: &mut Walk, table: &Section, matches: &Match) {
    let odd = |of: [u8; 2]| matches.protocol.iter().find(|n| !of.contains(n)).copied();
    let found = |number| format!("the rule's protocol is {}", protocol_name(number));
    for name in ["source_port", "destination_port"] {
        let Some(value) = table.raw(name) else {
            continue;
        };
        if let Some(odd) = odd([TCP, UDP]) {
            walk.error(
                &table.path(name),
                value.span(),
                "does not fit the protocol",
                found(odd),
                Some("ports with protocol tcp, udp or both".to_owned()),
                None,
            );
        }
    }
    if let Some(value) = table.raw("icmp_type")
        && let Some(odd) = odd([ICMP, ICMPV6])
    {
        walk.error(
            &table.path("icmp_type"),
            value.span(),
            "does not fit the protocol",
            found(odd),
            Some("types with protocol icmp, icmpv6 or both".to_owned()),
            None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        assert_eq!(protocol("TCP"), Some(6));
        assert_eq!(protocol("6"), Some(6));
        assert_eq!(protocol("256"), None);
        assert_eq!(dscp("cs1"), Some(8));
        assert_eq!(dscp("64"), None);
        assert_eq!(protocol_name(58), "icmpv6");
        assert_eq!(protocol_name(200), "200");
        assert_eq!(dscp_name(0), "cs0");
    }

    #[test]
    fn ranges_have_two_ends_in_order() {
        let parse = |text: &'static str| Ports.parse(&DeValue::String(text.into()));
        assert_eq!(parse("23"), Ok((23, 23)));
        assert_eq!(parse("1000-2000"), Ok((1_000, 2_000)));
        assert!(parse("2000-1000").unwrap_err().help.is_some());
        for bad in ["", "-", "1-", "70000", "a", "1-2-3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
