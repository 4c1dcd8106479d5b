//! Where a packet goes out: what [`process`](super::process) decides, and [`shape`](super::shape) holds up.

use routing::path::PathId;

/// Where a packet goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// To the virtual network.
    Vnet,
    /// To the gateway's own host.
    Local,
    /// Out of a path.
    Path(PathId),
}
