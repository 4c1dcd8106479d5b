//! What is missing at the start, and what goes away later.

use crate::place::{Place, VPN};
use gateway::api::What;
use gateway::device::namespace::Namespace;
use gateway::device::netlink::{Netlink, VethEnd};
use serde_json::Value;
use std::fs;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// A circuit whose interface is `late0`.
pub(crate) const LINK: &str = r#"
[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "er"
model    = "point-to-point"
prefixes = ["10.2.0.0/16"]
probe    = false

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "late0"
  mac       = "interface"
  address   = ["172.16.0.2/30"]
  neighbor  = ["172.16.0.1"]
"#;

fn path<'a>(status: &'a Value, name: &str) -> &'a Value {
    let paths = status["paths"].as_array().unwrap();
    paths.iter().find(|path| path["name"] == name).unwrap()
}

#[test]
fn a_gateway_whose_device_is_deleted_ends_with_an_error() {
    for (workers, polling) in [(1, "sleep"), (2, "adaptive"), (1, "spin")] {
        let control = format!("workers = {workers}\npolling = \"{polling}\"");
        let place = Place::new(VPN, &control);
        let running = place.shell("exec $VNG run -c vng.toml");
        place.wait_until_served();
        let mut netlink = place.space.run(Netlink::open).unwrap().unwrap();
        netlink.delete_link("vng0").unwrap();
        let (status, _, said) = running.end();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("it was deleted"), "{said}");
    }
}

#[test]
fn an_interface_that_is_missing_at_the_start_is_a_path_that_is_down() {
    for workers in [1, 2] {
        let place = Place::new(&(VPN.to_owned() + LINK), &format!("workers = {workers}"));
        let checked = place.space.run(|| place.vng(&["check", "-c", "vng.toml"]));
        let checked = checked.unwrap();
        let said = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(0), "{said}");
        assert!(said.contains("warning") && said.contains("late0"), "{said}");

        let running = place.shell("exec $VNG run -c vng.toml");
        let status = place.wait_until_served();
        let er = path(&status, "er/primary");
        assert_eq!(
            (&er["state"], &er["reason"]),
            (&"down".into(), &"interface_gone".into())
        );
        assert_eq!(path(&status, "shop")["name"], "shop");

        let far = Namespace::new().unwrap();
        let mut there = far.run(Netlink::open).unwrap().unwrap();
        let mut here = place.space.run(Netlink::open).unwrap().unwrap();
        here.add_veth(VethEnd::here("late0"), VethEnd::within("b0", far.as_fd()))
            .unwrap();
        there.set_up("b0", true).unwrap();
        there
            .add_address("b0", "172.16.0.1/30".parse().unwrap())
            .unwrap();
        here.set_up("late0", true).unwrap();
        place.wait_for(What::Status, |status| {
            path(status, "er/primary")["state"] == "up"
        });
        // The kernel is kept out of it as of one that was there at the start, and let in again at the end.
        let setting = || {
            let read = || fs::read_to_string("/proc/sys/net/ipv4/conf/late0/rp_filter");
            place.space.run(read).unwrap().unwrap().trim().to_owned()
        };
        let until = Instant::now() + Duration::from_secs(10);
        while setting() != "1" && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(setting(), "1");
        let (status, _, said) = running.stop();
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("no interface late0"), "{said}");
        assert_eq!(setting(), "0");
    }
}

/// The log used to tell it as a change: "path is down from=down to=down".
#[test]
fn another_reason_for_being_down_is_no_change_of_state() {
    let place = Place::new(LINK, "");
    let running = place.shell("exec $VNG run -c vng.toml");
    let is_down =
        |reason: &'static str| move |status: &Value| path(status, "er/primary")["reason"] == reason;
    place.wait_for(What::Status, is_down("interface_gone"));
    let mut here = place.space.run(Netlink::open).unwrap().unwrap();
    here.add_veth(VethEnd::here("late0"), VethEnd::here("b0"))
        .unwrap();
    let status = place.wait_for(What::Status, is_down("interface_down"));
    // The event says so too, for who wants to know what came when.
    let events = status["events"].as_array().unwrap();
    let reason = |event: &Value| event["from"] == "down" && event["reason"] == "interface_down";
    assert!(events.iter().any(reason), "{events:?}");
    let (ended, _, said) = running.stop();
    assert_eq!(ended, Some(0), "{said}");
    assert!(!said.contains("from=\"down\" to=\"down\""), "{said}");
    let line = "another reason for its state path=\"er/primary\" state=\"down\" before=\"interface_gone\" reason=\"interface_down\"";
    assert!(said.contains(line), "{said}");
}

#[test]
fn a_name_that_no_interface_can_have_stays_an_error() {
    let wrong = LINK.replace("late0", "not/a/name");
    let place = Place::new(&(VPN.to_owned() + &wrong), "");
    for command in ["check", "run"] {
        let running = place.shell(&format!("exec $VNG {command} -c vng.toml"));
        let (status, _, said) = running.end();
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("not/a/name"), "{said}");
    }
}

/// With too few descriptors nothing is ready; with as many as it asks for everything is.
#[test]
fn a_start_without_enough_descriptors_says_how_many_are_needed() {
    let place = Place::new(&(VPN.to_owned() + LINK), "workers = 2");
    for few in [12, 19, 60] {
        let running = place.shell(&format!("ulimit -n {few}; exec $VNG run -c vng.toml"));
        let (status, out, said) = running.end();
        assert_eq!((status, out.as_str()), (Some(3), ""), "{said}");
        assert!(said.contains("ulimit -n "), "{said}");
    }
    let running = place.shell("ulimit -n 19; exec $VNG run -c vng.toml");
    let (_, _, said) = running.end();
    let needed = said.split("ulimit -n ").nth(1).unwrap();
    let needed: usize = needed.split(',').next().unwrap().parse().unwrap();
    let running = place.shell(&format!("ulimit -n {needed}; exec $VNG run -c vng.toml"));
    place.wait_until_served();
    let open = fs::read_dir(format!("/proc/{}/fd", running.child.id())).unwrap();
    let open = open.count() + gateway::api::MOST_CLIENTS;
    assert!(open <= needed, "{open} of {needed}");
    assert_eq!(running.stop().0, Some(0));
    // A soft limit is raised.
    let running = place.shell("ulimit -Sn 19; exec $VNG run -c vng.toml");
    place.wait_until_served();
    assert_eq!(running.stop().0, Some(0));
}
