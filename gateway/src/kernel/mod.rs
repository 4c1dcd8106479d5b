//! What the gateway sets in the machine's kernel, and how it is kept and given back.
//!
//! - [`presence`]: the kernel's side of the TUN device, its addresses and routes; [`conflict`]: which routes
//!   may stand beside the machine's own
//! - [`settings`]: parameters of interfaces below `/proc/sys`, recorded where a killed gateway cannot lose them

mod conflict;
pub mod presence;
mod quarrel;
pub(crate) mod settings;
