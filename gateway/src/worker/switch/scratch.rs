//! Room in which a worker makes packets itself.

use crate::pipeline::icmp::MAX_ERROR;
use crate::worker::packet::MAX_SEGMENT;

/// Buffers of a worker's own, made once. Whoever fills one while packets are handled takes it out and puts it back.
pub(super) struct Scratch {
    /// One packet that the switch makes itself: ICMP errors.
    pub(super) message: Box<[u8]>,
    /// Room for a whole packet, and behind it for one cut out of another: segments, fragments.
    pub(super) piece: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            message: vec![0; MAX_ERROR].into_boxed_slice(),
            piece: vec![0; 2 * MAX_SEGMENT].into_boxed_slice(),
        }
    }
}
