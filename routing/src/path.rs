//! Paths, groups of paths, and the atomic word that says which members a group may use now.
//!
//! A *path* is one way out of the gateway: an ExpressRoute link or a tunnel (a lane of one). A *group*
//! lists the paths of a route in order of preference, in tiers: within a tier flows are spread by hash
//! (ECMP), a lower tier is used only while no member of a higher one is usable.
//!
//! Which members are usable is not in the forwarding snapshot: it is one [`AtomicU64`] per group, so a
//! failover is one store, whatever the number of routes (prefix-independent convergence).

use crate::sync::atomic::{AtomicU64, Ordering};

/// Index of a path in the gateway: ExpressRoute links first, in file order, then tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(pub u16);

/// Index of a path group in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u16);

/// Where a packet came into the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ingress {
    /// The TUN device: the virtual network.
    Vnet,
    /// An ExpressRoute link or a tunnel.
    Path(PathId),
    /// The gateway itself: its own host port, ICMP errors, probes.
    Local,
}

/// What kind of way out a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// A link of an ExpressRoute circuit.
    ExpressRoute,
    /// An encrypted tunnel to a site.
    Vpn,
}

/// The most members a group can have: one bit of the word each.
pub const MAX_MEMBERS: usize = 64;

/// A group's word: bit *i* set means that new packets may take member *i* now. Only members of the best
/// usable tier are set. One writer (control), any number of readers.
#[derive(Debug, Default)]
pub struct ActiveMembers(AtomicU64);

impl ActiveMembers {
    /// A word with these members set.
    pub fn new(mask: u64) -> Self {
        Self(AtomicU64::new(mask))
    }

    /// The members that packets may take now.
    #[inline]
    pub fn load(&self) -> u64 {
        // Relaxed: the word stands alone; nothing else is published through it.
        self.0.load(Ordering::Relaxed)
    }

    /// Moves the group to other members; visible to every worker with its next packet.
    pub fn store(&self, mask: u64) {
        self.0.store(mask, Ordering::Relaxed);
    }
}

/// Picks the member of a flow out of `mask` by rendezvous hashing: a member that leaves moves only its
/// own flows, and one that returns takes back only those. `None` if the mask is empty.
#[inline]
pub fn pick_member(mask: u64, flow_hash: u64) -> Option<u8> {
    if mask & mask.wrapping_sub(1) == 0 {
        return (mask != 0).then(|| mask.trailing_zeros() as u8);
    }
    let (mut best, mut best_score, mut left) = (None, 0, mask);
    while left != 0 {
        let member = left.trailing_zeros();
        left &= left - 1;
        // The multiplier is the golden ratio; the second multiplication mixes the high half down.
        let mixed = (flow_hash ^ u64::from(member + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
            .wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let score = mixed ^ (mixed >> 32);
        if best.is_none() || score > best_score {
            (best, best_score) = (Some(member as u8), score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_member_moves_only_its_own_flows() {
        let hashes = (0..4096_u64).map(|i| i.wrapping_mul(0x2545_F491_4F6C_DD1D));
        for hash in hashes {
            let before = pick_member(0b1011, hash).unwrap();
            let after = pick_member(0b1001, hash).unwrap();
            assert!(before == 1 || before == after);
        }
    }

    #[test]
    fn members_share_flows_evenly() {
        let mut count = [0_u32; 2];
        for i in 0..10_000_u64 {
            count
                [usize::from(pick_member(0b11, i.wrapping_mul(0x2545_F491_4F6C_DD1D)).unwrap())] +=
                1;
        }
        assert!(
            count.iter().all(|&n| (4_500..=5_500).contains(&n)),
            "{count:?}"
        );
    }

    #[test]
    fn an_empty_mask_has_no_member() {
        assert_eq!(pick_member(0, 7), None);
        assert_eq!(pick_member(0b100, 7), Some(2));
    }
}
