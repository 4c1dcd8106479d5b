//! A WireGuard implementation that is not ours, as one end of a tunnel: any program that makes a device and
//! is configured through the usual socket, by `wg setconf`.

use crate::error::Error;
use crate::host::Host;
use crate::process::Nursery;
use crate::program::{self, Background};
use crate::scratch::Scratch;
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use gateway::device::netlink::{Route, Via};
use ipnet::IpNet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the device.
pub const DEVICE: &str = "wg0";
/// MTU of the device, bytes.
pub const MTU: u32 = 1420;
/// Stands for the device's name in a command.
pub const PLACEHOLDER: &str = "{device}";
/// The command of wireguard-go.
pub const WIREGUARD_GO: &str = "wireguard-go -f {device}";

/// The command of boringtun-cli; `threads`: `None` for its default, 4. With more than one it reads one
/// socket on several threads, and so reorders a flow by itself: at 1 Gbps a tenth of all segments was sent
/// again.
pub fn boringtun(threads: Option<u8>) -> String {
    let threads = threads.map_or(String::new(), |n| format!("--threads {n} "));
    format!(
        "boringtun-cli --foreground --disable-drop-privileges {threads}--log /dev/null {PLACEHOLDER}"
    )
}

/// One end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Name of the configuration file that is written, without its ending.
    pub name: &'a str,
    /// Its private key.
    pub key: &'a PrivateKey,
    /// The far end's public key.
    pub other: &'a PublicKey,
    /// The secret of both.
    pub preshared: Option<&'a PresharedKey>,
    /// Address and port of the far end.
    pub endpoint: &'a str,
    /// Addresses of the device, with prefix lengths.
    pub addresses: [&'a str; 2],
    /// What is behind the far end.
    pub prefixes: [&'a str; 2],
}

/// How long a program may take to make its device.
const PATIENCE: Duration = Duration::from_secs(15);
/// The port it listens on.
const PORT: u16 = 51_820;

/// Starts a peer on `host` by `command` (as a shell takes it; it stays in the foreground), configures it and
/// gives its device addresses, MTU and routes.
pub fn start(
    nursery: &Nursery,
    host: &Arc<Host>,
    scratch: &Scratch,
    command: &str,
    end: &End<'_>,
) -> Result<Background, Error> {
    // They put their sockets into /run/wireguard: here a /run of their own, which goes with them.
    let script = format!(
        "mount -t tmpfs tmpfs /run && exec {}",
        command.replace(PLACEHOLDER, DEVICE)
    );
    let words = ["unshare", "--mount", "sh", "-c", &script];
    let mut process = Background::start(nursery, host, &words)?;
    wait_for_socket(&mut process, command)?;
    configure(nursery, host, scratch, &process, end)?;
    host.configure(|netlink| netlink.set_mtu(DEVICE, MTU))?;
    host.address(DEVICE, &end.addresses)?;
    for prefix in end.prefixes {
        let destination: IpNet = prefix
            .parse()
            .map_err(|_| Error::unexpected("a prefix", prefix))?;
        let route = Route::new(destination, Via::Link(DEVICE));
        host.configure(|netlink| netlink.add_route(&route))?;
    }
    Ok(process)
}

fn wait_for_socket(process: &mut Background, command: &str) -> Result<(), Error> {
    let socket = format!("/proc/{}/root/run/wireguard/{DEVICE}.sock", process.pid());
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(&socket).exists() {
        let ended = process.has_ended();
        if ended || Instant::now() >= deadline {
            return Err(Error::Gateway {
                name: command.into(),
                found: if ended {
                    "ended before it had a socket".into()
                } else {
                    format!("no /run/wireguard/{DEVICE}.sock after {PATIENCE:?}")
                },
                log: process.said(),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn configure(
    nursery: &Nursery,
    host: &Arc<Host>,
    scratch: &Scratch,
    process: &Background,
    end: &End<'_>,
) -> Result<(), Error> {
    let preshared = end.preshared.map_or(String::new(), |key| {
        format!("PresharedKey = {}\n", &*key.to_base64())
    });
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n{preshared}\
         AllowedIPs = {}\nEndpoint = {}\n",
        &*end.key.to_base64(),
        end.other,
        end.prefixes.join(", "),
        end.endpoint,
    );
    let file = scratch.write(&format!("{}.conf", end.name), &text)?;
    let mounts = format!("--mount=/proc/{}/ns/mnt", process.pid());
    let file = file.to_string_lossy();
    let words = ["nsenter", &mounts, "wg", "setconf", DEVICE, &file];
    let done = program::run(nursery, host, Duration::from_secs(10), &words)?;
    if done.success {
        return Ok(());
    }
    Err(Error::Gateway {
        name: end.name.into(),
        found: format!("wg setconf failed: {}", done.err),
        log: process.said(),
    })
}
