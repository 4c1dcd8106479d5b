//! Sessions with a clock of the test's: two of them over a wire that loses, holds and cuts, and one against
//! packets that are written by hand.

use super::*;
use crate::bfd::packet::MAX_LENGTH;
use proptest::prelude::*;
use std::collections::VecDeque;

const MS: Duration = Duration::from_millis(1);

fn settings(interval: Duration, multiplier: u8) -> Settings {
    Settings {
        desired_min_tx: interval,
        required_min_rx: interval,
        detect_multiplier: NonZeroU8::new(multiplier).unwrap(),
        passive: false,
        least_ttl: NEIGHBOR_TTL,
    }
}

/// Randomness that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// Two sessions and the wire between them.
struct Pair {
    now: Instant,
    sides: [BfdSession; 2],
    /// On their way to each side: when they arrive, and what.
    wires: [VecDeque<(Instant, Vec<u8>)>; 2],
    delay: Duration,
    /// To each side: nothing arrives.
    cut: [bool; 2],
    /// One packet in so many is lost; 0: none.
    loss: u64,
    random: Random,
    changes: Vec<(usize, Instant, Transition)>,
    /// When each side has sent.
    sent: [Vec<Instant>; 2],
}

impl Pair {
    fn new(a: Settings, b: Settings, seed: u64) -> Self {
        let session =
            |settings, number| BfdSession::new(settings, NonZeroU32::new(number).unwrap(), None);
        Self::of([session(a, 11), session(b, 22)], seed)
    }

    fn of(sides: [BfdSession; 2], seed: u64) -> Self {
        Self {
            now: Instant::now(),
            sides,
            wires: Default::default(),
            delay: MS / 10,
            cut: [false; 2],
            loss: 0,
            random: Random(seed),
            changes: Vec::new(),
            sent: Default::default(),
        }
    }

    fn states(&self) -> [State; 2] {
        [self.sides[0].state(), self.sides[1].state()]
    }

    /// Runs everything that happens in this time, in order.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.transmit();
            let arrivals = self
                .wires
                .iter()
                .filter_map(|wire| wire.front())
                .map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(|side| side.deadline(self.now));
            let Some(next) = arrivals.chain(timers).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for side in 0..2 {
                while self.wires[side]
                    .front()
                    .is_some_and(|(at, _)| *at <= self.now)
                {
                    let (_, bytes) = self.wires[side].pop_front().unwrap();
                    let packet = Packet::parse(&bytes).unwrap();
                    match self.sides[side].receive(self.now, &packet, &bytes, 255) {
                        Ok(change) => self.note(side, change),
                        // For the session that stood here before a restart.
                        Err(refusal) => assert_eq!(refusal, Refusal::Discriminator),
                    }
                }
                let change = self.sides[side].advance(self.now);
                self.note(side, change);
            }
        }
    }

    fn note(&mut self, side: usize, change: Option<Transition>) {
        self.changes
            .extend(change.map(|change| (side, self.now, change)));
    }

    fn transmit(&mut self) {
        for side in 0..2 {
            let mut room = [0; MAX_LENGTH];
            while let Some(length) =
                self.sides[side].transmit(self.now, self.random.next() as u16, &mut room)
            {
                self.sent[side].push(self.now);
                let is_lost = self.loss > 0 && self.random.one_in(self.loss);
                if !self.cut[1 - side] && !is_lost {
                    self.wires[1 - side]
                        .push_back((self.now + self.delay, room[..length].to_vec()));
                }
            }
        }
    }
}

#[test]
fn two_sessions_come_up_and_agree_on_the_slower_interval() {
    let mut pair = Pair::new(settings(MS * 10, 3), settings(MS * 50, 5), 1);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), [State::Up; 2]);
    // Each gives up by the other's multiplier.
    assert_eq!(pair.sides[0].detection_time(), MS * 250);
    assert_eq!(pair.sides[1].detection_time(), MS * 150);
    assert_eq!(pair.sides[0].transmit_interval(), Some(MS * 50));
    assert_eq!(pair.sides[1].transmit_interval(), Some(MS * 50));
}

#[test]
fn silence_is_detected_within_the_detection_time_and_the_far_side_is_told() {
    for seed in 0..50 {
        let mut pair = Pair::new(settings(MS * 10, 3), settings(MS * 10, 3), seed);
        pair.run(Duration::from_secs(5));
        assert_eq!(pair.states(), [State::Up; 2]);
        pair.changes.clear();
        let fault = pair.now;
        pair.cut = [true, false];
        pair.run(MS * 100);
        let (side, at, change) = pair.changes[0];
        assert_eq!(
            (side, change.to, change.diagnostic),
            (0, State::Down, Diagnostic::TIME_EXPIRED)
        );
        assert!(at - fault <= MS * 31, "{:?}", at - fault);
        // The other side hears of it with the next packet, which is sent at once.
        let (side, told, change) = pair.changes[1];
        assert_eq!(
            (side, change.to, change.diagnostic),
            (1, State::Down, Diagnostic::NEIGHBOR_DOWN)
        );
        assert_eq!(told - at, pair.delay);
        pair.cut = [false; 2];
        pair.run(Duration::from_secs(5));
        assert_eq!(pair.states(), [State::Up; 2]);
    }
}

#[test]
fn lesson_16_the_far_sides_discriminator_is_forgotten_when_it_is_silent() {
    let mut pair = Pair::new(settings(MS * 10, 3), settings(MS * 10, 3), 3);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.sides[0].remote().discriminator, 22);
    pair.cut = [true; 2];
    pair.run(MS * 50);
    assert_eq!(pair.sides[0].remote().discriminator, 0);
    // Also where the session was never up: it is Down and hears a peer that says AdminDown, then nothing.
    let mut session = pair.sides[0].clone();
    let silent = packet(State::AdminDown, 77, 11);
    receive(&mut session, pair.now, &silent).unwrap();
    assert_eq!(session.remote().discriminator, 77);
    assert_eq!(session.advance(pair.now + Duration::from_secs(10)), None);
    assert_eq!(session.remote().discriminator, 0);
}

fn packet(state: State, mine: u32, yours: u32) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: mine,
        your_discriminator: yours,
        desired_min_tx: MS * 10,
        required_min_rx: MS * 10,
        required_min_echo_rx: Duration::ZERO,
        section: Section::None,
    }
}

fn receive(
    session: &mut BfdSession,
    now: Instant,
    packet: &Packet,
) -> Result<Option<Transition>, Refusal> {
    let mut room = [0; MAX_LENGTH];
    let length = packet.emit(&mut room);
    let packet = Packet::parse(&room[..length]).unwrap();
    session.receive(now, &packet, &room[..length], 255)
}

fn sent(session: &mut BfdSession, now: Instant) -> Option<Packet> {
    let mut room = [0; MAX_LENGTH];
    let length = session.transmit(now, 0, &mut room)?;
    Some(Packet::parse(&room[..length]).unwrap())
}

/// A session that is up with a peer written by hand, which has answered its poll.
fn up(now: Instant) -> BfdSession {
    let mut session = BfdSession::new(settings(MS * 10, 3), NonZeroU32::new(11).unwrap(), None);
    receive(&mut session, now, &packet(State::Down, 77, 0)).unwrap();
    assert_eq!(session.state(), State::Init);
    receive(&mut session, now, &packet(State::Init, 77, 11)).unwrap();
    assert_eq!(session.state(), State::Up);
    assert!(sent(&mut session, now).unwrap().poll);
    let answer = Packet {
        is_final: true,
        ..packet(State::Up, 77, 11)
    };
    receive(&mut session, now, &answer).unwrap();
    session
}

#[test]
fn lesson_15_a_packet_without_our_discriminator_is_judged_by_its_own_state() {
    let now = Instant::now();
    let mut session = up(now);
    // A peer that has restarted: it says Down and knows no number of ours, while we are still up.
    let change = receive(&mut session, now, &packet(State::Down, 99, 0))
        .unwrap()
        .unwrap();
    assert_eq!((change.from, change.to), (State::Up, State::Down));
    assert_eq!(change.diagnostic, Diagnostic::NEIGHBOR_DOWN);
    // Init and Up without a number are refused, whatever our state is.
    for state in [State::Init, State::Up] {
        let mut room = [0; MAX_LENGTH];
        let length = packet(state, 99, 0).emit(&mut room);
        assert_eq!(
            Packet::parse(&room[..length]),
            Err(crate::bfd::packet::Malformed::YourDiscriminator)
        );
    }
}

#[test]
fn lesson_17_packets_are_slow_until_the_session_is_up() {
    let mut pair = Pair::new(settings(MS * 10, 3), settings(MS * 10, 3), 5);
    pair.cut = [true; 2];
    pair.run(Duration::from_secs(10));
    // 75 to 100 % of a second each.
    let count = pair.sent[0].len();
    assert!((10..=14).contains(&count), "{count}");
    let gaps = pair.sent[0].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().unwrap() >= MS * 750);
}

#[test]
fn lesson_17_the_far_sides_minimum_is_kept_and_zero_means_none() {
    let now = Instant::now();
    let mut session = up(now);
    let slow = Packet {
        required_min_rx: MS * 400,
        ..packet(State::Up, 77, 11)
    };
    receive(&mut session, now, &slow).unwrap();
    assert_eq!(session.transmit_interval(), Some(MS * 400));
    let none = Packet {
        required_min_rx: Duration::ZERO,
        ..packet(State::Up, 77, 11)
    };
    receive(&mut session, now, &none).unwrap();
    assert_eq!(session.transmit_interval(), None);
    assert_eq!(sent(&mut session, now + MS * 20), None);
    // It still gets an answer to its poll.
    receive(&mut session, now, &Packet { poll: true, ..none }).unwrap();
    let answer = sent(&mut session, now).unwrap();
    assert!(answer.is_final && !answer.poll);
    assert_eq!(sent(&mut session, now), None);
}

#[test]
fn lesson_17_the_detection_time_follows_every_packet() {
    let now = Instant::now();
    let mut session = up(now);
    assert_eq!(session.detection_time(), MS * 30);
    let other = Packet {
        desired_min_tx: MS * 70,
        detect_multiplier: 4,
        ..packet(State::Up, 77, 11)
    };
    receive(&mut session, now, &other).unwrap();
    assert_eq!(session.detection_time(), MS * 280);
    receive(&mut session, now, &packet(State::Up, 77, 11)).unwrap();
    assert_eq!(session.detection_time(), MS * 30);
}

#[test]
fn lesson_17_a_longer_interval_waits_for_the_answer_to_its_poll() {
    let now = Instant::now();
    let mut session = up(now);
    session.change(settings(MS * 100, 3));
    // Announced, and not yet used: the far side still counts on 10 ms.
    let announcement = sent(&mut session, now).unwrap();
    assert!(announcement.poll);
    assert_eq!(announcement.desired_min_tx, MS * 100);
    assert_eq!(session.transmit_interval(), Some(MS * 10));
    receive(
        &mut session,
        now,
        &Packet {
            is_final: true,
            ..packet(State::Up, 77, 11)
        },
    )
    .unwrap();
    assert_eq!(session.transmit_interval(), Some(MS * 100));
    assert_eq!(session.detection_time(), MS * 300);
    // A shorter receive interval is announced; until the answer the far side may still send as before.
    session.change(settings(MS * 10, 3));
    assert_eq!(session.transmit_interval(), Some(MS * 10));
    assert_eq!(session.detection_time(), MS * 300);
    assert!(sent(&mut session, now).unwrap().poll);
    // Changed once more meanwhile: the answer that is on its way may be about the former settings.
    session.change(settings(MS * 20, 3));
    let answer = Packet {
        is_final: true,
        ..packet(State::Up, 77, 11)
    };
    receive(&mut session, now, &answer).unwrap();
    assert_eq!(session.detection_time(), MS * 300);
    receive(&mut session, now, &answer).unwrap();
    assert_eq!(session.detection_time(), MS * 60);
}

#[test]
fn lesson_19_packets_from_further_away_are_refused() {
    let now = Instant::now();
    let mut session = up(now);
    let mut room = [0; MAX_LENGTH];
    let down = packet(State::Down, 77, 11);
    let length = down.emit(&mut room);
    let refused = session.receive(now, &down, &room[..length], 254);
    assert_eq!(refused, Err(Refusal::TimeToLive));
    assert_eq!(session.state(), State::Up);
    // Over several hops the TTL says nothing.
    session.change(Settings {
        least_ttl: 0,
        ..settings(MS * 10, 3)
    });
    assert!(
        session
            .receive(now, &down, &room[..length], 12)
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_disabled_session_says_so_and_comes_back_when_it_is_enabled() {
    let mut pair = Pair::new(settings(MS * 10, 3), settings(MS * 10, 3), 7);
    pair.run(Duration::from_secs(5));
    pair.sides[0].disable().unwrap();
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), [State::AdminDown, State::Down]);
    assert_eq!(pair.sides[1].diagnostic(), Diagnostic::NEIGHBOR_DOWN);
    assert_eq!(pair.sides[1].remote().state, State::AdminDown);
    pair.sides[0].enable().unwrap();
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn a_passive_session_waits_to_be_called() {
    let passive = Settings {
        passive: true,
        ..settings(MS * 10, 3)
    };
    let mut pair = Pair::new(passive, passive, 9);
    pair.run(Duration::from_secs(5));
    assert_eq!((pair.sent[0].len(), pair.sent[1].len()), (0, 0));
    let mut pair = Pair::new(passive, settings(MS * 10, 3), 9);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn intervals_are_spread_and_shorter_where_one_loss_is_a_failure() {
    for (multiplier, longest) in [(3, MS * 100), (1, MS * 90)] {
        let mut pair = Pair::new(settings(MS * 100, multiplier), settings(MS * 100, 3), 4);
        pair.run(Duration::from_secs(3));
        pair.sent[0].clear();
        pair.run(Duration::from_mins(1));
        let gaps: Vec<_> = pair.sent[0]
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        assert!(gaps.iter().min().unwrap() >= &(MS * 75));
        assert!(gaps.iter().max().unwrap() <= &longest);
        assert!(gaps.iter().max().unwrap() > &(MS * 85), "not spread");
        assert_eq!(pair.states(), [State::Up; 2]);
    }
}

/// Any 20 bytes that depend on all of the input: the arithmetic is what is tested, not the hash.
fn stand_in(bytes: &[u8]) -> [u8; 20] {
    let mut random = Random(bytes.iter().fold(7, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }));
    std::array::from_fn(|_| random.next() as u8)
}

#[test]
fn signed_sessions_come_up_and_refuse_strangers_and_replays() {
    let key = |secret| Key {
        id: 5,
        bytes: [secret; 20],
        meticulous: true,
        sha1: stand_in,
    };
    let session = |number, secret| {
        let number = NonZeroU32::new(number).unwrap();
        BfdSession::new(
            settings(MS * 10, 3),
            number,
            Some((key(secret), u32::MAX - 2)),
        )
    };
    let mut pair = Pair::of([session(11, 1), session(22, 1)], 1);
    // The sequence numbers wrap around meanwhile.
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), [State::Up; 2]);
    let mut room = [0; MAX_LENGTH];
    let now = pair.now + MS * 11;
    let length = pair.sides[0].transmit(now, 0, &mut room).unwrap();
    assert_eq!(length, MAX_LENGTH);
    let packet = Packet::parse(&room).unwrap();
    let mut altered = room;
    altered[3 + 1] ^= 1;
    let forged = Packet::parse(&altered).unwrap();
    let side = &mut pair.sides[1];
    assert_eq!(
        side.receive(now, &forged, &altered, 255),
        Err(Refusal::Authentication)
    );
    assert!(side.receive(now, &packet, &room, 255).is_ok());
    assert_eq!(
        side.receive(now, &packet, &room, 255),
        Err(Refusal::Authentication)
    );
    // Without a key, and with another.
    let plain = tests::packet(State::Down, 11, 22);
    let length = plain.emit(&mut room);
    assert_eq!(
        side.receive(now, &plain, &room[..length], 255),
        Err(Refusal::Authentication)
    );
    let mut other = session(11, 2);
    let length = other.transmit(now, 0, &mut room).unwrap();
    let packet = Packet::parse(&room).unwrap();
    assert_eq!(
        side.receive(now, &packet, &room[..length], 255),
        Err(Refusal::Authentication)
    );
}

#[test]
fn a_far_side_in_demand_mode_is_not_sent_to_while_both_are_up() {
    let now = Instant::now();
    let mut session = up(now);
    let demand = Packet {
        demand: true,
        ..packet(State::Up, 77, 11)
    };
    receive(&mut session, now, &demand).unwrap();
    assert_eq!(sent(&mut session, now + MS * 20), None);
    receive(&mut session, now, &packet(State::Up, 77, 11)).unwrap();
    assert!(sent(&mut session, now + MS * 20).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Loss, cuts of one or both directions and restarts at random: neither side is ever up for longer than the
    /// detection time without hearing the other, and when the wire is whole again both come up.
    #[test]
    fn sessions_recover_from_any_faults(seed: u64, faults in 1_usize..12) {
        let mut pair = Pair::new(settings(MS * 10, 3), settings(MS * 30, 4), seed);
        for _ in 0..faults {
            let random = pair.random.next();
            pair.loss = [0, 2, 5, 20][random as usize % 4];
            pair.cut = [random & 16 != 0, random & 32 != 0];
            if random & 0xc0 == 0 {
                let side = usize::from(random & 256 != 0);
                let settings = pair.sides[side].settings;
                let number = NonZeroU32::new(random as u32 | 1).unwrap();
                pair.sides[side] = BfdSession::new(settings, number, None);
            }
            pair.run(MS * ((random >> 32) as u32 % 3000));
            for side in 0..2 {
                if pair.cut[side] {
                    let before = pair.sides[side].detection_time();
                    pair.run(before + MS);
                    prop_assert_ne!(pair.sides[side].state(), State::Up);
                }
            }
        }
        pair.loss = 0;
        pair.cut = [false; 2];
        pair.run(Duration::from_secs(10));
        prop_assert_eq!(pair.states(), [State::Up; 2]);
        pair.changes.clear();
        pair.run(Duration::from_secs(20));
        prop_assert!(pair.changes.is_empty());
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_what_is_read_is_written_alike(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
        shape: bool,
    ) {
        if shape && bytes.len() >= 24 {
            bytes[0] = 0x20 | bytes[0] & 0x1f;
            bytes[1] &= 0xfe;
            bytes[3] = if bytes[1] & 4 == 0 { 24 } else { 52 };
            if bytes.len() >= 52 {
                bytes[24] = 4 | bytes[24] & 1;
                bytes[25] = 28;
            }
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let mut room = [0; MAX_LENGTH];
            let length = packet.emit(&mut room);
            if !matches!(packet.section, Section::Unknown(_)) {
                prop_assert_eq!(Packet::parse(&room[..length]), Ok(packet));
            }
        }
    }
}
