//! The rates of a SKU, held by two gateways in a row against TCP and a flood of UDP. How near the rate they
//! come is printed (`cargo test -- --nocapture`): a busy machine may not offer enough. That they never let
//! more through is asserted.

use crate::program::{announce, present};
use crate::stage::{Family, Pair, Stage, Way};
use crate::traffic::Iperf;
use integration::config::Tagging;
use integration::gateway::Gateway;
use std::time::{Duration, Instant};

/// What is looked at, after a second in which TCP finds its rate.
const WARM: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(2);

#[test]
fn a_vpn_gateway_of_100_mbps_holds_its_rate() {
    let way = Way::Tunnel(Family::V4);
    shaped(way, "Basic", 100_000_000, None);
}

#[test]
fn an_expressroute_gateway_of_1_gbps_holds_its_rates() {
    let way = Way::Link(Tagging::Untagged, 1_500);
    shaped(way, "Standard", 1_000_000_000, Some(100_000));
}

fn shaped(way: Way, sku: &str, bits: u64, packets: Option<u64>) {
    if !present(&["iperf3"]) {
        return;
    }
    let stage = Stage::new();
    let pair = stage.pair(way, ["", ""]);
    let iperf = Iperf::new(&stage, &pair.hosts);
    // The SKU comes with a reload: nothing is lost for that.
    for gateway in &pair.gateways {
        set_sku(&stage, gateway, sku);
    }
    let loads: [(&str, &[&str]); 4] = [
        ("TCP", &["-t", "4"]),
        ("TCP, the other way", &["-t", "4", "-R"]),
        ("UDP, 1,200 B", &["-t", "4", "-u", "-b", "0", "-l", "1200"]),
        ("UDP, 64 B", &["-t", "4", "-u", "-b", "0", "-l", "36"]),
    ];
    for (name, options) in loads {
        let seen = std::thread::scope(|scope| {
            let seen = scope.spawn(|| {
                std::thread::sleep(WARM);
                measure(&stage, &pair)
            });
            iperf.run(Family::V4, options);
            seen.join().unwrap()
        });
        for (gateway, rate) in ["first", "second"].into_iter().zip(seen) {
            let of = |rate: f64, limit: Option<u64>| limit.map_or(0.0, |limit| rate / limit as f64);
            let share = of(rate.bits, Some(bits)).max(of(rate.packets, packets));
            announce(&format!(
                "{sku}, {name}, {gateway} gateway: {:.1} Mbps, {:.0} packets/s, {:.1} % of the limit",
                rate.bits / 1e6,
                rate.packets,
                share * 100.0
            ));
            assert!(share <= 1.02, "{sku}, {name}: {share} of the limit");
            // A flood whose generator, or whose gateway, waits for a processor says nothing about the shaper.
            let enough = if name.contains("UDP") { 0.01 } else { 0.2 };
            assert!(share >= enough, "{sku}, {name}: {share} of the limit");
        }
    }
    for gateway in &pair.gateways {
        set_sku(&stage, gateway, "Unlimited");
    }
    drop(iperf);
    let expected = [
        "gateway_bandwidth",
        "gateway_packet_rate",
        "too_big",
        "transmit_queue_full",
    ];
    pair.finish(&stage, &expected);
}

/// What left a gateway in a second, both ways.
struct Rate {
    bits: f64,
    packets: f64,
}

/// What both gateways let through within a window, from their ledgers.
fn measure(stage: &Stage, pair: &Pair) -> [Rate; 2] {
    let sent = |gateway: &Gateway| {
        let counters = stage.show(gateway, "counters");
        let ports = counters["sent"].as_object().unwrap();
        // What the gateway took for itself is not shaped.
        let shaped = ports.iter().filter(|(port, _)| *port != "local");
        shaped.fold((0, 0), |(packets, bytes), (_, sum)| {
            let [p, b] = ["packets", "bytes"].map(|of| sum[of].as_u64().unwrap());
            (packets + p, bytes + b)
        })
    };
    // The clock is read outside of both looks: the rate that it gives is never too high.
    let begin = pair.gateways.each_ref().map(|gateway| {
        let at = Instant::now();
        (at, sent(gateway))
    });
    std::thread::sleep(WINDOW);
    let [first, second] = &pair.gateways;
    let [a, b] = begin;
    [(first, a), (second, b)].map(|(gateway, (at, (packets, bytes)))| {
        let (packets_now, bytes_now) = sent(gateway);
        let seconds = at.elapsed().as_secs_f64();
        Rate {
            bits: (bytes_now - bytes) as f64 * 8.0 / seconds,
            packets: (packets_now - packets) as f64 / seconds,
        }
    })
}

/// Gives a running gateway another SKU, and waits until that is in force.
fn set_sku(stage: &Stage, gateway: &Gateway, sku: &str) {
    let text = std::fs::read_to_string(gateway.config()).unwrap();
    let line = |line: &str| {
        if line.starts_with("sku") {
            format!("sku = \"{sku}\"\n")
        } else {
            format!("{line}\n")
        }
    };
    let with: String = text.lines().map(line).collect();
    let name = gateway.config().file_name().unwrap().to_str().unwrap();
    stage.scratch.write(name, &with).unwrap();
    let said = stage.vng(gateway, &["reload"]);
    assert!(said.contains("rates of the SKUs"), "{said}");
}
