//! Who may make us do the costly part of a handshake, and how often: one limiter for all peers and all
//! workers of a gateway, and a budget for each source.
//!
//! A *source* is an IPv4 address or an IPv6 /64. Its budget is a token bucket, and it has three of them:
//! 1. one for messages that show no cookie. Their source address may be forged, so whoever forges it can
//!    empty this bucket; an empty one costs its owner a round trip for a cookie, no more.
//! 2. one for messages with a valid cookie. Only who receives at the address can empty it.
//!
//! 3. one for cookies that are sent to it, [`COOKIE_RATE`]: a flood of one source is not worth an answer to each
//!    message. Whoever forges its address must send far more than that to keep it from its cookie.
//!
//! A further bucket counts what is admitted without a cookie from all sources together; while it is empty
//! everyone is asked for a cookie. So a flood of forged addresses slows handshakes by one round trip, and
//! a flood from a true address empties that address's own bucket only.
//!
//! It is a limiter of its own beside that of the gateway (`gateway::pipeline::bucket`) because a bucket here is half a
//! word, whose other half says whose it is.
//!
//! All is atomic and of fixed size: 1,024 sets of 8 buckets, each set one cache line. The set of
//! a source follows from a keyed hash, so nobody can aim at another's. In a full set the bucket with the
//! most tokens makes room; a full bucket is as good as a forgotten one.

use crate::key::KeyError;
use crate::keyed_hash::keyed_hash;
use ring::rand::{SecureRandom, SystemRandom};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A cookie is valid for this long at least and twice as long at most (whitepaper, 5.3: the secret
/// changes every two minutes; the one before is still taken, so that a cookie is never stale on arrival).
pub const COOKIE_LIFETIME: Duration = Duration::from_mins(2);

/// Cookies that one source is sent, per second and at once. Each costs some microseconds, most of them the
/// kernel's; this many cost a core less than 1 %.
pub const COOKIE_RATE: u32 = 1000;

/// Sets of buckets; a power of two.
const SETS: usize = 1024;
/// Buckets of one set: 8 words of 8 bytes are one cache line.
const WAYS: usize = 8;
/// A bucket word is a tag of the source in the upper bits and a time in milliseconds in the lower 40
/// (34 years).
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// What is admitted. Rates are handshake messages per second, 1 to 1,000; bursts are messages, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Rate of one source, without and with a cookie each.
    pub source_rate: u32,
    /// Burst of one source, without and with a cookie each.
    pub source_burst: u32,
    /// Rate of all sources together that show no cookie.
    pub total_rate: u32,
    /// Burst of all sources together that show no cookie.
    pub total_burst: u32,
}

impl Default for HandshakeLimits {
    /// Linux's rate of one source (20 a second), and in all what costs about 3 % of one core at 150
    /// microseconds a handshake.
    fn default() -> Self {
        Self {
            source_rate: 20,
            source_burst: 20,
            total_rate: 200,
            total_burst: 200,
        }
    }
}

/// What to do with a handshake message whose mac1 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Handle it.
    Admit,
    /// Answer with a cookie and handle no further.
    Challenge,
    /// Drop it: its source is beyond its budget, and has had cookies enough.
    Drop,
}

/// A cookie: 16 bytes that only who receives at an address and port can know.
pub type Cookie = [u8; 16];

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    limits: HandshakeLimits,
    origin: Instant,
    hasher: RandomState,
    sets: Box<[Set]>,
    /// The bucket of all that show no cookie.
    total: AtomicU64,
    /// Cookie secrets follow from it and from the number of their period.
    root: Zeroizing<[u8; 32]>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl Limiter {
    /// A limiter whose buckets are full.
    ///
    /// # Errors
    /// [`KeyError::Random`]: the operating system gave no random bytes for the cookies' secret.
    pub fn new(now: Instant, limits: HandshakeLimits) -> Result<Self, KeyError> {
        let mut root = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(root.as_mut_slice())
            .map_err(|_| KeyError::Random)?;
        Ok(Self {
            limits,
            origin: now,
            hasher: RandomState::new(),
            sets: (0..SETS)
                .map(|_| Set([const { AtomicU64::new(0) }; WAYS]))
                .collect(),
            total: AtomicU64::new(0),
            root,
        })
    }

    /// Judges one handshake message from `source` and takes its token. `proven`: it showed a valid cookie.
    pub fn admit(&self, now: Instant, source: IpAddr, proven: bool) -> Admission {
        let time = self.time(now);
        let rate = Rate::new(self.limits.source_rate, self.limits.source_burst);
        let budget = if proven {
            Budget::Proven
        } else {
            Budget::Unproven
        };
        match (self.take_of_source(time, source, budget, rate), proven) {
            (true, true) => Admission::Admit,
            (false, true) => Admission::Drop,
            (false, false) => self.challenge(time, source),
            (true, false) => {
                let rate = Rate::new(self.limits.total_rate, self.limits.total_burst);
                if take(&self.total, 0, time, rate) == Taken::Yes {
                    Admission::Admit
                } else {
                    self.challenge(time, source)
                }
            }
        }
    }

    /// The cookie to give to `source` now.
    pub fn cookie(&self, now: Instant, source: SocketAddr) -> Cookie {
        self.cookie_of_period(self.period(now), source)
    }

    /// Whether `holds` is true of one of the cookies that `source` may show now.
    pub fn shows_cookie(
        &self,
        now: Instant,
        source: SocketAddr,
        holds: impl Fn(&Cookie) -> bool,
    ) -> bool {
        let period = self.period(now);
        holds(&self.cookie_of_period(period, source))
            || period
                .checked_sub(1)
                .is_some_and(|before| holds(&self.cookie_of_period(before, source)))
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() / COOKIE_LIFETIME.as_secs()
    }

    fn cookie_of_period(&self, period: u64, source: SocketAddr) -> Cookie {
        let secret = keyed_hash(&self.root, &[&period.to_le_bytes()]);
        let port = source.port().to_be_bytes();
        match source.ip() {
            IpAddr::V4(address) => keyed_hash(&secret, &[&address.octets(), &port]),
            IpAddr::V6(address) => keyed_hash(&secret, &[&address.octets(), &port]),
        }
    }

    /// Milliseconds since the limiter was made, and one hour: a bucket of zero is an old one.
    fn time(&self, now: Instant) -> u64 {
        const HOUR: u64 = 3_600_000;
        let passed = now.saturating_duration_since(self.origin).as_millis() as u64;
        passed.saturating_add(HOUR) & TIME_MASK
    }

    /// A cookie, if the source has not had its share of them.
    fn challenge(&self, time: u64, source: IpAddr) -> Admission {
        let rate = Rate::new(COOKIE_RATE, COOKIE_RATE);
        if self.take_of_source(time, source, Budget::Cookies, rate) {
            Admission::Challenge
        } else {
            Admission::Drop
        }
    }

    /// Takes a token of the source's bucket; makes the bucket if there is none.
    fn take_of_source(&self, time: u64, source: IpAddr, budget: Budget, rate: Rate) -> bool {
        let proven = budget == Budget::Proven;
        let hash = self.hasher.hash_one((budget, network(source)));
        let Some(Set(set)) = self.sets.get(hash as usize % SETS) else {
            return false;
        };
        let tag = hash >> TIME_BITS << TIME_BITS;
        for bucket in set {
            match take(bucket, tag, time, rate) {
                Taken::Yes => return true,
                Taken::Empty => return false,
                Taken::Another => {}
            }
        }
        // The one with the most tokens makes room.
        let fullest = set
            .iter()
            .map(|bucket| (bucket, bucket.load(Ordering::Relaxed)))
            .min_by_key(|(_, word)| word & TIME_MASK);
        let Some((bucket, word)) = fullest else {
            return false;
        };
        if !proven && word & TIME_MASK > time {
            // All eight are at work: whoever fills them with forged addresses must not buy fresh tokens; nor keep
            // anybody from a cookie.
            return budget == Budget::Cookies;
        }
        let fresh = tag | (time + rate.interval);
        // Another worker was quicker: one message more or less does not matter.
        bucket
            .compare_exchange(word, fresh, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
            || proven
    }
}

/// The buckets of a source.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Budget {
    /// Messages without a cookie.
    Unproven,
    /// Messages with a valid one.
    Proven,
    /// Cookies.
    Cookies,
}

/// A token bucket as one number, the time at which it will be full again (the generic cell rate
/// algorithm, ITU-T I.371): a token costs `interval`, and the time may lie ahead by the burst.
#[derive(Clone, Copy)]
struct Rate {
    /// Milliseconds of one token.
    interval: u64,
    /// How far ahead the time may lie for there to be a token, in milliseconds.
    ahead: u64,
}

impl Rate {
    fn new(rate: u32, burst: u32) -> Self {
        let interval = (1000 / u64::from(rate.max(1))).max(1);
        Self {
            interval,
            ahead: interval * u64::from(burst.max(1) - 1),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    /// No token left.
    Empty,
    /// The bucket is another source's.
    Another,
}

fn take(bucket: &AtomicU64, tag: u64, time: u64, rate: Rate) -> Taken {
    let mut word = bucket.load(Ordering::Relaxed);
    loop {
        if word & !TIME_MASK != tag {
            return Taken::Another;
        }
        let full_at = (word & TIME_MASK).max(time);
        if full_at > time + rate.ahead {
            return Taken::Empty;
        }
        let after = tag | ((full_at + rate.interval) & TIME_MASK);
        match bucket.compare_exchange_weak(word, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Taken::Yes,
            Err(changed) => word = changed,
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 site has at least.
fn network(source: IpAddr) -> (u8, u64) {
    match source.to_canonical() {
        IpAddr::V4(address) => (4, u64::from(address.to_bits())),
        IpAddr::V6(address) => (6, (address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn limiter(limits: HandshakeLimits) -> (Limiter, Instant) {
        let now = Instant::now();
        (Limiter::new(now, limits).unwrap(), now)
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    const WIDE: HandshakeLimits = HandshakeLimits {
        source_rate: 10,
        source_burst: 5,
        total_rate: 1_000_000,
        total_burst: 1_000_000,
    };

    #[test]
    fn a_source_has_its_burst_and_then_its_rate() {
        let (limiter, now) = limiter(WIDE);
        let admitted = |at| {
            (0..100)
                .filter(|_| limiter.admit(at, v4(1), false) == Admission::Admit)
                .count()
        };
        assert_eq!(admitted(now), 5);
        assert_eq!(limiter.admit(now, v4(1), false), Admission::Challenge);
        assert_eq!(admitted(now + Duration::from_millis(99)), 0);
        assert_eq!(admitted(now + Duration::from_millis(300)), 3);
        assert_eq!(admitted(now + Duration::from_mins(1)), 5);
    }

    #[test]
    fn a_flood_of_one_source_is_worth_a_cookie_now_and_then_only() {
        let (limiter, now) = limiter(WIDE);
        let challenged = |at| {
            (0..5000)
                .filter(|_| limiter.admit(at, v4(1), false) == Admission::Challenge)
                .count()
        };
        assert_eq!(challenged(now), 1000);
        assert_eq!(challenged(now + Duration::from_millis(300)), 300);
    }

    #[test]
    fn a_flood_of_one_source_leaves_another_alone() {
        let (limiter, now) = limiter(HandshakeLimits {
            total_rate: 50,
            total_burst: 50,
            ..WIDE
        });
        for _ in 0..10_000 {
            limiter.admit(now, v4(1), false);
            limiter.admit(now, v4(1), true);
        }
        assert_eq!(limiter.admit(now, v4(2), false), Admission::Admit);
        assert_eq!(limiter.admit(now, v4(2), true), Admission::Admit);
        assert_eq!(limiter.admit(now, v4(1), true), Admission::Drop);
    }

    #[test]
    fn forged_addresses_cannot_spend_what_a_cookie_gives() {
        let (limiter, now) = limiter(HandshakeLimits {
            total_rate: 50,
            total_burst: 50,
            ..WIDE
        });
        let admitted = (0..100_000)
            .filter(|number| limiter.admit(now, v4(*number), false) == Admission::Admit)
            .count();
        assert_eq!(admitted, 50);
        for _ in 0..900 {
            limiter.admit(now, v4(7), false);
        }
        assert_eq!(limiter.admit(now, v4(7), false), Admission::Challenge);
        for _ in 0..WIDE.source_burst {
            assert_eq!(limiter.admit(now, v4(7), true), Admission::Admit);
        }
        assert_eq!(limiter.admit(now, v4(7), true), Admission::Drop);
    }

    #[test]
    fn an_ipv6_source_is_its_64_and_a_mapped_ipv4_is_ipv4() {
        let (limiter, now) = limiter(WIDE);
        let v6 = |network: u16, host: u16| {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host))
        };
        let admitted = (0..100)
            .filter(|host| limiter.admit(now, v6(1, *host), false) == Admission::Admit)
            .count();
        assert_eq!(admitted, 5);
        assert_eq!(limiter.admit(now, v6(2, 1), false), Admission::Admit);
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(
            network(mapped),
            network(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
        );
    }

    #[test]
    fn a_cookie_is_of_one_address_and_of_its_time() {
        let (limiter, now) = limiter(HandshakeLimits::default());
        let source: SocketAddr = "192.0.2.1:1000".parse().unwrap();
        let cookie = limiter.cookie(now, source);
        let shown = |at: u64, from: &str| {
            limiter.shows_cookie(now + Duration::from_secs(at), from.parse().unwrap(), |c| {
                *c == cookie
            })
        };
        assert!(shown(0, "192.0.2.1:1000"));
        assert!(shown(119, "192.0.2.1:1000"));
        assert!(shown(239, "192.0.2.1:1000"));
        assert!(!shown(240, "192.0.2.1:1000"));
        assert!(!shown(0, "192.0.2.1:1001"));
        assert!(!shown(0, "192.0.2.2:1000"));
    }

    #[test]
    fn workers_share_one_budget() {
        let (limiter, now) = limiter(WIDE);
        let admitted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1000)
                            .filter(|_| limiter.admit(now, v4(9), true) == Admission::Admit)
                            .count()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        // Each worker may at worst open one bucket of its own when all come at the same moment.
        assert!((5..=20).contains(&admitted), "{admitted}");
    }
}
