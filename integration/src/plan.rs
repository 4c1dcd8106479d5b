//! What each gateway of the lab is configured to be; the addresses are those of the drawing in [`crate::lab`].

use crate::config::{Circuit, KeyPair, Link, Plan, Site, Tagging};
use crate::lab::{CIRCUIT, LabOptions, SITE};
use std::path::PathBuf;

/// The gateways' keys.
pub(crate) struct Keys {
    pub(crate) gateway: KeyPair,
    pub(crate) edge: KeyPair,
    pub(crate) branch: KeyPair,
}

/// The gateway in the virtual network: ExpressRoute, and the VPN to the site and the branch.
pub(crate) fn gateway_plan<'a>(
    options: &'a LabOptions,
    keys: &'a Keys,
    socket: PathBuf,
) -> Plan<'a> {
    Plan {
        name: "vnet-lab",
        address_space: ["10.1.0.0/16", "fd00:1::/48"],
        address: ["10.1.255.4/27", "fd00:1:0:ff::4/64"],
        host_address: ["10.1.255.5/27", "fd00:1:0:ff::5/64"],
        circuit: Some(Circuit {
            name: CIRCUIT,
            prefixes: ["10.2.0.0/16", "fd00:2::/48"],
            probe: "10.2.255.4",
            tagging: options.links,
            links: [
                Link {
                    name: "primary",
                    interface: "eth1",
                    address: ["172.16.0.2/30", "fd00:16::2/126"],
                    neighbor: ["172.16.0.1", "fd00:16::1"],
                },
                Link {
                    name: "secondary",
                    interface: "eth2",
                    address: ["172.16.0.6/30", "fd00:16::6/126"],
                    neighbor: ["172.16.0.5", "fd00:16::5"],
                },
            ],
        }),
        key: &keys.gateway,
        sites: vec![
            Site {
                name: SITE,
                key: &keys.edge.public,
                endpoint: "198.51.100.10:51820",
                prefixes: ["10.2.0.0/16", "fd00:2::/48"],
                probe: "10.2.255.4",
            },
            Site {
                name: "branch",
                key: &keys.branch.public,
                endpoint: "192.0.2.10:51820",
                prefixes: ["10.3.0.0/16", "fd00:3::/48"],
                probe: "10.3.255.4",
            },
        ],
        probing: options.probing,
        hold_down: options.hold_down,
        sku: &options.sku,
        socket,
        more: &options.policy,
    }
}

/// The edge on premises: the same with the roles reversed.
pub(crate) fn edge_plan<'a>(options: &'a LabOptions, keys: &'a Keys, socket: PathBuf) -> Plan<'a> {
    Plan {
        name: "onprem",
        address_space: ["10.2.0.0/16", "fd00:2::/48"],
        address: ["10.2.255.4/27", "fd00:2:0:ff::4/64"],
        host_address: ["10.2.255.5/27", "fd00:2:0:ff::5/64"],
        circuit: Some(Circuit {
            name: "er-azure",
            prefixes: ["10.1.0.0/16", "fd00:1::/48"],
            probe: "10.1.255.4",
            tagging: Tagging::Untagged,
            links: [
                Link {
                    name: "primary",
                    interface: "eth1",
                    address: ["172.16.1.2/30", "fd00:16:1::2/126"],
                    neighbor: ["172.16.1.1", "fd00:16:1::1"],
                },
                Link {
                    name: "secondary",
                    interface: "eth2",
                    address: ["172.16.1.6/30", "fd00:16:1::6/126"],
                    neighbor: ["172.16.1.5", "fd00:16:1::5"],
                },
            ],
        }),
        key: &keys.edge,
        sites: vec![azure_site(keys)],
        probing: options.probing,
        hold_down: options.hold_down,
        sku: &options.sku,
        socket,
        more: "",
    }
}

/// The branch's device: VPN alone.
pub(crate) fn branch_plan<'a>(
    options: &'a LabOptions,
    keys: &'a Keys,
    socket: PathBuf,
) -> Plan<'a> {
    Plan {
        name: "branch",
        address_space: ["10.3.0.0/16", "fd00:3::/48"],
        address: ["10.3.255.4/27", "fd00:3:0:ff::4/64"],
        host_address: ["10.3.255.5/27", "fd00:3:0:ff::5/64"],
        circuit: None,
        key: &keys.branch,
        sites: vec![azure_site(keys)],
        probing: options.probing,
        hold_down: options.hold_down,
        sku: &options.sku,
        socket,
        more: "",
    }
}

fn azure_site(keys: &Keys) -> Site<'_> {
    Site {
        name: "azure",
        key: &keys.gateway.public,
        endpoint: "203.0.113.4:51820",
        prefixes: ["10.1.0.0/16", "fd00:1::/48"],
        probe: "10.1.255.4",
    }
}
