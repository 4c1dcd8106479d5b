//! What the control socket answers: plain values that serialise to the JSON of `vng show ... --json`
//! and `vng explain --json`, and that the command line makes tables of.
//!
//! A name ends with its unit: `_seconds`, `_ms`, `_bps` (bits/s), `_pps` (packets/s), `_unix_ms` for a point in
//! time; sizes are bytes of IP packets. docs/json.md has every key. Words are Azure's
//! (docs/azure.md, section 8) and WireGuard's. Fields may be added; those that are there keep their names and shape.

mod change;
mod explanation;
mod flow;
mod path;
mod route;
mod status;

pub use change::{GatewayKind, Loss, Recreated, ReloadReport, Resize, ResizeReport};
pub use explanation::{
    Alternative, ExplainedRoute, Explanation, FlowLimit, MemberHealth, MemberView, Query, Rejected,
    ShaperLimit, WouldChange,
};
pub use flow::{Counters, FlowCount, FlowView, Flows};
pub use path::{BgpView, CircuitView, ClientView, LaneView, LinkView, NeighborView, TunnelView};
pub use route::{PolicyView, RouteFilter, RouteView};
pub use status::{
    Event, GatewayStatus, HostProblem, HostStatus, LimitUse, PathStatus, ProbeStatus, Status,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ledger::{Sum, Totals};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[test]
    fn counters_have_the_published_shape() {
        let one = Sum {
            packets: 1,
            bytes: 60,
        };
        let mut totals = Totals::default();
        totals.received.insert("vnet".into(), one);
        totals.dropped.insert("no_route".into(), one);
        let json = serde_json::to_value(Counters::new(totals, BTreeMap::new())).unwrap();
        assert_eq!(json["received"]["vnet"], json!({"packets": 1, "bytes": 60}));
        assert_eq!(json["dropped"]["no_route"]["packets"], 1);
        assert_eq!(json["sent"], json!({}));
        assert_eq!(json["held"], 0);
        assert_eq!(json["balanced"], true);
    }

    #[test]
    fn an_explanation_has_the_published_shape() {
        let explanation = Explanation {
            verdict: "forward".into(),
            route: Some(ExplainedRoute {
                prefix: "10.2.0.0/16".parse().unwrap(),
                source: "static".into(),
            }),
            rejected: vec![
                Rejected {
                    what: Alternative::Route("10.2.0.0/16 vpn".into()),
                    why: "ExpressRoute wins".into(),
                },
                Rejected {
                    what: Alternative::Path("onprem".into()),
                    why: "down".into(),
                },
            ],
            ..Explanation::default()
        };
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(json["policy"], Value::Null);
        assert_eq!(json["member"], Value::Null);
        assert_eq!(
            json["route"],
            json!({"prefix": "10.2.0.0/16", "source": "static"})
        );
        assert_eq!(
            json["rejected"],
            json!([{"route": "10.2.0.0/16 vpn", "why": "ExpressRoute wins"},
                   {"path": "onprem", "why": "down"}])
        );
        assert_eq!(
            serde_json::from_value::<Explanation>(json).unwrap(),
            explanation
        );
    }
}
