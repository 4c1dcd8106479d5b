//! A namespace, a veth pair in it, and ways to wait for what the kernel does.

use gateway::device::event::Poller;
use gateway::device::interface::Interface;
use gateway::device::namespace::Namespace;
use gateway::device::netlink::{LinkChange, Monitor, Netlink, VethEnd};
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long anything may take before a test gives up; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` in a new namespace with a loopback that is up and without IPv6 of the kernel's own on new
/// links, whose neighbour discovery would get between the frames.
pub(crate) fn alone(test: impl FnOnce() + Send) {
    let space = match Namespace::new() {
        Ok(space) => space,
        Err(error) => {
            eprintln!("SKIPPED: cannot make a network namespace ({error}): run as root");
            return;
        }
    };
    space
        .run(|| {
            Interface::set_up("lo", true).unwrap();
            quiet();
            test();
        })
        .unwrap();
}

/// Keeps IPv6 off links made from here on in this thread's namespace.
pub(crate) fn quiet() {
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

/// Lets IPv6 onto links made from here on in this thread's namespace.
pub(crate) fn with_ipv6() {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
}

/// Makes the veth pair `a` and `b` in this namespace, up and ready to carry frames.
pub(crate) fn veth(mtu: u32) -> Netlink {
    let mut netlink = Netlink::open().unwrap();
    netlink
        .add_veth(VethEnd::here("a"), VethEnd::here("b"))
        .unwrap();
    for name in ["a", "b"] {
        Interface::set_mtu(name, mtu).unwrap();
    }
    up(&["a", "b"]);
    netlink
}

/// Takes both ends of a pair up and waits until they carry frames: before that, the kernel drops what is
/// sent without a word. The end that is up first begins to transmit only when the kernel has noticed its
/// carrier, some time after the second end is up; the notification of that comes after the deed.
pub(crate) fn up(names: &[&str]) {
    let mut monitor = Monitor::open().unwrap();
    for name in names {
        Interface::set_up(name, true).unwrap();
    }
    let mut waiting = names.to_vec();
    while !waiting.is_empty() {
        ready(&monitor);
        for event in monitor.events().unwrap() {
            if matches!(&event.kind, LinkChange::Changed(state) if state.is_running()) {
                waiting.retain(|name| *name != event.name);
            }
        }
    }
}

/// Waits until `source` can be read.
pub(crate) fn ready(source: impl AsFd) {
    let mut poller = Poller::new().unwrap();
    poller.add(source, 0).unwrap();
    let count = poller.wait(Some(PATIENCE)).unwrap().count();
    assert_eq!(count, 1, "nothing to read after {PATIENCE:?}");
}
