//! Without privileges of the machine, and with privileges that something takes away again.

use crate::place::{Place, VNG, VPN};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

/// Nobody in particular.
const USER: u32 = 65_534;

/// A user who is root in a user namespace alone, with a network namespace in it: `/dev/net/tun` is open to all,
/// as udev makes it.
#[test]
fn the_smallest_gateway_runs_as_an_unprivileged_user() {
    let place = Place::new(VPN, "");
    let directory = place.directory.path();
    fs::copy(VNG, place.file("vng")).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    for file in [directory, &place.file("vng.toml"), &place.file("vpn.key")] {
        chown(file, Some(USER), Some(USER)).unwrap();
    }
    let running = place.shell(
        "exec unshare --mount sh -ec '
            mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
            exec setpriv --reuid 65534 --regid 65534 --clear-groups \\
                unshare --user --map-root-user --net ./vng run -c vng.toml'",
    );
    place.wait_until_served();
    let pid = running.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let user = status.lines().find(|line| line.starts_with("Uid:"));
    assert!(user.unwrap().contains(&USER.to_string()), "{status}");
    let (status, out, said) = running.stop();
    assert_eq!((status, out.as_str()), (Some(0), "ready\n"), "{said}");
    // Nothing failed that had to be done without.
    let failed = ["not permitted", "the kernel's length"];
    assert!(!failed.iter().any(|text| said.contains(text)), "{said}");
}

/// A container's rules or a security module: being root would not help.
#[test]
fn root_is_not_told_to_be_root() {
    let place = Place::new(VPN, "");
    let running = place.shell(
        "exec unshare --mount sh -ec '
            mount -t tmpfs -o nodev tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
            exec $VNG run -c vng.toml'",
    );
    let (status, _, said) = running.end();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("open /dev/net/tun"), "{said}");
    assert!(
        !said.contains("as root") && said.contains("container"),
        "{said}"
    );
    let errors = said.lines().filter(|line| line.contains("error:"));
    assert_eq!(errors.count(), 1, "{said}");
}

/// Who is not root is told what is lacking.
#[test]
fn who_is_not_root_is_told_what_is_lacking() {
    let place = Place::new(VPN, "");
    let running =
        place.shell("exec setpriv --bounding-set -net_admin,-net_raw $VNG run -c vng.toml");
    let (status, _, said) = running.end();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
}
