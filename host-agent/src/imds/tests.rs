// SPDX-License-Identifier: Apache-2.0
//! The client over a scripted service, whose clock no one waits for.

use std::collections::VecDeque;

use super::*;

const TOKEN: &str = "http://169.254.169.254/latest/api/token";
const DATA: &str = "http://169.254.169.254/latest/user-data";
const TOKEN_6: &str = "http://[fd00:ec2::254]/latest/api/token";
const DATA_6: &str = "http://[fd00:ec2::254]/latest/user-data";
const ENOUGH: Duration = Duration::from_secs(60);

/// Answers in the order of the script, then refuses connections.
struct Script {
    answers: VecDeque<Result<ImdsAnswer, Silence>>,
    asked: Vec<String>,
    pauses: Vec<Duration>,
    now: Duration,
}

impl Outside for Script {
    fn send(&mut self, request: &ImdsRequest, timeout: Duration) -> Result<ImdsAnswer, Silence> {
        let token = request.token.map(|token| format!(" {token}")).unwrap_or_default();
        self.asked.push(format!("{}{token}", request.url));
        let answer = self.answers.pop_front().unwrap_or_else(refused);
        if let Err(Silence::Timeout(_)) = answer {
            self.now += timeout;
            return Err(Silence::Timeout(timeout));
        }
        self.now += Duration::from_millis(1);
        answer
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, pause: Duration) {
        self.pauses.push(pause);
        self.now += pause;
    }

    fn chance(&mut self) -> f64 {
        1.0
    }
}

fn refused() -> Result<ImdsAnswer, Silence> {
    Err(Silence::Broken("Connection refused (os error 111)".into()))
}

fn hang() -> Result<ImdsAnswer, Silence> {
    Err(Silence::Timeout(Duration::ZERO))
}

fn answer(status: u16, body: &str) -> Result<ImdsAnswer, Silence> {
    Ok(ImdsAnswer { status, body: body.into() })
}

type Outcome = Result<Option<String>, String>;

fn run(budget: Duration, answers: Vec<Result<ImdsAnswer, Silence>>) -> (Outcome, Script) {
    let mut script = Script {
        answers: answers.into(),
        asked: Vec::new(),
        pauses: Vec::new(),
        now: Duration::ZERO,
    };
    let outcome = user_data(budget, &mut script)
        .map(|found| found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        .map_err(|error| format!("{:#}", anyhow::Error::new(error)));
    (outcome, script)
}

#[test]
fn token_is_sent_with_the_request_for_user_data() {
    let (outcome, script) = run(ENOUGH, vec![answer(200, "abc\n"), answer(200, "text")]);
    assert_eq!(outcome, Ok(Some("text".into())));
    assert_eq!(script.asked, [TOKEN.to_owned(), format!("{DATA} abc")]);
}

#[test]
fn token_serves_several_paths_until_it_is_rejected() {
    let mut script = Script {
        answers: vec![answer(200, "a"), answer(200, "1"), answer(404, ""), answer(401, "")]
            .into_iter()
            .chain([answer(200, "b"), answer(200, "3")])
            .collect(),
        asked: Vec::new(),
        pauses: Vec::new(),
        now: Duration::ZERO,
    };
    let mut client = Client::new(ENOUGH, &mut script);
    let found: Vec<_> = ["/1", "/2", "/3"].map(|path| client.get(path).unwrap()).into();
    assert_eq!(found, [Some(b"1".to_vec()), None, Some(b"3".to_vec())]);
    let url = |path: &str| format!("{}{path}", ENDPOINTS[0]);
    let asked = [TOKEN.into(), url("/1 a"), url("/2 a"), url("/3 a"), TOKEN.into(), url("/3 b")];
    assert_eq!(script.asked, asked);
}

#[test]
fn missing_user_data_is_no_error() {
    let (outcome, script) = run(ENOUGH, vec![answer(200, "a"), answer(404, "")]);
    assert_eq!((outcome, script.pauses.len()), (Ok(None), 0));
}

#[test]
fn who_comes_again_anyway_tries_each_endpoint_once() {
    let mut script = Script {
        answers: vec![refused(), hang()].into(),
        asked: Vec::new(),
        pauses: Vec::new(),
        now: Duration::ZERO,
    };
    let error = Client::once(ENOUGH, &mut script).get("/1").expect_err("silence");
    let expected = format!(
        "no usable answer: Connection refused (os error 111) from {TOKEN}, no answer in 2 s from \
         {TOKEN_6}"
    );
    assert_eq!(format!("{:#}", anyhow::Error::new(error)), expected);
    assert_eq!((script.asked.len(), script.pauses.len()), (2, 0));
}

#[test]
fn rejected_token_is_replaced_once_in_a_try() {
    let once = vec![answer(200, "a"), answer(401, ""), answer(200, "b"), answer(200, "text")];
    let (outcome, script) = run(ENOUGH, once.clone());
    assert_eq!((outcome, script.pauses.len()), (Ok(Some("text".into())), 0));
    assert_eq!(script.asked.last(), Some(&format!("{DATA} b")));

    let rejected = [answer(200, "a"), answer(401, ""), answer(200, "b"), answer(401, "")];
    let (outcome, script) = run(ENOUGH, [rejected.to_vec(), once].concat());
    assert_eq!((outcome, script.pauses.len()), (Ok(Some("text".into())), 1));
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    let table = [
        (
            vec![answer(403, "")],
            format!(
                "403 from {TOKEN}: IMDS is switched off for this instance \
                 (metadata option HttpEndpoint)"
            ),
        ),
        (vec![answer(400, "")], format!("400 from {TOKEN}, expected 200")),
        (vec![answer(404, "")], format!("404 from {TOKEN}, expected 200")),
        (vec![answer(200, "a"), answer(400, "")], format!("400 from {DATA}, expected 200")),
        (vec![answer(200, "a"), answer(302, "")], format!("302 from {DATA}, expected 200")),
    ];
    for (answers, message) in table {
        let (outcome, script) = run(ENOUGH, answers);
        assert_eq!((outcome, script.pauses.len()), (Err(message), 0));
    }
}

#[test]
fn second_endpoint_is_asked_when_the_first_is_silent() {
    for silence in [refused(), hang()] {
        let (outcome, script) = run(ENOUGH, vec![silence, answer(200, "a"), answer(200, "t")]);
        assert_eq!((outcome, script.pauses.len()), (Ok(Some("t".into())), 0));
        let asked = [TOKEN.to_owned(), TOKEN_6.to_owned(), format!("{DATA_6} a")];
        assert_eq!(script.asked, asked);
    }
}

#[test]
fn endpoint_that_answered_is_the_only_one_asked_again() {
    let answers = vec![answer(503, ""), refused(), answer(200, "a"), answer(200, "text")];
    let (outcome, script) = run(ENOUGH, answers);
    assert_eq!(outcome, Ok(Some("text".into())));
    assert!(script.asked.iter().all(|url| url.starts_with(ENDPOINTS[0])), "{:?}", script.asked);
}

#[test]
fn pauses_double_up_to_two_seconds_and_end_with_the_budget() {
    let (outcome, script) = run(Duration::from_secs(10), Vec::new());
    let milliseconds: Vec<_> = script.pauses.iter().map(Duration::as_millis).collect();
    assert_eq!(milliseconds[..6], [100, 200, 400, 800, 1600, 2000]);
    assert_eq!(
        outcome,
        Err(format!(
            "no usable answer within 10 s (tries: 13): Connection refused (os error \
             111) from {TOKEN}, Connection refused (os error 111) from {TOKEN_6}"
        ))
    );
    assert!((9.9..10.0).contains(&script.now.as_secs_f64()), "{:?}", script.now);
}

#[test]
fn who_has_no_network_yet_asks_as_soon_as_there_is_one() {
    let unreachable = || Err(Silence::Unreachable("Network is unreachable (os error 101)".into()));
    let mut answers: Vec<_> = (0..200).map(|_| unreachable()).collect();
    // Its address comes first, its router a little later.
    answers.extend([hang(), unreachable(), answer(200, "a"), answer(200, "text")]);
    let (outcome, script) = run(ENOUGH, answers);
    assert_eq!(outcome, Ok(Some("text".into())));
    assert_eq!(script.pauses.len(), 101);
    assert_eq!(script.pauses[..100], [NETWORK_PAUSE; 100]);
    assert_eq!(script.pauses[100], FIRST_PAUSE);

    let (outcome, script) = run(Duration::from_secs(3), (0..999).map(|_| unreachable()).collect());
    let message = outcome.expect_err("budget");
    assert!(message.starts_with("no usable answer within 3 s (tries: 5"), "{message}");
    assert!(script.now < Duration::from_millis(3100), "{:?}", script.now);
}

#[test]
fn hanging_endpoints_do_not_stretch_the_budget() {
    let (outcome, script) = run(Duration::from_secs(3), vec![hang(); 9]);
    let message = outcome.expect_err("budget");
    assert!(
        message.starts_with("no usable answer within 3 s (tries: 1): no answer in 2 s from"),
        "{message}"
    );
    assert!(script.now < Duration::from_millis(3200), "{:?}", script.now);
}
