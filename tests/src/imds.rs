// SPDX-License-Identifier: Apache-2.0
//! A double of EC2's metadata service, version 2: HTTP/1.1 over TCP, a token
//! for PUT, user data and metadata for GET with it. It lives in the node's network
//! namespace, at the real addresses on `lo`. Each request takes one step of a
//! script; after its end everything works. Metadata can change at any time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::command::ip;

/// Where EC2 has it.
#[derive(Clone, Copy, Debug)]
pub enum Address {
    V4,
    V6,
}

/// What one request meets.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Works,
    /// The service answers with this status, whatever is asked.
    Status(u16),
    /// Works after a while.
    Late(Duration),
    /// The request is read, an answer never comes.
    Hang,
    /// The connection is reset before any answer.
    Reset,
    /// The answer ends after so many bytes of its body, and so does the connection.
    Breaks(usize),
    /// A PUT gives a token that runs out at once.
    ShortToken,
}

pub struct Imds {
    service: Arc<Service>,
    listener: Option<JoinHandle<()>>,
}

struct Service {
    user_data: Option<Vec<u8>>,
    /// By their paths below `/latest/meta-data/`.
    metadata: Mutex<BTreeMap<String, String>>,
    /// What every request is answered with, once the script is at its end.
    status: Mutex<Option<u16>>,
    script: Mutex<VecDeque<Step>>,
    /// When each token runs out.
    tokens: Mutex<HashMap<String, Instant>>,
    requests: Mutex<Vec<String>>,
    stops: AtomicBool,
}

impl Imds {
    /// Up at once.
    pub fn start(address: Address, user_data: Option<&[u8]>, script: &[Step]) -> Self {
        Self::start_after(Duration::ZERO, address, user_data, script)
    }

    /// The address is there at once; until this time is over connections are refused.
    pub fn start_after(
        delay: Duration,
        address: Address,
        user_data: Option<&[u8]>,
        script: &[Step],
    ) -> Self {
        let socket = put_on_loopback(address);
        let service = Arc::new(Service::new(user_data, script));
        let bind = move || TcpListener::bind(socket).expect("listen at the address of IMDS");
        // Bound before the first caller comes, unless it is to come too early.
        let bound = delay.is_zero().then(bind);
        let of_thread = Arc::clone(&service);
        let listener = thread::spawn(move || {
            of_thread.wait(delay);
            accept(&of_thread, &bound.unwrap_or_else(bind));
        });
        Self { service, listener: Some(listener) }
    }

    /// Up at once on a port of this machine, for a carrier of a guest's connections there.
    pub fn on_port(user_data: Option<&[u8]>) -> (Self, u16) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("listen on this machine");
        let port = socket.local_addr().expect("a port").port();
        let service = Arc::new(Service::new(user_data, &[]));
        let of_thread = Arc::clone(&service);
        let listener = thread::spawn(move || accept(&of_thread, &socket));
        (Self { service, listener: Some(listener) }, port)
    }

    /// From now on this is the text at a path below `/latest/meta-data/`.
    pub fn set(&self, path: &str, text: &str) {
        lock(&self.service.metadata).insert(path.into(), text.into());
    }

    /// From now on there is nothing at that path.
    pub fn unset(&self, path: &str) {
        lock(&self.service.metadata).remove(path);
    }

    /// From now on every request is answered with this status; None: as it should be.
    pub fn answer_all(&self, status: Option<u16>) {
        *lock(&self.service.status) = status;
    }

    /// The next requests meet these; after them everything is as before.
    pub fn play(&self, script: &[Step]) {
        lock(&self.service.script).extend(script);
    }

    /// The requests so far, as `PUT /latest/api/token 200`; no number where nothing was answered.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.service.requests).clone()
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.service.stops.store(true, Ordering::Relaxed);
        let ended = self.listener.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("a thread").expect("the double of IMDS ends well");
        }
    }
}

fn put_on_loopback(address: Address) -> &'static str {
    match address {
        Address::V4 => {
            ip("addr add 169.254.169.254/32 dev lo");
            "169.254.169.254:80"
        }
        Address::V6 => {
            ip("-6 addr add fd00:ec2::254/128 dev lo nodad");
            "[fd00:ec2::254]:80"
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the double panicked")
}

/// A thread for each connection: a client that gave up on one comes with another.
fn accept(service: &Arc<Service>, listener: &TcpListener) {
    listener.set_nonblocking(true).expect("accept without blocking");
    while !service.stops() {
        match listener.accept() {
            Ok((stream, _)) => {
                let service = Arc::clone(service);
                thread::spawn(move || service.serve(stream));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(e) => panic!("accept a connection: {e}"),
        }
    }
}

struct Request {
    line: String,
    headers: HashMap<String, String>,
}

struct Response {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Service {
    fn new(user_data: Option<&[u8]>, script: &[Step]) -> Self {
        Self {
            user_data: user_data.map(<[u8]>::to_vec),
            metadata: Mutex::default(),
            status: Mutex::default(),
            script: Mutex::new(script.iter().copied().collect()),
            tokens: Mutex::default(),
            requests: Mutex::default(),
            stops: AtomicBool::new(false),
        }
    }

    fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    fn wait(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.stops() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One request after the other, until the client goes or the script ends the connection.
    fn serve(&self, stream: TcpStream) {
        stream.set_nonblocking(false).expect("block");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound for reads");
        let mut reader = BufReader::new(&stream);
        // Unread bytes make the kernel reset a connection that is closed, so look before reading.
        while stream.peek(&mut [0]).is_ok_and(|length| length > 0) {
            let always = lock(&self.status).map_or(Step::Works, Step::Status);
            let step = lock(&self.script).pop_front().unwrap_or(always);
            if matches!(step, Step::Reset) {
                return lock(&self.requests).push("reset".into());
            }
            let Some(request) = read_request(&mut reader) else {
                return;
            };
            if !self.take_step(step, &request, &stream) {
                return;
            }
        }
    }

    /// Whether the connection stays.
    fn take_step(&self, step: Step, request: &Request, stream: &TcpStream) -> bool {
        let response = match step {
            Step::Hang => {
                lock(&self.requests).push(request.line.clone());
                self.wait(Duration::from_secs(60));
                return false;
            }
            Step::Status(status) => page(status),
            Step::Late(time) => {
                self.wait(time);
                self.answer(request, None)
            }
            Step::ShortToken => self.answer(request, Some(Duration::ZERO)),
            Step::Works | Step::Breaks(_) | Step::Reset => self.answer(request, None),
        };
        lock(&self.requests).push(format!("{} {}", request.line, response.status));
        let mut bytes = response.to_bytes();
        if let Step::Breaks(length) = step {
            bytes.truncate(bytes.len() - response.body.len() + length);
        }
        let mut stream = stream;
        let written = stream.write_all(&bytes).is_ok();
        let closes = request.headers.get("connection").is_some_and(|value| value == "close");
        written && !closes && !matches!(step, Step::Breaks(_))
    }

    fn answer(&self, request: &Request, token_lives: Option<Duration>) -> Response {
        match request.line.as_str() {
            "PUT /latest/api/token" => self.give_token(request, token_lives),
            line if line.starts_with("GET /") && !self.knows_token_of(request) => page(401),
            "GET /latest/user-data" => match &self.user_data {
                Some(body) => found("application/octet-stream", body),
                None => page(404),
            },
            line if line.starts_with("GET /") => {
                let path = line.strip_prefix("GET /latest/meta-data/").unwrap_or_default();
                let text = self.metadata_at(path);
                text.map_or_else(|| page(404), |text| found("text/plain", text.as_bytes()))
            }
            _ => page(405),
        }
    }

    /// A path that ends with a slash is a directory, and lists what is in it: directories with a slash.
    fn metadata_at(&self, path: &str) -> Option<String> {
        let metadata = lock(&self.metadata);
        if !path.ends_with('/') {
            return metadata.get(path).cloned();
        }
        let inside = metadata.keys().filter_map(|known| known.strip_prefix(path));
        let mut names: Vec<_> =
            inside.map(|rest| rest.split_inclusive('/').next().unwrap_or(rest)).collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join("\n"))
    }

    fn give_token(&self, request: &Request, lives: Option<Duration>) -> Response {
        let asked = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds");
        let seconds = asked.and_then(|text| text.parse().ok()).filter(|s| (1..=21600).contains(s));
        let Some(seconds) = seconds.filter(|_| !request.headers.contains_key("x-forwarded-for"))
        else {
            return page(400);
        };
        let mut tokens = lock(&self.tokens);
        let token = format!("AQAEAItoken{:0>43}==", tokens.len());
        let lives = lives.unwrap_or(Duration::from_secs(seconds));
        tokens.insert(token.clone(), Instant::now() + lives);
        Response {
            status: 200,
            headers: format!(
                "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: {seconds}\r\nContent-Type: text/plain\r\n"
            ),
            body: token.into_bytes(),
        }
    }

    fn knows_token_of(&self, request: &Request) -> bool {
        let token = request.headers.get("x-aws-ec2-metadata-token");
        let end = token.and_then(|token| lock(&self.tokens).get(token).copied());
        end.is_some_and(|end| Instant::now() < end)
    }
}

fn found(kind: &str, body: &[u8]) -> Response {
    Response { status: 200, headers: format!("Content-Type: {kind}\r\n"), body: body.into() }
}

fn page(status: u16) -> Response {
    let title = format!("{status} - {}", reason(status));
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" \
         xml:lang=\"en\" lang=\"en\">\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  \
         <h1>{title}</h1>\n </body>\n</html>\n"
    );
    Response { status, headers: "Content-Type: text/html\r\n".into(), body: body.into_bytes() }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

impl Response {
    fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let length = self.body.len();
        write!(
            head,
            "{}Accept-Ranges: none\r\nContent-Length: {length}\r\nDate: Mon, 01 Jun 2026 12:00:00 \
             GMT\r\nServer: EC2ws\r\n\r\n",
            self.headers
        )
        .expect("write to a string");
        [head.as_bytes(), &self.body].concat()
    }
}

/// None at the end of the connection.
fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let first = read_line(reader)?;
    let line = first.strip_suffix(" HTTP/1.1").expect("a request of HTTP/1.1").to_owned();
    let mut headers = HashMap::new();
    loop {
        let field = read_line(reader)?;
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').expect("a header field");
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().expect("a length"));
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(Request { line, headers })
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    Some(line.trim_end().to_owned())
}
