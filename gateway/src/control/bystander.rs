//! Keeps the kernel's own stack out of a link that uses the interface's MAC address.
//!
//! A packet socket is a tap: frames for the interface's own address the kernel also takes, and would route
//! a second time where forwarding is on. Strict reverse path filtering (RFC 3704) drops them for IPv4,
//! since the way back to their sources is not this interface; IPv6 has no such filter, so the kernel's
//! IPv6 is switched off there. Tagged frames are immune: the kernel knows no such VLAN. With a MAC address
//! of the gateway's own, the default, none of this is needed.

use std::fs;
use std::path::PathBuf;

/// Settings that were changed, to be put back.
#[derive(Debug, Default)]
pub(crate) struct Bystander {
    before: Vec<(PathBuf, String)>,
}

impl Bystander {
    /// Has the kernel leave the frames of `interface` to the gateway.
    pub(crate) fn keep_out(&mut self, interface: &str) {
        for (family, setting) in [("ipv4", "rp_filter"), ("ipv6", "disable_ipv6")] {
            let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{interface}/{setting}"));
            // Without IPv6 in the kernel there is no such file, and nothing to keep out.
            let Ok(before) = fs::read_to_string(&path) else {
                continue;
            };
            if before.trim() == "1" {
                continue;
            }
            match fs::write(&path, "1") {
                Ok(()) => self.before.push((path, before)),
                Err(error) => tracing::warn!(
                    interface,
                    %error,
                    "{} could not be set to 1: the kernel may route this link's packets a second time",
                    path.display()
                ),
            }
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        for (path, before) in &self.before {
            // The interface may be gone, and its settings with it.
            let _ = fs::write(path, before);
        }
    }
}
