//! VLAN tags of a link: none, one (802.1Q) or two (QinQ, 802.1ad).

use std::fmt;

/// Ethertype of a customer tag (802.1Q).
pub const CUSTOMER_TAG: u16 = 0x8100;
/// Ethertype of a service tag (802.1ad).
pub const SERVICE_TAG: u16 = 0x88a8;
/// Length of one tag in a frame, bytes.
pub const TAG_LEN: usize = 4;
/// The VLAN id in a tag's control word; the upper four bits are priority and drop eligibility.
pub const ID_MASK: u16 = 0x0fff;

/// The tags that every frame of a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tags {
    ids: [u16; 2],
    count: u8,
    outer_type: u16,
}

impl Tags {
    /// No tags.
    pub const NONE: Self = Self {
        ids: [0; 2],
        count: 0,
        outer_type: CUSTOMER_TAG,
    };

    /// One 802.1Q tag, or with two ids an outer tag of `outer_type` (0x88a8 or 0x8100) around an 802.1Q
    /// one; `outer_type` counts for two only. `None` for more than two, an id outside 1 to 4094, or
    /// another type.
    pub fn new(ids: &[u16], outer_type: u16) -> Option<Self> {
        let usable = |id: &u16| (1..=4094).contains(id);
        if !ids.iter().all(usable) || ![CUSTOMER_TAG, SERVICE_TAG].contains(&outer_type) {
            return None;
        }
        match *ids {
            [] => Some(Self::NONE),
            [id] => Some(Self {
                ids: [id, 0],
                count: 1,
                outer_type: CUSTOMER_TAG,
            }),
            [outer, inner] => Some(Self {
                ids: [outer, inner],
                count: 2,
                outer_type,
            }),
            _ => None,
        }
    }

    /// Type and id of the outermost tag, the one that the kernel takes out of a received frame.
    pub fn outer(&self) -> Option<(u16, u16)> {
        (self.count > 0).then_some((self.outer_type, self.ids[0]))
    }

    /// Id of the second tag, which stays in the frame; its type is 0x8100.
    pub fn inner(&self) -> Option<u16> {
        (self.count > 1).then_some(self.ids[1])
    }

    /// Type and id of each tag, from the outermost on.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let inner = self.inner().map(|id| (CUSTOMER_TAG, id));
        self.outer().into_iter().chain(inner)
    }

    /// How many tags.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Bytes that the tags add to a frame.
    pub fn len(&self) -> usize {
        usize::from(self.count) * TAG_LEN
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.outer(), self.inner()) {
            (None, _) => f.write_str("untagged"),
            (Some((_, id)), None) => write!(f, "VLAN {id}"),
            (Some((kind, outer)), Some(inner)) => write!(f, "QinQ {outer}.{inner} ({kind:#06x})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_no_frame_can_carry_are_refused() {
        assert_eq!(Tags::new(&[], SERVICE_TAG), Some(Tags::NONE));
        assert!(Tags::new(&[0], CUSTOMER_TAG).is_none());
        assert!(Tags::new(&[4095], CUSTOMER_TAG).is_none());
        assert!(Tags::new(&[1, 2, 3], CUSTOMER_TAG).is_none());
        assert!(Tags::new(&[1, 2], 0x9100).is_none());
        let qinq = Tags::new(&[100, 10], SERVICE_TAG).unwrap();
        assert_eq!(qinq.outer(), Some((0x88a8, 100)));
        assert_eq!((qinq.inner(), qinq.len()), (Some(10), 8));
        // One tag is always 802.1Q.
        let one = Tags::new(&[7], SERVICE_TAG).unwrap();
        assert_eq!((one.outer(), one.inner()), (Some((0x8100, 7)), None));
    }
}
