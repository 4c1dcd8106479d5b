//! The network-namespace lab of vng.
