//! A WireGuard implementation that is not ours, as one end of a tunnel: any program that makes a device and
//! is configured through the usual socket, by `wg setconf`.

use crate::error::Error;
use crate::host::{Host, parse};
use crate::process::Spawner;
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
    /// Address and port of the far end; empty: it waits to be called.
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
///
/// # Errors
/// [`Error::System`] where `unshare`, `nsenter`, `command` itself or a thread cannot be started, or the file
/// with the settings not be written; [`Error::Gateway`], with what the program said, where it ends or has no
/// socket after 15 s, or where `wg setconf` fails; [`Error::Netlink`] where the kernel refuses the device's
/// MTU, an address or a route; [`Error::Unexpected`] for an address or prefix that is none. The program is
/// ended then.
pub fn start(
    spawner: &Spawner,
    host: &Arc<Host>,
    scratch: &Scratch,
    command: &str,
    end: &End<'_>,
) -> Result<Background, Error> {
    let process = launch(spawner, host, command)?;
    let (text, name) = (settings(end), format!("{}.conf", end.name));
    configure((spawner, host, scratch), &process, &name, &text)?;
    attach(host, MTU, &end.addresses, &end.prefixes)?;
    Ok(process)
}

/// Starts a peer on `host` as its user would: by the file at `file`, as `wg-quick` reads it.
///
/// # Errors
/// As of [`start`]; also [`Error::System`] where `file` cannot be read, and [`Error::Unexpected`] where it has
/// no line `MTU`, `Address` or `AllowedIPs`, or an MTU that is no number.
pub fn start_from_file(
    spawner: &Spawner,
    host: &Arc<Host>,
    scratch: &Scratch,
    command: &str,
    file: &Path,
) -> Result<Background, Error> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(Error::system(format!("read {}", file.display())))?;
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        let mut values = lines.filter(|(found, _)| *found == key);
        let found = values.next().map(|(_, value)| value);
        found.ok_or_else(|| Error::unexpected(key, "nothing of the name"))
    };
    let mtu = value("MTU")?;
    let mtu = mtu.parse().map_err(|_| Error::unexpected("an MTU", mtu))?;
    let addresses: Vec<&str> = value("Address")?.split(", ").collect();
    let prefixes: Vec<&str> = value("AllowedIPs")?.split(", ").collect();
    // What wg-quick keeps to itself, and wg does not know.
    let of_quick = |line: &&str| !line.starts_with("Address") && !line.starts_with("MTU");
    let settings: Vec<&str> = text.lines().filter(of_quick).collect();
    let process = launch(spawner, host, command)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (name, settings) = (format!("{name}.wg"), settings.join("\n") + "\n");
    configure((spawner, host, scratch), &process, &name, &settings)?;
    attach(host, mtu, &addresses, &prefixes)?;
    Ok(process)
}

/// Starts the program and waits until it can be configured.
fn launch(spawner: &Spawner, host: &Arc<Host>, command: &str) -> Result<Background, Error> {
    // They put their sockets into /run/wireguard: here a /run of their own, which goes with them.
    let script = format!(
        "mount -t tmpfs tmpfs /run && exec {}",
        command.replace(PLACEHOLDER, DEVICE)
    );
    let words = ["unshare", "--mount", "sh", "-c", &script];
    let mut process = Background::start(spawner, host, &words)?;
    wait_for_socket(&mut process, command)?;
    Ok(process)
}

/// Gives the device its MTU, addresses and routes.
fn attach(host: &Host, mtu: u32, addresses: &[&str], prefixes: &[&str]) -> Result<(), Error> {
    host.configure(|netlink| netlink.set_mtu(DEVICE, mtu))?;
    host.address(DEVICE, addresses)?;
    for prefix in prefixes {
        let destination: IpNet = parse(prefix)?;
        let route = Route::new(destination, Via::Link(DEVICE));
        host.configure(|netlink| netlink.add_route(&route))?;
    }
    Ok(())
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

fn settings(end: &End<'_>) -> String {
    let preshared = end.preshared.map_or(String::new(), |key| {
        format!("PresharedKey = {}\n", &*key.to_base64())
    });
    let endpoint = match end.endpoint {
        "" => String::new(),
        endpoint => format!("Endpoint = {endpoint}\n"),
    };
    format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n{preshared}\
         AllowedIPs = {}\n{endpoint}",
        &*end.key.to_base64(),
        end.other,
        end.prefixes.join(", "),
    )
}

fn configure(
    (spawner, host, scratch): (&Spawner, &Arc<Host>, &Scratch),
    process: &Background,
    name: &str,
    settings: &str,
) -> Result<(), Error> {
    let file = scratch.write(name, settings)?;
    let mounts = format!("--mount=/proc/{}/ns/mnt", process.pid());
    let file = file.to_string_lossy();
    let words = ["nsenter", &mounts, "wg", "setconf", DEVICE, &file];
    let done = program::run(spawner, host, Duration::from_secs(10), &words)?;
    if done.success {
        return Ok(());
    }
    Err(Error::Gateway {
        name: name.into(),
        found: format!("wg setconf failed: {}", done.err),
        log: process.said(),
    })
}
