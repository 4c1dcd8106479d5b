//! The VPN gateway's sections.

use crate::config::read::DEFAULT_LISTEN_PORT;
use crate::config::read::DEFAULT_TUNNEL_MTU;
use crate::config::read::MTU;
use crate::config::read::Sku;
use crate::config::read::edition;
use crate::config::read::probe;
use crate::config::read::seconds;
use crate::config::read::weight;
use crate::config::schema::{Client, PointToSite, Site, SiteKind, Vpn};
use crate::config::value::NameOf;
use crate::config::value::{
    Address, File, HostPort, Interface, Key, Network, OneOf, Own, PathName, Place, Placed, Switch,
    Time, Whole,
};
use crate::config::walk::{Section, Walk};
use crate::sku::{self, Edition};
use std::path::Path;

pub(super) fn vpn(walk: &mut Walk, section: Section, directory: &Path) -> Vpn {
    let edition = edition(walk, &section);
    let kind = Sku {
        names: sku::vpn_names(edition),
    };
    let sku: String = section.required(walk, "sku", &kind).unwrap_or_default();
    let generation = section
        .optional(walk, "generation", &Whole(1, 2))
        .map(|generation| generation as u8);
    if let (Edition::Of2016, Some(found)) = (edition, generation)
        && let Some(value) = section.raw("generation")
    {
        let found = format!("generation {found} in the 2016 edition, which has none");
        let help = "leave it out, or take edition = \"current\"".to_owned();
        let key = section.path("generation");
        walk.error(
            &key,
            value.span(),
            "is of another edition",
            found,
            None,
            Some(help),
        );
    }
    // Without the key: the first generation that has the SKU.
    let generation = generation.unwrap_or_else(|| {
        let there = sku::vpn_generations(edition, &sku);
        there.first().copied().unwrap_or(1)
    });
    let vpn = Vpn {
        edition,
        sku,
        generation,
        private_key_file: section
            .required(walk, "private_key_file", &File)
            .map(|file| directory.join(file))
            .unwrap_or_default(),
        listen_port: section
            .optional(walk, "listen_port", &Whole(0, 65_535))
            .map_or(DEFAULT_LISTEN_PORT, |port| port as u16),
        bind_address: section.list(walk, "bind_address", &Own),
        interface: section.optional(walk, "interface", &Interface),
        fwmark: section
            .optional(walk, "fwmark", &Whole(0, u64::from(u32::MAX)))
            .map_or(0, |mark| mark as u32),
        path_mtu_discovery: section
            .optional(walk, "path_mtu_discovery", &Switch)
            .unwrap_or(false),
        mtu: section
            .optional(walk, "mtu", &MTU)
            .map_or(DEFAULT_TUNNEL_MTU, |mtu| mtu as u16),
        offload: section.optional(walk, "offload", &Switch).unwrap_or(true),
        public_endpoint: section.optional(walk, "public_endpoint", &HostPort),
        sites: section
            .sections(walk, "site")
            .into_iter()
            .map(|section| site(walk, section, directory))
            .collect(),
        point_to_site: section
            .section(walk, "point_to_site")
            .map(|section| point_to_site(walk, section, directory)),
    };
    section.finish(walk);
    vpn
}

const SITE_KINDS: OneOf<SiteKind> = OneOf(&[
    ("site-to-site", SiteKind::SiteToSite),
    ("vnet-to-vnet", SiteKind::VnetToVnet),
]);

fn site(walk: &mut Walk, section: Section, directory: &Path) -> Site {
    let (endpoint, endpoint_host) = match section.optional(walk, "endpoint", &Place) {
        Some(Placed::Address(endpoint)) => (Some(endpoint), None),
        Some(Placed::Host(host)) => (None, Some(host)),
        None => (None, None),
    };
    let site = Site {
        name: section
            .required(walk, "name", &PathName)
            .unwrap_or_default(),
        kind: section
            .optional(walk, "kind", &SITE_KINDS)
            .unwrap_or(SiteKind::SiteToSite),
        public_key: section
            .required(walk, "public_key", &Key)
            .unwrap_or_default(),
        preshared_key_file: section
            .optional(walk, "preshared_key_file", &File)
            .map(|file| directory.join(file)),
        endpoint,
        endpoint_host,
        prefixes: section.required_list(walk, "prefixes", &Network),
        weight: weight(walk, &section),
        keepalive: section.optional(walk, "keepalive", &Time(seconds(1), seconds(65_535))),
        lanes: section
            .optional(walk, "lanes", &Whole(1, 16))
            .map_or(1, |lanes| lanes as u8),
        probe: probe(walk, &section, None),
        over: section.optional(walk, "over", &NameOf("the name of a circuit")),
        mtu: section.optional(walk, "mtu", &MTU).map(|mtu| mtu as u16),
    };
    section.finish(walk);
    site
}

fn point_to_site(walk: &mut Walk, section: Section, directory: &Path) -> PointToSite {
    let point_to_site = PointToSite {
        address_pool: section.required_list(walk, "address_pool", &Network),
        clients: section
            .sections(walk, "client")
            .into_iter()
            .map(|section| client(walk, section, directory))
            .collect(),
    };
    section.finish(walk);
    point_to_site
}

fn client(walk: &mut Walk, section: Section, directory: &Path) -> Client {
    let client = Client {
        name: section
            .required(walk, "name", &PathName)
            .unwrap_or_default(),
        public_key: section
            .required(walk, "public_key", &Key)
            .unwrap_or_default(),
        preshared_key_file: section
            .optional(walk, "preshared_key_file", &File)
            .map(|file| directory.join(file)),
        address: section.list(walk, "address", &Address),
    };
    section.finish(walk);
    client
}
