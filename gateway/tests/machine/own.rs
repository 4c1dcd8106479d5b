//! A machine that lives in the virtual network itself.

use crate::place::{Place, VNG, VPN};
use std::process::Stdio;

fn check(place: &Place) -> (String, String) {
    let mut command = place.command(VNG, &["check", "-c", "vng.toml"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (status, out, err) = place.start(command).end();
    assert_eq!(status, Some(0), "{err}");
    (out, err)
}

/// Packets from there never pass the gateway, or their answers do not; nothing used to say so.
#[test]
fn a_machine_with_addresses_in_the_virtual_network_is_warned() {
    let more = "endpoint = \"203.0.113.5:51820\"\nprobe = { target = \"192.168.20.1\" }\nprefixes ";
    let vpn = VPN.replace("prefixes ", more);
    let place = Place::new(&vpn, "");
    let (out, err) = check(&place);
    assert!(!err.contains("warning"), "{err}");
    assert!(out.trim_end().ends_with("is valid"), "{out}");

    let script = "ip link add d0 mtu 1280 type veth peer name d1 && ip link set d1 up && ip link set d0 up && ip address add 10.1.7.5/24 dev d0 \
                  && ip address add 192.168.1.5/24 dev d0 && ip route add 203.0.113.0/24 dev d0 \
                  && ip route add 10.1.9.0/24 dev d0 && ip route add 10.0.0.0/8 via 192.168.1.1 \
                  && ip route add default via 192.168.1.1";
    let done = place.shell(script).end();
    assert_eq!(done.0, Some(0), "{done:?}");
    let told = |(out, err): (String, String)| {
        for part in [
            "`vnet.address_space` is this machine's own network too",
            "10.1.7.5/24 of d0 is in 10.1.0.0/16",
            "`vnet.address_space` is behind another interface too",
            "the route to 10.1.9.0/24 leads to d0",
            "has a narrow route",
        ] {
            assert!(err.contains(part), "{part}: {err}");
        }
        for part in ["10.0.0.0/8", "10.1.7.0", "192.168", "vng0"] {
            assert!(!err.contains(part), "{part}: {err}");
        }
        let all = err
            .lines()
            .filter(|line| line.starts_with("warning"))
            .count();
        assert_eq!(all, 3, "{err}");
        assert!(
            out.trim_end().ends_with("is valid, with 3 warnings above"),
            "{out}"
        );
    };
    told(check(&place));

    // The device's own are none of these.
    let mut running = place.shell("exec $VNG run -c vng.toml");
    running.wait_until_ready();
    place.wait_until_served();
    told(check(&place));
    let (status, _, said) = running.stop();
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("10.1.7.5/24 of d0 is in 10.1.0.0/16"),
        "{said}"
    );
}
