//! A WireGuard implementation that is not ours, as the far side of a tunnel.

use crate::program::Background;
use crate::stage::{Family, Stage, underlay};
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use integration::host::Host;
use integration::pair;
use integration::peer::{self, End};
use std::path::Path;
use std::sync::Arc;

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    WireguardGo,
    Boringtun,
}

impl Kind {
    /// The programs that it needs.
    pub(crate) fn programs(self) -> [&'static str; 2] {
        match self {
            Self::WireguardGo => ["wireguard-go", "wg"],
            Self::Boringtun => ["boringtun-cli", "wg"],
        }
    }

    fn command(self) -> String {
        match self {
            Self::WireguardGo => peer::WIREGUARD_GO.to_owned(),
            // One thread: more of them reorder a flow.
            Self::Boringtun => peer::boringtun(Some(1)),
        }
    }
}

/// Starts it on `host` with a client's file, as its user would.
pub(crate) fn start_client(stage: &Stage, host: &Arc<Host>, kind: Kind, file: &Path) -> Background {
    let command = kind.command();
    peer::start_from_file(&stage.spawner, host, &stage.scratch, &command, file)
        .unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}

/// Starts it on `host` as side 2, with vng of this key as side 1. Its device is `wg0`.
pub(crate) fn start(
    stage: &Stage,
    host: &Arc<Host>,
    kind: Kind,
    key: &PrivateKey,
    vng: &PublicKey,
    preshared: Option<&PresharedKey>,
    over: Family,
) -> Background {
    let endpoint = format!("{}:51820", underlay(1, over));
    let end = End {
        preshared,
        ..pair::end(2, key, vng, &endpoint)
    };
    start_end(stage, host, kind, &end)
}

/// Starts it on `host` as this end of a tunnel.
pub(crate) fn start_end(stage: &Stage, host: &Arc<Host>, kind: Kind, end: &End<'_>) -> Background {
    peer::start(&stage.spawner, host, &stage.scratch, &kind.command(), end)
        .unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}
