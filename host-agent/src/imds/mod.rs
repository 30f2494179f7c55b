// SPDX-License-Identifier: Apache-2.0
//! EC2's metadata service, version 2 only: PUT for a token, GET with it. Tries
//! again what can pass, within a budget, and nothing that cannot. Never looks
//! into the user data; how bytes go over the wire is `http.rs`, so that the
//! rules here are tested without time or network.

pub mod eni;
pub mod firmware;
mod http;
pub mod interface;
mod outside;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, mem};

use thiserror::Error;

pub use http::Host;
pub use outside::{ImdsAnswer, ImdsRequest, MOST_BYTES, Outside, Silence};

/// IPv4 and IPv6; link-local, so only the host's own hypervisor can answer.
const ENDPOINTS: [&str; 2] = ["http://169.254.169.254", "http://[fd00:ec2::254]"];

/// Whether that is where IMDS is.
pub fn is_endpoint(address: &SocketAddr) -> bool {
    let url = format!("http://{address}");
    ENDPOINTS.iter().any(|endpoint| url == format!("{endpoint}:80"))
}
const TOKEN_PATH: &str = "/latest/api/token";
const USER_DATA_PATH: &str = "/latest/user-data";

/// For one request, from connecting to the last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// While no endpoint can be reached: no server is asked too often, and the node's boot waits for this.
const NETWORK_PAUSE: Duration = Duration::from_millis(50);
/// With less of the budget left no further try is worth it.
const SHORTEST_TRY: Duration = Duration::from_millis(100);

#[derive(Debug, Error)]
pub enum ImdsError {
    #[error(
        "403 from {url}: IMDS is switched off for this instance (metadata option HttpEndpoint)"
    )]
    Off { url: String },
    #[error("{status} from {url}, expected 200")]
    Refused { status: u16, url: String },
    #[error("no usable answer within {budget} s (tries: {tries})")]
    BudgetSpent { budget: f64, tries: usize, source: Faults },
    #[error("no usable answer")]
    Silent(#[source] Faults),
}

/// What may pass by itself, from each endpoint that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Faults(Vec<Fault>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Status { status: u16, url: String },
    Silence { silence: Silence, url: String },
}

enum Failure {
    Passing(Fault),
    Final(ImdsError),
}

impl Faults {
    /// Nothing was sent: there is no route, or not yet.
    fn want_network(&self) -> bool {
        let unreachable = |fault: &Fault| {
            matches!(fault, Fault::Silence { silence: Silence::Unreachable(_), .. })
        };
        self.0.iter().all(unreachable)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, url } => write!(f, "{status} from {url}"),
            Self::Silence { silence: Silence::Broken(why) | Silence::Unreachable(why), url } => {
                write!(f, "{why} from {url}")
            }
            Self::Silence { silence: Silence::Timeout(after), url } => {
                write!(f, "no answer in {} s from {url}", seconds(*after))
            }
        }
    }
}

/// From three quarters to five quarters of it, so that a cluster's nodes do not ask in step.
pub fn jittered(pause: Duration, outside: &mut impl Outside) -> Duration {
    pause.mul_f64(0.75 + outside.chance() / 2.0)
}

/// The user data as it is, or None if the instance has none.
pub fn user_data(
    budget: Duration,
    outside: &mut impl Outside,
) -> Result<Option<Vec<u8>>, ImdsError> {
    let mut client = Client::new(budget, outside);
    let found = client.get(USER_DATA_PATH)?;
    let url = client.url(USER_DATA_PATH);
    match found {
        Some(_) => log::info!("user data from {url}"),
        None => log::info!("imds: 404 from {url}: this instance has no user data"),
    }
    Ok(found)
}

/// One look at the service, at one path or several, within a budget of time for all.
pub struct Client<'c, O> {
    /// Those that may answer; one alone as soon as it did.
    endpoints: &'static [&'static str],
    /// Served the last request well.
    token: Option<String>,
    budget: Duration,
    end: Duration,
    /// Whether what can pass is tried again.
    insists: bool,
    outside: &'c mut O,
}

impl<'c, O: Outside> Client<'c, O> {
    pub fn new(budget: Duration, outside: &'c mut O) -> Self {
        let end = outside.now() + budget;
        Self { endpoints: &ENDPOINTS, token: None, budget, end, insists: true, outside }
    }

    /// For a caller that comes again in a minute: nothing is tried a second time, and no try is logged.
    pub fn once(budget: Duration, outside: &'c mut O) -> Self {
        Self { insists: false, ..Self::new(budget, outside) }
    }

    /// What there is at this path; None if the service knows of nothing there.
    pub fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>, ImdsError> {
        let mut pause = FIRST_PAUSE;
        let mut had_network = true;
        for tries in 1.. {
            let source = match self.try_once(path)? {
                Ok(found) => return Ok(found),
                Err(faults) if !self.insists => return Err(ImdsError::Silent(faults)),
                Err(faults) => faults,
            };
            let left = self.left();
            if left < SHORTEST_TRY {
                let budget = seconds(self.budget);
                return Err(ImdsError::BudgetSpent { budget, tries, source });
            }
            if source.want_network() {
                if mem::replace(&mut had_network, false) {
                    log::warn!("imds: {source}, again until there is a network");
                }
                self.outside.sleep(NETWORK_PAUSE);
                continue;
            }
            had_network = true;
            let jittered = pause.mul_f64((1.0 + self.outside.chance()) / 2.0).min(left / 2);
            log::warn!("imds: {source}, again in {:.1} s", jittered.as_secs_f64());
            self.outside.sleep(jittered);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(None)
    }

    /// Where a path is found, once an endpoint has answered.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoints[0])
    }

    fn left(&self) -> Duration {
        self.end.saturating_sub(self.outside.now())
    }

    /// Each endpoint in turn; the outer error is final, the inner one may pass.
    fn try_once(&mut self, path: &str) -> Result<Result<Option<Vec<u8>>, Faults>, ImdsError> {
        let mut faults = Vec::new();
        for endpoint in self.endpoints {
            let asked = self.ask(endpoint, path);
            if !matches!(asked, Err(Failure::Passing(Fault::Silence { .. }))) {
                self.endpoints = std::slice::from_ref(endpoint);
            }
            match asked {
                Ok(found) => return Ok(Ok(found)),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(fault @ Fault::Status { .. })) => {
                    return Ok(Err(Faults(vec![fault])));
                }
                Err(Failure::Passing(fault)) => faults.push(fault),
            }
        }
        Ok(Err(Faults(faults)))
    }

    /// A token that ran out on the way is replaced once.
    fn ask(&mut self, endpoint: &str, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let url = format!("{endpoint}{path}");
        let mut answer = self.get_with_token(endpoint, &url)?;
        if answer.status == 401 {
            log::info!("imds: 401 from {url}, again with a new token");
            answer = self.get_with_token(endpoint, &url)?;
        }
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            401 => Err(Failure::Passing(Fault::Status { status: 401, url })),
            status => Err(failure(status, url)),
        }
    }

    /// A token is kept as long as all is well with it.
    fn get_with_token(&mut self, endpoint: &str, url: &str) -> Result<ImdsAnswer, Failure> {
        let token = match self.token.take() {
            Some(token) => token,
            None => self.new_token(endpoint)?,
        };
        let answer = self.send(ImdsRequest { url: url.to_owned(), token: Some(&token) })?;
        self.token = matches!(answer.status, 200 | 404).then_some(token);
        Ok(answer)
    }

    fn new_token(&mut self, endpoint: &str) -> Result<String, Failure> {
        let url = format!("{endpoint}{TOKEN_PATH}");
        let answer = self.send(ImdsRequest { url: url.clone(), token: None })?;
        match answer.status {
            200 => Ok(String::from_utf8_lossy(&answer.body).trim().to_owned()),
            status => Err(failure(status, url)),
        }
    }

    fn send(&mut self, request: ImdsRequest) -> Result<ImdsAnswer, Failure> {
        let timeout = self.left().clamp(SHORTEST_TRY, REQUEST_TIMEOUT);
        let url = &request.url;
        let silent = |silence| Failure::Passing(Fault::Silence { silence, url: url.clone() });
        self.outside.send(&request, timeout).map_err(silent)
    }
}

/// What a status other than the wanted one means.
fn failure(status: u16, url: String) -> Failure {
    match status {
        408 | 429 | 500..=599 => Failure::Passing(Fault::Status { status, url }),
        403 => Failure::Final(ImdsError::Off { url }),
        _ => Failure::Final(ImdsError::Refused { status, url }),
    }
}

/// Rounded to tenths; prints without needless zeros.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
