//! `vng p2s add`.
//!
//! 1. what a killed command has left of the same client
//! 2. a key pair, and addresses that are free
//! 3. the client's file, which alone has the private key, still without its name ([`super::staged`])
//! 4. the configuration, checked with the client in it; then the file gets its name
//! 5. the running gateway reads it

use super::super::Failure;
use super::super::keys::write_private;
use super::super::output::{Style, json_text, list, print, report};
use super::client_file::ClientFile;
use super::document::{Document, NewClient};
use super::staged::{self, Staged, taken};
use super::{Running, Where, reload};
use crate::config::key_file;
use crate::config::pool::{self, Free};
use crate::config::schema::{Client, Config, PointToSite, Vpn};
use crate::config::value::HostPort;
use crate::telemetry::log::complain;
use clap::Args;
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;
use serde::Serialize;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(in super::super) struct Add {
    /// The client's name
    name: String,
    #[command(flatten)]
    gateway: Where,
    /// A fixed address of the pool; without it the next that is free. Once for each IP version
    #[arg(short, long, value_name = "ADDRESS")]
    address: Vec<IpAddr>,
    /// Where the client reaches this gateway, if `public_endpoint` of the configuration does not say
    #[arg(short, long, value_name = "HOST:PORT")]
    endpoint: Option<String>,
    /// The client's file, mode 0600; without it NAME.conf in this directory
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Make a preshared key too, and keep it in this file, mode 0600
    #[arg(long, value_name = "FILE")]
    preshared_key_file: Option<PathBuf>,
    /// Show the QR code even where the output is no terminal
    #[arg(long)]
    qr: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Added<'a> {
    name: &'a str,
    address: &'a [IpAddr],
    public_key: String,
    file: &'a Path,
    config: &'a Path,
    /// `reloaded`, `not running` or `refused`.
    gateway: &'a str,
}

pub(super) fn run(arguments: &Add) -> Result<(), Failure> {
    let mut document = Document::open(arguments.gateway.config())?;
    let config = document.loaded.config.clone();
    let (vpn, clients) = clients_of(&config, arguments.gateway.config())?;
    let name = &arguments.name;
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{name}.conf")),
    };
    let preshared_file = arguments.preshared_key_file.as_deref();
    let preshared_file = preshared_file.map(absolute).transpose()?;

    // 1. what is left
    let known = clients.clients.iter().find(|client| client.name == *name);
    let mut begun = None;
    for left in staged::left(&path) {
        let public_key = left.private_key.public_key();
        if known.is_some_and(|known| known.public_key == public_key.0) {
            begun = Some(left);
        } else {
            let uses = |file: &PathBuf| {
                let mut clients = clients.clients.iter();
                clients.any(|client| client.preshared_key_file.as_ref() == Some(file))
            };
            left.discard(
                preshared_file
                    .as_deref()
                    .filter(|file| !uses(&file.to_path_buf())),
            );
        }
    }
    if let Some(known) = known {
        drop(document);
        if let Some(left) = begun {
            left.place()?;
            let said = "finished what an earlier command had begun; ";
            return tell(arguments, &config, (known, &path), said, None);
        }
        // A command that was killed behind the configuration has not told the gateway.
        reload(&arguments.gateway.client(&config.control.socket));
        return Err(Failure::Usage(format!(
            "there is a client {name:?} already; vng p2s revoke {name} takes it away"
        )));
    }

    // 2. key pair and addresses
    let endpoint = endpoint(arguments, vpn)?;
    let address = addresses(&config, clients, &arguments.address)?;
    let random = |error: crypto::key::KeyError| Failure::System(error.to_string());
    let private_key = PrivateKey::generate().map_err(random)?;
    let preshared = match &preshared_file {
        Some(file) => Some((PresharedKey::generate().map_err(random)?, file)),
        None => None,
    };
    let own = key_file::read::<PrivateKey>(&vpn.private_key_file)
        .map_err(|error| Failure::Usage(error.told(&vpn.private_key_file)))?;
    let file = ClientFile {
        name,
        private_key: &private_key,
        preshared_key: preshared.as_ref().map(|(key, _)| key),
        address: &address,
        gateway: own.public_key(),
        endpoint,
    };

    // 3. the client's file
    let client = NewClient {
        name,
        public_key: private_key.public_key().to_string(),
        preshared_key_file: preshared_file.as_deref(),
        address: &address,
    };
    if !document.add(&client) {
        return Err(no_pool(arguments.gateway.config()));
    }
    let staged = Staged::write(&path, &file.text(&config))?;
    let mut made = Made(None);
    if let Some((key, file)) = &preshared {
        make(file, &key.to_base64())?;
        made.0 = Some(file);
    }

    // 4. the configuration
    let config = match document.save() {
        Ok(loaded) => loaded.config,
        Err(failure) => {
            if matches!(failure, Failure::Said(_)) {
                complain(&format!(
                    "nothing was changed: the configuration would not be valid with {name:?}\n"
                ));
            }
            return Err(failure);
        }
    };
    made.0 = None;
    let placed = staged.place();

    // 5. the running gateway
    let (_, clients) = clients_of(&config, arguments.gateway.config())?;
    let added = clients.clients.iter().find(|client| client.name == *name);
    let told = match added {
        Some(added) => tell(arguments, &config, (added, &path), "", Some(&file)),
        None => Ok(()),
    };
    placed.and(told)
}

/// A file that goes again if the command fails.
struct Made<'a>(Option<&'a Path>);

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Has the running gateway read the file, and says what has become of the client.
fn tell(
    arguments: &Add,
    config: &Config,
    (client, path): (&Client, &Path),
    how: &str,
    file: Option<&ClientFile<'_>>,
) -> Result<(), Failure> {
    let name = &client.name;
    let running = reload(&arguments.gateway.client(&config.control.socket));
    let refused = match &running {
        Running::Refused(why) => Some(Failure::Work(format!(
            "{} has {name:?} now, but the running gateway does not take it:\n{why}",
            arguments.gateway.config().display()
        ))),
        Running::Absent | Running::Reloaded => None,
    };
    let told = match running {
        Running::Reloaded => "the running gateway knows it",
        Running::Absent => "the gateway does not run; it will know it when it starts",
        Running::Refused(_) => "the running gateway does not know it",
    };
    let done = format!(
        "{name}: {}; {how}{told}\nits file is {}: whoever has it is {name}\n",
        list(&client.address),
        path.display()
    );
    if arguments.json {
        let added = json_text(&Added {
            name,
            address: &client.address,
            public_key: PublicKey(client.public_key).to_string(),
            file: path,
            config: arguments.gateway.config(),
            gateway: running.name(),
        })?;
        report(&added, &done)?;
    } else {
        report(&done, &done)?;
        if let Some(file) = file
            && (arguments.qr || Style::of_stdout().terminal)
        {
            print(&file.qr_code(config)?)?;
        }
    }
    refused.map_or(Ok(()), Err)
}

fn no_pool(config: &Path) -> Failure {
    Failure::Usage(format!(
        "{} has no [vpn.point_to_site]: add it with address_pool = [\"172.31.0.0/24\"]",
        config.display()
    ))
}

fn clients_of<'c>(config: &'c Config, path: &Path) -> Result<(&'c Vpn, &'c PointToSite), Failure> {
    let vpn = config.vpn.as_ref();
    let clients = vpn.and_then(|vpn| Some((vpn, vpn.point_to_site.as_ref()?)));
    clients.ok_or_else(|| no_pool(path))
}

fn endpoint<'a>(arguments: &'a Add, vpn: &'a Vpn) -> Result<&'a str, Failure> {
    let given = arguments.endpoint.as_ref().or(vpn.public_endpoint.as_ref());
    let Some(endpoint) = given else {
        return Err(Failure::Usage(
            "where do clients reach this gateway? Say it with --endpoint vpn.example.net:51820, or once for \
             all with public_endpoint = \"vpn.example.net:51820\" in [vpn]"
                .to_owned(),
        ));
    };
    if !HostPort::holds(endpoint) {
        return Err(Failure::Usage(format!(
            "{endpoint:?} is not a host and a port that a client elsewhere can reach, such as \
             vpn.example.net:51820"
        )));
    }
    Ok(endpoint)
}

/// The addresses asked for, and of each other IP version of the pools the next that is free.
fn addresses(
    config: &Config,
    clients: &PointToSite,
    fixed: &[IpAddr],
) -> Result<Vec<IpAddr>, Failure> {
    let usage = |said: String| Err(Failure::Usage(said));
    let pools = &clients.address_pool;
    let mut all = fixed.to_vec();
    for (index, address) in fixed.iter().enumerate() {
        let before = fixed.iter().take(index);
        if before
            .into_iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            return usage(format!("{address} is the second address of its IP version"));
        }
        let Some(pool) = pools.iter().find(|pool| pool.contains(address)) else {
            return usage(format!(
                "{address} is outside the address pool, {}",
                list(pools)
            ));
        };
        if let Some(reserved) = pool::reserved(pool, *address) {
            return usage(format!("{address} is {} of {pool}", reserved.name()));
        }
        let holder = clients.clients.iter().find(|c| c.address.contains(address));
        if let Some(holder) = holder {
            return usage(format!("{address} is the address of {:?}", holder.name));
        }
    }
    let mut free = Free::of(config, clients);
    for v4 in [true, false] {
        let in_pools = |pool: &IpNet| pool.addr().is_ipv4() == v4;
        if !pools.iter().any(in_pools) || all.iter().any(|address| address.is_ipv4() == v4) {
            continue;
        }
        let Some(address) = free.take(v4) else {
            let pools: Vec<&IpNet> = pools.iter().filter(|pool| in_pools(pool)).collect();
            return usage(format!(
                "the address pool is exhausted: {} has no free address for another client",
                list(&pools)
            ));
        };
        all.push(address);
    }
    all.sort();
    Ok(all)
}

fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(file)
        .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

fn make(path: &Path, text: &str) -> Result<(), Failure> {
    write_private(path, text.as_bytes(), false).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(path, "--preshared-key-file"),
        _ => Failure::Work(format!("{}: {error}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};

    fn config() -> Config {
        let text = include_str!("../../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        let mut config = loaded.unwrap().config;
        let clients = config.vpn.as_mut().unwrap().point_to_site.as_mut().unwrap();
        clients.address_pool = vec!["172.31.0.0/30".parse().unwrap()];
        config
    }

    fn asked(config: &Config, fixed: &[&str]) -> Result<String, String> {
        let (_, clients) = clients_of(config, Path::new("f")).unwrap();
        let fixed: Vec<IpAddr> = fixed.iter().map(|text| text.parse().unwrap()).collect();
        addresses(config, clients, &fixed)
            .map(|all| list(&all))
            .map_err(|failure| match failure {
                Failure::Usage(said) => said,
                other => panic!("{other:?}"),
            })
    }

    #[test]
    fn addresses_are_the_next_free_or_those_asked_for_or_refused_with_the_reason() {
        let mut config = config();
        assert_eq!(asked(&config, &[]).unwrap(), "172.31.0.1");
        assert_eq!(asked(&config, &["172.31.0.1"]).unwrap(), "172.31.0.1");
        for (address, why) in [
            ("172.31.0.2", "172.31.0.2 is the address of \"laptop\""),
            (
                "172.31.0.3",
                "172.31.0.3 is the broadcast address of 172.31.0.0/30",
            ),
            (
                "172.31.1.1",
                "172.31.1.1 is outside the address pool, 172.31.0.0/30",
            ),
        ] {
            assert_eq!(asked(&config, &[address]).unwrap_err(), why);
        }
        let clients = config.vpn.as_mut().unwrap().point_to_site.as_mut().unwrap();
        clients.clients[0]
            .address
            .push("172.31.0.1".parse().unwrap());
        assert_eq!(
            asked(&config, &[]).unwrap_err(),
            "the address pool is exhausted: 172.31.0.0/30 has no free address for another client"
        );
    }
}
