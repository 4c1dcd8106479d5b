//! Real gateways in the lab, from start to failover and back. Needs root, or user namespaces with root
//! in them.
#![allow(clippy::unwrap_used)]

use integration::config::Probing;
use integration::lab::{BRANCH_HOST, Fault, Lab, LabOptions, ONPREM_HOST, VNET_HOST};
use integration::stage::{PATIENCE, balanced, wait_for_members};
use integration::traffic::numbered::{Load, Run};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

fn lab() -> Lab {
    let options = LabOptions {
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_vng-lab"))),
        probing: Probing {
            interval: Duration::from_millis(100),
            ..Probing::default()
        },
        hold_down: Duration::from_millis(500),
        ..LabOptions::default()
    };
    Lab::new(&options).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two gateways that probe each other over their only path each waited for the answer that the other
/// withheld, because its route's only path was down for want of answers.
#[test]
fn gateways_whose_only_path_is_each_other_come_up() {
    let mut lab = lab();
    lab.gateway.start().unwrap();
    lab.branch.start().unwrap();
    for target in BRANCH_HOST {
        assert!(
            lab.host("vnet")
                .unwrap()
                .reaches(address(target), PATIENCE)
                .unwrap(),
            "{target}"
        );
    }
    lab.stop().unwrap();
}

#[test]
fn flows_survive_a_silent_circuit_and_return_without_loss() {
    let mut lab = lab();
    lab.start().unwrap();
    let (vnet, onprem) = (lab.host("vnet").unwrap(), lab.host("onprem").unwrap());
    let ends = (address(VNET_HOST[0]), address(ONPREM_HOST[0]));
    assert!(vnet.reaches(ends.1, PATIENCE).unwrap());
    wait_for_members(&lab, "er-", "er-");

    let load = Load {
        rate: 2_000,
        ..Load::default()
    };
    let run = Run::start((vnet, ends.0), (onprem, ends.1), load).unwrap();
    lab.fault(Fault::Silent).unwrap();
    let cut = run.now();
    wait_for_members(&lab, "onprem", "azure");
    let healed = run.now();
    lab.heal(Fault::Silent).unwrap();
    wait_for_members(&lab, "er-", "er-");
    let returned = run.now();
    while run.now() < returned + 200_000_000 {
        std::thread::yield_now();
    }
    for record in run.finish().unwrap() {
        let failover = record.judge(cut, healed);
        assert!(failover.lost > 0, "the fault was not felt: {failover:?}");
        let failback = record.judge(healed, u64::MAX);
        assert_eq!(
            (failback.lost, record.overflowed, record.refused),
            (0, 0, 0),
            "{failback:?}"
        );
        assert_eq!((failover.duplicated, failback.duplicated), (0, 0));
        assert!(failback.received > 0);
    }
    for gateway in lab.gateways() {
        balanced(gateway);
    }
    lab.stop().unwrap();
}
