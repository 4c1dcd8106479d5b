//! What happens to a packet between two devices: pure functions on byte slices, no socket, no clock.
//!
//! In the order in which a packet meets them:
//! - [`flow`]: which flows there are, held to the SKU's limits.
//! - [`forward`]: hop limit, MSS clamp, traffic class; how large it is on the wire.
//! - [`icmp`]: the error that its sender gets instead; [`rate`]: how often.
//! - [`fragment`]: IPv4 packets that may be cut to fit.
//! - [`shape`]: the rates of the SKU; what waits for them, in order.
//! - [`split`]: super-packets into a train's slots, or into single packets.
//! - [`ecn`]: the congestion mark of a tunnel's outer header.
//! - [`coalesce`]: what comes out of a tunnel back into super-packets.
//! - `bucket`: the token bucket under all rates.
//! - [`checksum`]: the sums under all of them; `field`: offsets, lengths and flags of headers.
//! - [`egress`]: where a packet goes out.
//!
//! [`process`] is the one function that puts them together.

mod bucket;
pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod egress;
pub(crate) mod field;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod icmp;
mod merge;
pub mod process;
pub mod rate;
pub mod shape;
pub mod split;
