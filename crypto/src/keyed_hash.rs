//! Keyed BLAKE2s with 16 bytes of output: the `MAC` of WireGuard's whitepaper (5.4).

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};

/// The hash of all parts behind one another. The key is 16 or 32 bytes.
pub(crate) fn keyed_hash<const KEY: usize>(key: &[u8; KEY], parts: &[&[u8]]) -> [u8; 16] {
    const { assert!(KEY <= 32, "BLAKE2s takes keys of up to 32 bytes") };
    let Ok(mut hash) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else {
        unreachable!("the key's length was checked when this was compiled");
    };
    for part in parts {
        Update::update(&mut hash, part);
    }
    hash.finalize_fixed().into()
}
