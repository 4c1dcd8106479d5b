//! The BFD control packet (RFC 5880, section 4).
//!
//! ```text
//!  0                   1                   2                   3
//! |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! |                       My Discriminator                        |
//! |                      Your Discriminator                       |
//! |                    Desired Min TX Interval                    |
//! |                   Required Min RX Interval                    |
//! |                 Required Min Echo RX Interval                 |
//! ```
//!
//! An authentication section may follow; only keyed SHA1 and meticulous keyed SHA1 are read and written
//! (section 4.4). Everything that RFC 5880, section 6.8.6 says of a packet alone, without a session, is
//! checked by [`Packet::parse`].

use std::time::Duration;

/// Length of a packet without an authentication section, bytes.
pub const HEADER: usize = 24;
/// Length of a keyed SHA1 section, bytes.
pub const SHA1_SECTION: usize = 28;
/// Length of the longest packet that is written, bytes.
pub const MAX_LENGTH: usize = HEADER + SHA1_SECTION;
/// Where the digest stands in a packet with a keyed SHA1 section.
pub const SHA1_DIGEST: usize = HEADER + 8;
/// Length of a SHA1 digest, bytes.
pub const DIGEST: usize = 20;

const VERSION: u8 = 1;
const KEYED_SHA1: u8 = 4;
const METICULOUS_SHA1: u8 = 5;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// The state of a session (RFC 5880, section 4.1, `Sta`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Held down by its operator.
    AdminDown,
    /// Nothing is heard from the far side, or it says that it hears nothing.
    Down,
    /// The far side is heard, and does not know it yet.
    Init,
    /// Both sides hear each other.
    Up,
}

impl State {
    /// The state's name in output: lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminDown => "admin_down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }

    const fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

/// Why a session last left the state up (RFC 5880, section 4.1, `Diag`): a number, since a far side may send
/// codes that are assigned later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing has gone wrong.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const TIME_EXPIRED: Self = Self(1);
    /// The far side said that it is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// Held down by the operator.
    pub const ADMIN_DOWN: Self = Self(7);

    /// The diagnostic's name in output: lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "none",
            1 => "detection_time_expired",
            2 => "echo_failed",
            3 => "neighbor_down",
            4 => "forwarding_plane_reset",
            5 => "path_down",
            6 => "concatenated_path_down",
            7 => "admin_down",
            8 => "reverse_concatenated_path_down",
            _ => "unassigned",
        }
    }
}

/// A keyed SHA1 section, before it is checked and without the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha1Section {
    /// Whether each packet must have a new sequence number.
    pub meticulous: bool,
    /// Which key signs.
    pub key_id: u8,
    /// Against replay.
    pub sequence: u32,
}

/// What a packet carries to authenticate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// No section.
    None,
    /// Keyed SHA1 or meticulous keyed SHA1.
    Sha1(Sha1Section),
    /// Another type, which is not spoken here.
    Unknown(u8),
}

/// Why bytes are no control packet that may be looked at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than it says, or than a packet can be.
    Length,
    /// Not version 1.
    Version,
    /// A detection multiplier of zero.
    DetectMultiplier,
    /// The multipoint bit is set.
    Multipoint,
    /// The sender's discriminator is zero.
    MyDiscriminator,
    /// No discriminator of ours, in a state that a sender can only have after it has heard us.
    YourDiscriminator,
    /// Poll and final at once (RFC 5880, section 6.5).
    PollAndFinal,
}

/// One control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left the state up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer with `is_final` at once.
    pub poll: bool,
    /// The answer to a poll.
    pub is_final: bool,
    /// The sender's BFD does not share the fate of its control plane.
    pub control_plane_independent: bool,
    /// The sender wants no periodic packets while the session is up.
    pub demand: bool,
    /// How many packets may be missed in a row; never zero.
    pub detect_multiplier: u8,
    /// The sender's number for the session; never zero.
    pub my_discriminator: u32,
    /// The receiver's number for the session, as far as the sender knows it.
    pub your_discriminator: u32,
    /// How often the sender wants to send.
    pub desired_min_tx: Duration,
    /// How often the sender can take packets; zero: none, please.
    pub required_min_rx: Duration,
    /// How often the sender can take echo packets; zero: none.
    pub required_min_echo_rx: Duration,
    /// Who signed it.
    pub section: Section,
}

impl Packet {
    /// Reads the control packet at the start of a UDP payload and checks what needs no session.
    ///
    /// # Errors
    /// The first rule of RFC 5880, section 6.8.6 that the bytes break.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = payload.split_first_chunk::<HEADER>() else {
            return Err(Malformed::Length);
        };
        let [
            version_diagnostic,
            flags,
            detect_multiplier,
            length,
            words @ ..,
        ] = *header;
        if version_diagnostic >> 5 != VERSION {
            return Err(Malformed::Version);
        }
        let Some(tail) = usize::from(length).checked_sub(HEADER) else {
            return Err(Malformed::Length);
        };
        let Some(tail) = rest.get(..tail) else {
            return Err(Malformed::Length);
        };
        let section = match (flags & AUTHENTICATION != 0, tail) {
            (false, _) => Section::None,
            (true, &[kind, section_length, ref section @ ..]) => {
                if usize::from(section_length) != tail.len() {
                    return Err(Malformed::Length);
                }
                section_of(kind, section)?
            }
            (true, _) => return Err(Malformed::Length),
        };
        let word = |index: usize| {
            let bytes = words.get(index * 4..).and_then(<[u8]>::first_chunk);
            u32::from_be_bytes(bytes.copied().unwrap_or_default())
        };
        let interval = |index| Duration::from_micros(word(index).into());
        let packet = Self {
            diagnostic: Diagnostic(version_diagnostic & 0x1f),
            state: State::of(flags >> 6),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator: word(0),
            your_discriminator: word(1),
            desired_min_tx: interval(2),
            required_min_rx: interval(3),
            required_min_echo_rx: interval(4),
            section,
        };
        packet.check(flags)
    }

    fn check(self, flags: u8) -> Result<Self, Malformed> {
        if self.detect_multiplier == 0 {
            return Err(Malformed::DetectMultiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Malformed::Multipoint);
        }
        if self.my_discriminator == 0 {
            return Err(Malformed::MyDiscriminator);
        }
        // The state in the packet counts, not that of our session: a peer that has restarted says Down with no
        // discriminator while our session is still up, and one that says Init or Up without it has not heard us.
        let may_not_know_us = matches!(self.state, State::Down | State::AdminDown);
        if self.your_discriminator == 0 && !may_not_know_us {
            return Err(Malformed::YourDiscriminator);
        }
        if self.poll && self.is_final {
            return Err(Malformed::PollAndFinal);
        }
        Ok(self)
    }

    /// Writes the packet and gives back its length: 24 bytes, or 52 with a SHA1 section, whose digest is then
    /// zero and still to be written. `room` that is too short is left as it is, and the length is zero.
    pub fn emit(&self, room: &mut [u8]) -> usize {
        let (section, length) = match self.section {
            Section::Sha1(section) => (Some(section), MAX_LENGTH),
            Section::None | Section::Unknown(_) => (None, HEADER),
        };
        let Some(room) = room.get_mut(..length) else {
            return 0;
        };
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let first = [
            VERSION << 5 | self.diagnostic.0 & 0x1f,
            self.state.bits() << 6
                | flag(self.poll, POLL)
                | flag(self.is_final, FINAL)
                | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
                | flag(section.is_some(), AUTHENTICATION)
                | flag(self.demand, DEMAND),
            self.detect_multiplier,
            length as u8,
        ];
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            micros(self.required_min_echo_rx),
        ];
        let words = words.iter().flat_map(|word| word.to_be_bytes());
        let section = section.into_iter().flat_map(|section| {
            let kind = if section.meticulous {
                METICULOUS_SHA1
            } else {
                KEYED_SHA1
            };
            let head = [kind, SHA1_SECTION as u8, section.key_id, 0];
            let sequence = section.sequence.to_be_bytes();
            head.into_iter().chain(sequence).chain([0; DIGEST])
        });
        for (slot, byte) in room
            .iter_mut()
            .zip(first.into_iter().chain(words).chain(section))
        {
            *slot = byte;
        }
        length
    }
}

fn section_of(kind: u8, section: &[u8]) -> Result<Section, Malformed> {
    if !matches!(kind, KEYED_SHA1 | METICULOUS_SHA1) {
        return Ok(Section::Unknown(kind));
    }
    if section.len() + 2 != SHA1_SECTION {
        return Err(Malformed::Length);
    }
    let &[key_id, _reserved, a, b, c, d, ..] = section else {
        return Err(Malformed::Length);
    };
    Ok(Section::Sha1(Sha1Section {
        meticulous: kind == METICULOUS_SHA1,
        key_id,
        sequence: u32::from_be_bytes([a, b, c, d]),
    }))
}

/// An interval as the wire has it: microseconds; what does not fit is as long as can be said (71 minutes).
fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
