// SPDX-License-Identifier: Apache-2.0
//! The agent's local API: which request means what. It knows neither sockets
//! (http/) nor how a thing is done ([`Node`]).

pub mod client;
pub mod http;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use settings_model::Limit as Choice;

use crate::api::http::{Door, Method, Request, Response};
use crate::pod::asked::Override;
use crate::pod::time_to_live::{self, TimeToLive};
use crate::settings::in_force::InForce;
use crate::status::{Pods, Status, metrics};

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the API does, done by the agent.
pub trait Node {
    fn status(&self) -> Result<Status>;
    /// Gives the number of interfaces; fails with [`LimitRefused`] where the request cannot be met.
    fn set_limit(&mut self, namespace: &str, pod: &str, limit: Override) -> Result<usize>;
    /// The same, for the end of a limit.
    fn clear_limit(&mut self, namespace: &str, pod: &str) -> Result<usize>;
    fn reload(&mut self) -> Result<Reloaded>;
    /// As OpenMetrics text.
    fn metrics(&mut self) -> Result<String>;
    /// Seconds since 1970.
    fn now(&self) -> u64;
}

/// Why a limit was not set or cleared, where that is not trouble with the node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LimitRefused {
    #[error("no pod {namespace}/{pod} on this node")]
    NoPod { namespace: String, pod: String },
    #[error("shaping is off: bandwidth.enabled is false in the settings in force")]
    ShapingIsOff,
}

/// What a reload has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What `sluice reload` exits with: 0, 1, or 78 for settings that cannot be used.
    pub exit_status: u8,
    /// A line for each problem.
    pub problems: Vec<String>,
    /// What applies now.
    pub settings: Option<InForce>,
    /// Files that were not yet as they should be; an agent of an earlier version does not say.
    #[serde(default)]
    pub written: Option<usize>,
}

impl Reloaded {
    /// One line for people; nothing where something else was said instead.
    pub fn to_text(&self) -> String {
        let (0, Some(settings)) = (self.exit_status, &self.settings) else { return String::new() };
        let written = match self.written {
            None => "reloaded".into(),
            Some(0) => "no changes".into(),
            Some(1) => "1 file written".into(),
            Some(several) => format!("{several} files written"),
        };
        format!("{written}; in force: {}\n", settings.to_text())
    }
}

/// What came of setting or clearing a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSet {
    /// Interfaces of the pod that were changed.
    pub interfaces: usize,
    /// Seconds since 1970 at which the limit ends; None if it was cleared.
    pub until: Option<u64>,
}

/// A limit as a request has it. A direction that is null or absent has no override.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitAsked {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub time_to_live: Option<String>,
}

/// All routes, for requests of another one.
const ROUTES: [&str; 6] = [
    "GET /v1/status",
    "GET /v1/pods",
    "PUT /v1/pods/NAMESPACE/POD/limit",
    "DELETE /v1/pods/NAMESPACE/POD/limit",
    "POST /v1/reload",
    "GET /metrics",
];

/// A path that we know.
#[derive(Debug, PartialEq, Eq)]
enum Route<'r> {
    Status,
    Pods,
    Limit { namespace: &'r str, pod: &'r str },
    Reload,
    Metrics,
}

/// Whatever is asked, there is a response.
pub fn answer(node: &mut dyn Node, request: &Request) -> Response {
    let route = match (Route::of(&request.path), request.door) {
        (Some(route), Door::Socket) => route,
        (Some(Route::Metrics), Door::Metrics) => Route::Metrics,
        (_, door) => return not_found(&request.path, door),
    };
    // The body of HEAD's response is left out where it is sent.
    let method = if request.method == Method::Head { &Method::Get } else { &request.method };
    let result = match (&route, method) {
        (Route::Status, Method::Get) => node.status().map(|all| ok(&all)),
        (Route::Pods, Method::Get) => node.status().map(|all| ok(&Pods::of(all))),
        (Route::Limit { namespace, pod }, Method::Put) => match limit(&request.body, node.now()) {
            Ok(limit) => set(node.set_limit(namespace, pod, limit), Some(limit.until)),
            Err(response) => Ok(response),
        },
        (Route::Limit { namespace, pod }, Method::Delete) => {
            set(node.clear_limit(namespace, pod), None)
        }
        (Route::Reload, Method::Post) => node.reload().map(|reloaded| ok(&reloaded)),
        (Route::Metrics, Method::Get) => {
            node.metrics().map(|text| in_format_of_peer(text, request.accepts_openmetrics))
        }
        _ => return wrong_method(&route, &request.method),
    };
    result.unwrap_or_else(|e| Response::error(500, &format!("{e:#}")))
}

impl<'r> Route<'r> {
    /// Names of pods and namespaces need no encoding, so nothing is decoded.
    fn of(path: &'r str) -> Option<Self> {
        // Nothing can be asked for behind a question mark, and some add one.
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match parts.as_slice() {
            ["metrics"] => Some(Self::Metrics),
            ["v1", "status"] => Some(Self::Status),
            ["v1", "pods"] => Some(Self::Pods),
            ["v1", "reload"] => Some(Self::Reload),
            ["v1", "pods", namespace, pod, "limit"] if is_name(namespace) && is_name(pod) => {
                Some(Self::Limit { namespace, pod })
            }
            _ => None,
        }
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Pods | Self::Metrics => &["GET", "HEAD"],
            Self::Limit { .. } => &["PUT", "DELETE"],
            Self::Reload => &["POST"],
        }
    }
}

/// What Kubernetes calls a DNS subdomain.
fn is_name(text: &str) -> bool {
    let of_names =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(of_names)
}

/// The limit of a request's body, or what is wrong with that.
fn limit(body: &[u8], now: u64) -> Result<Override, Response> {
    let asked: LimitAsked = serde_json::from_slice(body).map_err(|e| {
        let allowed = json!({
            "egress": CHOICE, "ingress": CHOICE, "for": time_to_live::ALLOWED,
        });
        Response::not_allowed(400, &format!("read the limit: {e}"), &allowed)
    })?;
    let Some(text) = &asked.time_to_live else {
        return Err(Response::not_allowed(400, "for is missing", &json!(time_to_live::ALLOWED)));
    };
    let refused = |e: &dyn std::fmt::Display, key| {
        Response::not_allowed(400, &format!("{key}: {e}"), &json!(time_to_live::ALLOWED))
    };
    let time_to_live: TimeToLive = text.parse().map_err(|e| refused(&e, "for"))?;
    let (egress, ingress) = (choice("egress", asked.egress)?, choice("ingress", asked.ingress)?);
    if egress.is_none() && ingress.is_none() {
        return Err(Response::not_allowed(
            400,
            "neither egress nor ingress is given",
            &json!(CHOICE),
        ));
    }
    Ok(Override { egress, ingress, until: now.saturating_add(time_to_live.seconds()) })
}

const CHOICE: &str = "a rate, e.g. \"20Mbit\", or \"unlimited\"";

fn choice(key: &str, text: Option<String>) -> Result<Option<Choice>, Response> {
    let parsed = text.map(|text| text.parse::<Choice>()).transpose();
    parsed.map_err(|e| Response::not_allowed(400, &format!("{key}: {e}"), &json!(CHOICE)))
}

fn set(result: Result<usize>, until: Option<u64>) -> Result<Response> {
    let refused = match result {
        Ok(interfaces) => return Ok(ok(&LimitSet { interfaces, until })),
        Err(e) => e.downcast::<LimitRefused>()?,
    };
    let status = match refused {
        LimitRefused::NoPod { .. } => 404,
        LimitRefused::ShapingIsOff => 409,
    };
    Ok(Response::error(status, &refused.to_string()))
}

fn ok(value: &impl Serialize) -> Response {
    Response::json(200, value)
}

fn not_found(path: &str, door: Door) -> Response {
    let allowed: Value = match door {
        Door::Socket => json!(ROUTES),
        Door::Metrics => json!(["GET /metrics"]),
    };
    Response::not_allowed(404, &format!("nothing is at {path}"), &allowed)
}

fn wrong_method(route: &Route, method: &Method) -> Response {
    let error = format!("{} cannot be done here", method.name());
    Response::not_allowed(405, &error, &json!(route.methods()))
}

/// In the format that the peer takes.
fn in_format_of_peer(text: String, openmetrics: bool) -> Response {
    match openmetrics {
        true => Response::text(OPENMETRICS, text),
        false => Response::text(METRICS, metrics::older_format(&text)),
    }
}

#[cfg(test)]
mod tests;
