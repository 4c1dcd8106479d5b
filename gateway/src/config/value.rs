//! Kinds of values in a configuration file: each says what it allows and makes a checked value out of
//! TOML, or says what was found instead.

mod address;
mod mac;

pub(crate) use address::HostPort;
pub(super) use address::{
    Address, Endpoint, InterfaceAddress, Network, Own, Place, Placed, PrefixOrSet,
};
pub(super) use mac::{Mac, StationMac};

use crypto::key::{KeyError, PrivateKey, PublicKey};
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Behind the key's name in the title: "is out of range".
    pub(super) what: &'static str,
    /// What was found.
    pub(super) found: String,
    /// What to write instead, where that is known.
    pub(super) help: Option<String>,
}

impl Wrong {
    fn new(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            found: found.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The value has another TOML type than the kind wants.
    fn of_type(value: &DeValue) -> Self {
        Self::new("has the wrong type", format!("found {}", described(value)))
    }
}

/// A kind of value.
pub(super) trait Kind {
    /// What it becomes.
    type Value;
    /// What is allowed, for messages.
    fn allowed(&self) -> String;
    /// Checks and converts.
    fn parse(&self, value: &DeValue) -> Result<Self::Value, Wrong>;
}

/// The type of a value with its article, and the value itself where it is short.
pub(super) fn described(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", quoted(text)),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the float {number}"),
        DeValue::Boolean(truth) => format!("the boolean {truth}"),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// `text` in quotes, cut where it is long, control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() > LONGEST {
        let start: String = text.chars().take(LONGEST).collect();
        format!("{start:?}...")
    } else {
        format!("{text:?}")
    }
}

fn text<'v>(value: &'v DeValue) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| Wrong::of_type(value))
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<bool, Wrong> {
        value.as_bool().ok_or_else(|| {
            let wrong = Wrong::of_type(value);
            match value.as_str() {
                Some(text @ ("true" | "false")) => {
                    wrong.help(format!("write {text} without quotes"))
                }
                _ => wrong,
            }
        })
    }
}

/// A whole number in a range, both ends included.
pub(super) struct Whole(pub(super) u64, pub(super) u64);

impl Whole {
    /// The number as the type of the field, whose range is inside the type's.
    fn number(&self, value: &DeValue) -> Result<u64, Wrong> {
        let Some(written) = value.as_integer() else {
            return Err(Wrong::of_type(value));
        };
        let number = i128::from_str_radix(written.as_str(), written.radix()).ok();
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (self.0..=self.1).contains(&number) => Ok(number),
            _ => Err(Wrong::new("is out of range", format!("found {written}"))),
        }
    }
}

impl Kind for Whole {
    type Value = u64;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }

    fn parse(&self, value: &DeValue) -> Result<u64, Wrong> {
        self.number(value)
    }
}

/// A name that appears in output and in other keys.
pub(super) struct Name;

impl Kind for Name {
    type Value = String;

    fn allowed(&self) -> String {
        "1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        let name = text(value)?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let wrong = |found: String| Wrong::new("is not a name", found);
        if name.is_empty() {
            return Err(wrong("found an empty string".to_owned()));
        }
        if name.len() > 63 {
            return Err(wrong(format!("found {} characters", name.chars().count())));
        }
        if let Some(bad) = name.chars().find(|&c| !legal(c)) {
            return Err(wrong(format!("found {bad:?} in {}", quoted(name))));
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(wrong(format!("found {}", quoted(name))));
        }
        Ok(name.to_owned())
    }
}

/// The name of a path: a name that no built-in port, ingress or next hop has.
pub(super) struct PathName;

/// Names that mean something else in policies, routes and counters.
const RESERVED: [&str; 11] = [
    "vnet",
    "local",
    "underlay",
    "none",
    "vnetlocal",
    "internet",
    "virtualappliance",
    "virtualnetworkgateway",
    "expressroute",
    "vpn",
    POINT_TO_SITE,
];

/// The name of the path that leads to all point-to-site clients.
pub(crate) const POINT_TO_SITE: &str = "point-to-site";

impl Kind for PathName {
    type Value = String;

    fn allowed(&self) -> String {
        format!("{}; not {}", Name.allowed(), RESERVED.join(", "))
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        let name = Name.parse(value)?;
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(Wrong::new(
                "is a reserved name",
                format!("found {}", quoted(&name)),
            ));
        }
        Ok(name)
    }
}

/// The name of a Linux network interface.
pub(super) struct Interface;

impl Kind for Interface {
    type Value = String;

    fn allowed(&self) -> String {
        // IFNAMSIZ is 16 with the final zero; the rest is dev_valid_name() of the kernel.
        "1 to 15 characters without '/', ':', '%' and spaces".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        let name = text(value)?;
        let illegal = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%') || !c.is_ascii()
        };
        if (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(illegal)
        {
            return Ok(name.to_owned());
        }
        let found = format!("found {}, {} bytes", quoted(name), name.len());
        Err(Wrong::new("is not an interface name", found))
    }
}

/// Any text that is not empty; what it means is checked later.
pub(super) struct Text;

impl Kind for Text {
    type Value = String;

    fn allowed(&self) -> String {
        "a string".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        match text(value)? {
            "" => Err(Wrong::new("is empty", "found an empty string")),
            text => Ok(text.to_owned()),
        }
    }
}

/// The name of something that the file has elsewhere, which the rules check; what it may name, in words.
pub(super) struct NameOf(pub(super) &'static str);

impl Kind for NameOf {
    type Value = String;

    fn allowed(&self) -> String {
        self.0.to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        Text.parse(value)
    }
}

/// A file's path.
pub(super) struct File;

impl Kind for File {
    type Value = PathBuf;

    fn allowed(&self) -> String {
        "a file's path; a relative one starts at the configuration file's directory".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<PathBuf, Wrong> {
        let path = Text.parse(value)?;
        if path.contains('\0') {
            return Err(Wrong::new("is not a path", "found a zero byte"));
        }
        Ok(PathBuf::from(path))
    }
}

/// One of a few words.
pub(super) struct OneOf<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> Kind for OneOf<T> {
    type Value = T;

    fn allowed(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(w, _)| format!("\"{w}\"")).collect();
        words.join(", ")
    }

    fn parse(&self, value: &DeValue) -> Result<T, Wrong> {
        let written = text(value)?;
        if let Some(&(_, meaning)) = self.0.iter().find(|(word, _)| *word == written) {
            return Ok(meaning);
        }
        let wrong = Wrong::new("is unknown", format!("found {}", quoted(written)));
        let near = nearest(written, self.0.iter().map(|&(word, _)| word));
        Err(match near {
            Some(near) => wrong.help(format!("did you mean \"{near}\"?")),
            None => wrong,
        })
    }
}

/// The candidate that was most likely meant by `written`, if one is near enough.
pub(super) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Swapped letters and a changed case are one slip each; a third of the letters may be wrong.
    let lower = written.to_ascii_lowercase();
    let distance = |word: &str| strsim::damerau_levenshtein(&lower, &word.to_ascii_lowercase());
    let (distance, word) = candidates
        .into_iter()
        .map(|word| (distance(word), word))
        .min()?;
    (distance <= (written.chars().count().max(3)) / 3).then_some(word)
}

/// A time span with its unit, from and to inclusive.
pub(super) struct Time(pub(super) Duration, pub(super) Duration);

impl Kind for Time {
    type Value = Duration;

    fn allowed(&self) -> String {
        let (from, to) = (written(self.0), written(self.1));
        format!("\"{from}\" to \"{to}\": a whole number with ms, s, m or h")
    }

    fn parse(&self, value: &DeValue) -> Result<Duration, Wrong> {
        let Some(text) = value.as_str() else {
            let wrong = Wrong::of_type(value);
            return Err(match value {
                DeValue::Integer(n) => wrong.help(format!("write the unit, such as \"{n}s\"")),
                _ => wrong,
            });
        };
        let wrong = |what| Wrong::new(what, format!("found {}", quoted(text)));
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" if !number.is_empty() => {
                return Err(wrong("is not a duration").help("the unit is missing"));
            }
            _ => return Err(wrong("is not a duration")),
        };
        let Ok(number) = number.parse::<u64>() else {
            return Err(wrong("is not a duration"));
        };
        let time = number.checked_mul(milliseconds).map(Duration::from_millis);
        match time {
            Some(time) if (self.0..=self.1).contains(&time) => Ok(time),
            _ => Err(wrong("is out of range")),
        }
    }
}

/// A duration as the configuration writes it: the largest unit that gives a whole number.
pub(crate) fn written(time: Duration) -> String {
    let milliseconds = time.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

/// A public key of 32 bytes in base64, as WireGuard writes it.
pub(super) struct Key;

impl Kind for Key {
    type Value = [u8; 32];

    fn allowed(&self) -> String {
        "a public key: 32 bytes in base64, 44 characters, as wg pubkey prints it".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<[u8; 32], Wrong> {
        let wrong = |found: String| Wrong::new("is not a key", found);
        let key = PublicKey::from_base64(text(value)?).map_err(|error| match error {
            KeyError::Length(length) => wrong(format!("found {length} characters")),
            _ => wrong("found characters that are not base64".to_owned()),
        })?;
        // Whether a point is of small order does not depend on the private key.
        if !PrivateKey::from_bytes([1; 32]).agrees_with(&key) {
            let found = "found a point of small order, which no private key has";
            return Err(wrong(found.to_owned()));
        }
        Ok(key.0)
    }
}

#[cfg(test)]
mod tests;
