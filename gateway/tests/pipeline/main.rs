//! What the packet edits promise, held against slow and simple builders of the same packets.

mod checksum;
mod coalesce;
mod forward;
mod fragment;
mod icmp;
mod packets;
mod split;
