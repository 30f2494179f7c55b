// SPDX-License-Identifier: Apache-2.0
//! Bytes from a peer → a request, or the response that says why it is none.
//! Pure, and bounded by [`MAX_BYTES`].

use super::response::Response;

/// Request line, headers and body together.
pub const MAX_BYTES: usize = 8192;
const MAX_HEADERS: usize = 32;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The unix socket: everything.
    Socket,
    /// The TCP address: metrics only.
    Metrics,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    /// As GET, without the body.
    Head,
    Put,
    Post,
    Delete,
    /// None of ours.
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// As it was sent; nothing is decoded.
    pub path: String,
    pub body: Vec<u8>,
    /// Whether the peer would rather have OpenMetrics than the older text format.
    pub accepts_openmetrics: bool,
    pub door: Door,
}

/// None as long as there is more to come.
pub fn parse(bytes: &[u8], door: Door) -> Result<Option<Request>, Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(Response::error(431, &format!("a request of more than {MAX_BYTES} bytes")));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::error(431, &format!("more than {MAX_HEADERS} headers")));
        }
        Err(e) => return Err(Response::error(400, &format!("no HTTP request: {e}"))),
    };
    let body_length = body_length(head.headers)?;
    let end = length.saturating_add(body_length);
    if end > MAX_BYTES {
        return Err(Response::error(413, &format!("a request of more than {MAX_BYTES} bytes")));
    }
    let Some(body) = bytes.get(length..end) else { return Ok(None) };
    Ok(Some(Request {
        method: Method::of(head.method.unwrap_or_default()),
        path: head.path.unwrap_or_default().to_owned(),
        body: body.to_vec(),
        accepts_openmetrics: accepts_openmetrics(head.headers),
        door,
    }))
}

impl Method {
    fn of(word: &str) -> Self {
        match word {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            other => Self::Other(other.into()),
        }
    }

    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Other(name) => name,
        }
    }
}

fn values<'h>(headers: &'h [httparse::Header], name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Two lengths, or another way to mark the end, are a trick or a mistake.
fn body_length(headers: &[httparse::Header]) -> Result<usize, Response> {
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(Response::error(501, "Transfer-Encoding: only Content-Length is understood"));
    }
    let mut lengths = values(headers, "content-length");
    let Some(length) = lengths.next() else { return Ok(0) };
    let digits =
        str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match (digits, lengths.next()) {
        // What does not fit is certainly too much.
        (Some(digits), None) if !digits.is_empty() => Ok(digits.parse().unwrap_or(usize::MAX)),
        _ => Err(Response::error(400, "Content-Length must be given once, as a number")),
    }
}

/// Scrapers name what they take in their order of preference.
fn accepts_openmetrics(headers: &[httparse::Header]) -> bool {
    let accepts = values(headers, "accept").filter_map(|value| str::from_utf8(value).ok());
    accepts.flat_map(|text| text.split(',')).any(|kind| {
        let name = kind.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("application/openmetrics-text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> (u16, String) {
        let response = parse(bytes, Door::Socket).unwrap_err();
        (response.status, String::from_utf8(response.body).unwrap())
    }

    fn request(text: &str) -> Request {
        parse(text.as_bytes(), Door::Socket).unwrap().unwrap()
    }

    #[test]
    fn request_is_whole_only_with_its_body() {
        let text = b"PUT /v1/x HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end], Door::Socket).unwrap(), None, "{end}");
        }
        let request = parse(text, Door::Socket).unwrap().unwrap();
        assert_eq!((request.method, request.path.as_str()), (Method::Put, "/v1/x"));
        assert_eq!(request.body, b"abcd");
    }

    #[test]
    fn what_cannot_be_served_is_told_why() {
        let with = |header: &str| format!("GET / HTTP/1.1\r\n{header}\r\n\r\n").into_bytes();
        let table: &[(Vec<u8>, u16, &str)] = &[
            (b"\x16\x03\x01\x02".to_vec(), 400, "no HTTP request: invalid token"),
            (with("no colon"), 400, "no HTTP request: invalid header name"),
            (with("Content-Length: -1"), 400, "Content-Length must be given once, as a number"),
            (with("Content-Length: "), 400, "Content-Length must be given once, as a number"),
            (
                with("Content-Length: 1\r\nContent-Length: 2"),
                400,
                "Content-Length must be given once, as a number",
            ),
            (with("Content-Length: 8192"), 413, "a request of more than 8192 bytes"),
            (
                with("Content-Length: 99999999999999999999999"),
                413,
                "a request of more than 8192 bytes",
            ),
            (vec![b'a'; MAX_BYTES], 431, "a request of more than 8192 bytes"),
            (with(&["a: b"; 33].join("\r\n")), 431, "more than 32 headers"),
            (
                with("Transfer-Encoding: chunked"),
                501,
                "Transfer-Encoding: only Content-Length is understood",
            ),
        ];
        for (bytes, status, error) in table {
            assert_eq!(refused(bytes), (*status, format!("{{\"error\":\"{error}\"}}\n")));
        }
    }

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let plain = "GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n";
        assert!(!request(plain).accepts_openmetrics);
        let asked = "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0,\
                     application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5\r\n\r\n";
        assert!(request(asked).accepts_openmetrics);
    }
}
