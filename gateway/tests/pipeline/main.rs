//! What the packet edits promise, held against slow and simple builders of the same packets.

// The builders and drivers below the tests unwrap as well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agreement;
mod checksum;
mod coalesce;
mod flows;
mod forward;
mod fragment;
mod icmp;
mod packets;
mod policy;
mod shape;
mod split;
