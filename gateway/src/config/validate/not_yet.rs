//! What a file may say and this version does not do: one warning each, so that nobody relies on it.
//! A feature that comes takes its line out of here.

use super::{Rules, found};

pub(super) fn check(rules: &mut Rules) {
    sessions(rules);
    let config = rules.config;
    if config.control.metrics.is_some() {
        let help = "nothing is served there; vng show counters --json has the counters";
        warn(rules, "control.metrics", "metrics", help);
    }
}

/// BGP and BFD of the links: one warning for each protocol, at its first place.
fn sessions(rules: &mut Rules) {
    let mut bgp = Vec::new();
    let mut bfd = Vec::new();
    let circuits = rules.config.circuits().iter();
    for (c, circuit) in circuits.enumerate() {
        for (l, link) in circuit.links.iter().enumerate() {
            let key = format!("expressroute.circuit[{c}].link[{l}]");
            bgp.extend(link.bgp.as_ref().map(|_| format!("{key}.bgp")));
            bfd.extend(link.bfd.as_ref().map(|_| format!("{key}.bfd")));
        }
    }
    for (protocol, keys) in [("BGP", bgp), ("BFD", bfd)] {
        let Some(first) = keys.first() else {
            continue;
        };
        let what = match keys.len() {
            1 => format!("{protocol} on one link"),
            n => format!("{protocol} on this and {} more", n - 1),
        };
        let help = format!("{protocol} does not run; static prefixes and the probe do its work");
        warn(rules, first, &what, &help);
    }
}

fn warn(rules: &mut Rules, key: &str, what: &str, help: &str) {
    let words = found(what).help(format!("this version reads it and leaves it: {help}"));
    rules.warning(key, "has no effect yet", words);
}
