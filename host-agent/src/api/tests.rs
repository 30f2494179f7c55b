// SPDX-License-Identifier: Apache-2.0
//! Requests and their answers, against a node that notes its orders.

use super::*;
use crate::status::text::tests::{pod, status};

#[derive(Default)]
struct Noting {
    orders: Vec<String>,
}

impl Node for Noting {
    fn status(&self) -> Result<Status> {
        Ok(status(vec![pod()]))
    }

    fn set_limit(&mut self, namespace: &str, pod: &str, limit: Override) -> Result<usize> {
        self.orders.push(format!("{namespace}/{pod} {limit:?}"));
        match pod {
            "gone" => {
                Err(LimitRefused::NoPod { namespace: namespace.into(), pod: pod.into() }.into())
            }
            "off" => Err(LimitRefused::ShapingIsOff.into()),
            "broken" => Err(anyhow::anyhow!("no").context("write")),
            _ => Ok(2),
        }
    }

    fn clear_limit(&mut self, _: &str, _: &str) -> Result<usize> {
        Ok(0)
    }

    fn reload(&mut self) -> Result<Reloaded> {
        Ok(Reloaded { exit_status: 78, ..Reloaded::default() })
    }

    fn metrics(&mut self) -> Result<String> {
        Ok("# EOF\n".into())
    }

    fn now(&self) -> u64 {
        1000
    }
}

fn ask_at(door: Door, method: Method, path: &str, body: &str) -> (u16, String) {
    let request = Request {
        method,
        path: path.into(),
        body: body.as_bytes().to_vec(),
        accepts_openmetrics: true,
        door,
    };
    let response = answer(&mut Noting::default(), &request);
    (response.status, String::from_utf8(response.body).unwrap().trim_end().to_owned())
}

fn put(body: &str) -> (u16, String) {
    ask_at(Door::Socket, Method::Put, "/v1/pods/default/web/limit", body)
}

#[test]
fn limit_reaches_the_node_with_its_end() {
    let body = br#"{"egress": "20Mbit", "ingress": null, "for": "10m"}"#.to_vec();
    let request = Request {
        method: Method::Put,
        path: "/v1/pods/default/web-0.a/limit".into(),
        body,
        accepts_openmetrics: false,
        door: Door::Socket,
    };
    let mut node = Noting::default();
    let response = answer(&mut node, &request);
    let live = Override { egress: "20Mbit".parse().ok(), ingress: None, until: 1600 };
    assert_eq!(node.orders, [format!("default/web-0.a {live:?}")]);
    assert_eq!(response, Response::json(200, &json!({"interfaces": 2, "until": 1600})));
}

#[test]
fn limit_that_cannot_be_set_is_told_with_what_can() {
    let rate = r#""allowed":"a rate, e.g. \"20Mbit\", or \"unlimited\"""#;
    let time = r#""allowed":"a whole number with s, m, h or d, e.g. \"10m\"; 1s to 7d""#;
    let table = [
        (r#"{"egress":"1Mbit"}"#, format!(r#"{time},"error":"for is missing""#)),
        (
            r#"{"egress":"1Mbit","for":"1w"}"#,
            format!(
                r#"{time},"error":"for: \"1w\" is not a time; use a whole number with s, m, h or d, e.g. 10m""#
            ),
        ),
        (
            r#"{"egress":"1Mbit","for":"8d"}"#,
            format!(r#"{time},"error":"for: \"8d\" is out of range; use 1s to 7d""#),
        ),
        (r#"{"for":"1m"}"#, format!(r#"{rate},"error":"neither egress nor ingress is given""#)),
    ];
    for (body, expected) in table {
        assert_eq!(put(body), (400, format!("{{{expected}}}")));
    }
    let (status, text) = put(r#"{"egress":"1Mb","for":"1m"}"#);
    assert!(
        status == 400 && text.contains(r#""error":"egress: \"1Mb\" has an unknown unit"#),
        "{text}"
    );
    let (status, text) = put(r#"{"egress":"1Mbit","fro":"1m"}"#);
    assert!(status == 400 && text.contains("unknown field `fro`"), "{text}");
    assert!(text.contains(r#""for":"a whole number"#), "{text}");
    assert_eq!(put("[").0, 400);
    assert_eq!(put("").0, 400);
}

#[test]
fn node_that_refuses_is_told_apart_from_one_in_trouble() {
    let body = r#"{"ingress":"unlimited","for":"1s"}"#;
    let put = |pod: &str| {
        ask_at(Door::Socket, Method::Put, &format!("/v1/pods/default/{pod}/limit"), body)
    };
    assert_eq!(put("gone"), (404, r#"{"error":"no pod default/gone on this node"}"#.into()));
    let off = "shaping is off: bandwidth.enabled is false in the settings in force";
    assert_eq!(put("off"), (409, format!(r#"{{"error":"{off}"}}"#)));
    assert_eq!(put("broken"), (500, r#"{"error":"write: no"}"#.into()));
}

#[test]
fn query_changes_nothing_and_head_is_as_get() {
    for (method, path) in [
        (Method::Get, "/metrics?x=1"),
        (Method::Get, "/metrics?"),
        (Method::Head, "/metrics"),
        (Method::Head, "/metrics?name[]=a&b=/c"),
    ] {
        let door = Door::Metrics;
        assert_eq!(ask_at(door, method, path, ""), (200, "# EOF".into()), "{path}");
    }
    assert_eq!(ask_at(Door::Socket, Method::Get, "/v1/status?a", "").0, 200);
    assert_eq!(ask_at(Door::Metrics, Method::Get, "/v1/status?/metrics", "").0, 404);
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    for path in
        ["/", "", "/v1", "/v1/pods/", "/v1/?status", "/v1/pods/a/b/limit/", "/v1/pods//b/limit"]
    {
        let (status, text) = ask_at(Door::Socket, Method::Get, path, "");
        assert!(status == 404 && text.contains("GET /v1/status"), "{path}: {text}");
    }
    let (status, text) = ask_at(Door::Socket, Method::Get, "/v1/pods/a/b/limit", "");
    let allowed = r#"{"allowed":["PUT","DELETE"],"error":"GET cannot be done here"}"#;
    assert_eq!((status, text.as_str()), (405, allowed));
}

#[test]
fn door_of_metrics_leads_to_nothing_else() {
    let metrics = ask_at(Door::Metrics, Method::Get, "/metrics", "");
    assert_eq!(metrics, (200, "# EOF".into()));
    for path in ["/v1/status", "/v1/pods", "/v1/reload", "/v1/pods/a/b/limit"] {
        for method in [Method::Get, Method::Put, Method::Post, Method::Delete] {
            assert_eq!(ask_at(Door::Metrics, method, path, "{}").0, 404);
        }
    }
}

#[test]
fn status_and_pods_are_what_the_node_says() {
    let (_, text) = ask_at(Door::Socket, Method::Get, "/v1/pods", "");
    let pods: Pods = serde_json::from_str(&text).unwrap();
    assert_eq!(pods.pods, [pod()]);
    let (_, text) = ask_at(Door::Socket, Method::Get, "/v1/status", "");
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status(vec![pod()]));
}
