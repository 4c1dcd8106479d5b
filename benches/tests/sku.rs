//! The table that `cargo bench` ends with, made with so few packets that its figures mean nothing: that it
//! can be made, that no packet is lost on the way, and that all of it is there.

#![allow(clippy::unwrap_used)]

use benches::sku::rate::{Effort, Way, measure};
use benches::sku::report::Report;
use benches::sku::tier::tiers;
use benches::sku::traffic::{Form, Size};

#[test]
fn every_way_and_every_sku_is_in_the_table_and_its_files() {
    let mut steps = Vec::new();
    // An error if a packet that went in did not come out.
    let rates = measure(Effort::TINY, |way, size, form| {
        steps.push((way, size, form));
    })
    .unwrap();
    assert_eq!(rates.len(), steps.len());
    for way in Way::ALL {
        for size in Size::ALL {
            assert!(
                steps.contains(&(way, size, Form::Single)),
                "{way:?} {size:?}"
            );
        }
        assert!(steps.contains(&(way, Size::Large, Form::Super)), "{way:?}");
    }
    assert!(
        rates
            .iter()
            .all(|rate| rate.nanoseconds > 0.0 && rate.bits_per_second > 0.0)
    );
    // 7 packets of 46 bytes, 4 of 576, 1 of 1,500; 1,420 in a tunnel.
    for rate in rates.iter().filter(|rate| rate.size == Size::Imix) {
        let longest = if matches!(rate.way, Way::VpnOut | Way::VpnIn) {
            1_420.0
        } else {
            1_500.0
        };
        let mean = (7.0 * 46.0 + 4.0 * 576.0 + longest) / 12.0;
        assert!((rate.packet_bytes - mean).abs() < 20.0, "{rate:?}");
    }

    let directory = tempfile::tempdir().unwrap();
    let report = Report::new(rates, Effort::TINY);
    assert_eq!(report.skus.len(), tiers().len() * Size::ALL.len());
    report.write(directory.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let text = read("table.txt");
    for tier in tiers() {
        assert!(text.contains(&tier.name), "{}", tier.name);
    }
    let json: serde_json::Value = serde_json::from_str(&read("table.json")).unwrap();
    assert_eq!(json["skus"].as_array().unwrap().len(), report.skus.len());
    assert!(json["skus"][0]["cores"].is_u64());
    for name in [
        "rates",
        "headroom-expressroute",
        "headroom-vpn",
        "headroom-tunnel",
    ] {
        let picture = read(&format!("{name}.svg"));
        assert!(picture.starts_with("<svg ") && picture.contains("http://www.w3.org/2000/svg"));
        assert!(
            !picture.contains("NaN") && !picture.contains("inf"),
            "{name}"
        );
    }
}
