//! MAC addresses.

use crate::config::schema;
use crate::config::value::Kind;
use crate::config::value::Wrong;
use crate::config::value::quoted;
use crate::config::value::text;
use toml::de::DeValue;

/// A MAC address of one station.
pub(in crate::config) fn mac(written: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = written.split(':');
    for octet in &mut octets {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    // Bit 0 of the first octet is set in group addresses (IEEE 802, 8.2.2).
    (parts.next().is_none() && octets[0] & 1 == 0 && octets != [0; 6]).then_some(octets)
}

/// A link's `mac`.
pub(in crate::config) struct Mac;

impl Kind for Mac {
    type Value = schema::LinkMac;

    fn allowed(&self) -> String {
        "\"own\", \"interface\", or a station's address such as \"02:00:00:00:00:01\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<Self::Value, Wrong> {
        use schema::LinkMac;
        match text(value)? {
            "own" => Ok(LinkMac::Own),
            "interface" => Ok(LinkMac::Interface),
            other => mac(other).map(LinkMac::Fixed).ok_or_else(|| {
                Wrong::new("is not a MAC address", format!("found {}", quoted(other)))
            }),
        }
    }
}

/// The MAC address of another station.
pub(in crate::config) struct StationMac;

impl Kind for StationMac {
    type Value = [u8; 6];

    fn allowed(&self) -> String {
        "a station's address such as \"02:00:00:00:00:01\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<Self::Value, Wrong> {
        let text = text(value)?;
        mac(text)
            .ok_or_else(|| Wrong::new("is not a MAC address", format!("found {}", quoted(text))))
    }
}
