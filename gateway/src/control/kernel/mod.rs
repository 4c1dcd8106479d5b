//! What the gateway sets in the machine's kernel, and how it is kept and given back.
//!
//! - [`presence`]: the kernel's side of the TUN device, its addresses and routes; [`conflict`]: which routes
//!   may stand beside the machine's own
//! - [`keeper`]: a thread that puts back what others change of it, or says so
//! - [`settings`]: parameters of interfaces below `/proc/sys`, recorded where a killed gateway cannot lose them

mod conflict;
pub(crate) mod keeper;
pub mod presence;
mod quarrel;
pub(crate) mod settings;
