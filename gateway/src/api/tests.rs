use super::request::read;
use super::serve::{Client, idlest, step};
use super::*;
use crate::api::client::{Client as Caller, ClientError};
use crate::telemetry::ledger::Totals;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::io::{BufRead as _, BufReader};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// A gateway that knows one thing of each kind.
struct Pretend;

impl Gateway for Pretend {
    fn status(&self) -> Status {
        Status {
            name: "pretend".into(),
            ..Status::default()
        }
    }

    fn routes(&self, _: &RouteFilter) -> Result<Vec<RouteView>, Refusal> {
        // 40,000 rows do not fit a socket's buffer: the answer is given in pieces.
        Ok(vec![RouteView::default(); 40_000])
    }

    fn policy(&self) -> Vec<PolicyView> {
        Vec::new()
    }

    fn circuits(&self) -> Vec<CircuitView> {
        Vec::new()
    }

    fn tunnels(&self) -> Vec<TunnelView> {
        Vec::new()
    }

    fn clients(&self) -> Vec<ClientView> {
        Vec::new()
    }

    fn neighbors(&self) -> Vec<NeighborView> {
        Vec::new()
    }

    fn bgp(&self) -> Vec<BgpView> {
        Vec::new()
    }

    fn flows(&self) -> Flows {
        Flows::default()
    }

    fn counters(&self) -> Counters {
        Counters::new(Totals::default(), BTreeMap::new())
    }

    fn explain(&self, query: &Query) -> Result<Explanation, Refusal> {
        Err(Refusal::bad(format!("nothing is named {:?}", query.from)))
    }

    fn reload(&self) -> Result<ReloadReport, Refusal> {
        Err(Refusal::failed("not now"))
    }

    fn resize(&self, resize: &Resize) -> Result<ResizeReport, Refusal> {
        Err(Refusal::failed(format!(
            "{} stays",
            resize.gateway.section()
        )))
    }

    fn revoke(&self, client: &str) -> Result<bool, Refusal> {
        Ok(client == "laptop")
    }
}

/// One whose reload takes until it is told to end.
struct Slow {
    begun: std::sync::mpsc::SyncSender<()>,
    may_end: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Gateway for Slow {
    fn status(&self) -> Status {
        Pretend.status()
    }

    fn routes(&self, filter: &RouteFilter) -> Result<Vec<RouteView>, Refusal> {
        Pretend.routes(filter)
    }

    fn policy(&self) -> Vec<PolicyView> {
        Vec::new()
    }

    fn circuits(&self) -> Vec<CircuitView> {
        Vec::new()
    }

    fn tunnels(&self) -> Vec<TunnelView> {
        Vec::new()
    }

    fn clients(&self) -> Vec<ClientView> {
        Vec::new()
    }

    fn neighbors(&self) -> Vec<NeighborView> {
        Vec::new()
    }

    fn bgp(&self) -> Vec<BgpView> {
        Vec::new()
    }

    fn flows(&self) -> Flows {
        Flows::default()
    }

    fn counters(&self) -> Counters {
        Pretend.counters()
    }

    fn explain(&self, query: &Query) -> Result<Explanation, Refusal> {
        Pretend.explain(query)
    }

    fn reload(&self) -> Result<ReloadReport, Refusal> {
        self.begun.send(()).unwrap();
        self.may_end.lock().unwrap().recv().unwrap();
        Ok(ReloadReport::default())
    }

    fn resize(&self, resize: &Resize) -> Result<ResizeReport, Refusal> {
        Pretend.resize(resize)
    }

    fn revoke(&self, client: &str) -> Result<bool, Refusal> {
        Pretend.revoke(client)
    }
}

/// Regression: a reload blocked the socket for as long as it took, and the end of the gateway with it.
#[test]
fn a_reload_that_takes_its_time_keeps_nobody_waiting_but_who_asked() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vng.sock");
    let (begun, has_begun) = std::sync::mpsc::sync_channel(0);
    let (end, may_end) = std::sync::mpsc::channel();
    let gateway = Slow {
        begun,
        may_end: std::sync::Mutex::new(may_end),
    };
    let serving = Server::bind(&socket).unwrap().serve(Arc::new(gateway));
    let serving = serving.unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| Caller::new(&socket).view::<ReloadReport>(&Request::Reload));
        has_begun.recv().unwrap();
        let second = scope.spawn(|| Caller::new(&socket).view::<ReloadReport>(&Request::Reload));
        for _ in 0..100 {
            assert_eq!(show(&socket, What::Status).unwrap()["name"], "pretend");
        }
        assert!(!first.is_finished() && !second.is_finished());
        end.send(()).unwrap();
        first.join().unwrap().unwrap();
        has_begun.recv().unwrap();
        // The second is under way: the end does not wait for it.
        drop(serving);
        assert!(second.join().unwrap().is_err());
    });
    assert!(!socket.exists());
}

/// A client may send its next request before it has the answer to the one before, and gets both in order.
#[test]
fn answers_come_in_order_also_behind_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    let mut stream = UnixStream::connect(&socket).unwrap();
    let requests = "{\"command\":\"revoke\",\"client\":\"laptop\"}\n\
                    {\"command\":\"show\",\"what\":\"status\"}\n\
                    {\"command\":\"revoke\",\"client\":\"phone\"}\n";
    stream.write_all(requests.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "{\"ok\":true}");
    assert!(next().contains("pretend"));
    assert_eq!(next(), "{\"ok\":false}");
}

fn serve(directory: &tempfile::TempDir) -> (PathBuf, Serving) {
    let socket = directory.path().join("run/vng.sock");
    let serving = Server::bind(&socket)
        .unwrap()
        .serve(Arc::new(Pretend))
        .unwrap();
    (socket, serving)
}

fn show(socket: &Path, what: What) -> Result<serde_json::Value, ClientError> {
    Caller::new(socket).ask(&Request::Show { what })
}

#[test]
fn every_view_is_answered_and_a_large_one_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    assert_eq!(show(&socket, What::Status).unwrap()["name"], "pretend");
    assert_eq!(show(&socket, What::Counters).unwrap()["held"], 0);
    let routes = show(&socket, What::Routes).unwrap();
    assert_eq!(routes.as_array().unwrap().len(), 40_000);
}

#[test]
fn refusals_keep_their_exit_status() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    match Caller::new(&socket).ask(&Request::Reload) {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal, Refusal::failed("not now")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, serving) = serve(&directory);
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    drop(serving);
    assert!(!socket.exists());
    assert!(matches!(
        show(&socket, What::Status),
        Err(ClientError::NoGateway { .. })
    ));
}

#[test]
fn a_second_gateway_is_refused_and_a_stale_socket_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, serving) = serve(&directory);
    assert!(matches!(Server::bind(&socket), Err(BindError::InUse(_))));
    drop(serving);
    // What a gateway that was killed leaves behind: a socket that nobody listens at.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let _second = Server::bind(&socket)
        .unwrap()
        .serve(Arc::new(Pretend))
        .unwrap();
    assert_eq!(show(&socket, What::Status).unwrap()["name"], "pretend");
}

#[test]
fn a_file_in_the_sockets_place_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn several_requests_in_one_write_get_their_answers_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    let mut stream = UnixStream::connect(&socket).unwrap();
    let lines = "{\"command\":\"show\",\"what\":\"status\"}\nnot json\n{\"command\":\"reload\"}\n";
    stream.write_all(lines.as_bytes()).unwrap();
    let mut answers = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(answers.next().unwrap().starts_with("{\"ok\":"));
    assert!(answers.next().unwrap().contains("no such request"));
    assert!(answers.next().unwrap().contains("not now"));
}

#[test]
fn a_line_without_end_is_refused_and_others_are_served_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    let mut silent = UnixStream::connect(&socket).unwrap();
    silent.write_all(b"{\"comm").unwrap();
    let mut endless = UnixStream::connect(&socket).unwrap();
    endless.write_all(&[b'x'; LONGEST_REQUEST + 1]).unwrap();
    let mut answer = String::new();
    endless.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("at most 4096 bytes"), "{answer}");
    assert_eq!(show(&socket, What::Status).unwrap()["name"], "pretend");
}

#[test]
fn more_clients_than_fit_wait_for_their_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    let mut idle: Vec<UnixStream> = (0..MOST_CLIENTS)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    let waiting = {
        let socket = socket.clone();
        std::thread::spawn(move || show(&socket, What::Status).map(|status| status["name"].clone()))
    };
    idle.clear();
    assert_eq!(waiting.join().unwrap().unwrap(), "pretend");
}

/// They used to keep everyone out for 30 s, and whoever came with them for longer.
#[test]
fn silent_clients_give_way_to_one_that_calls() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    let connect = || UnixStream::connect(&socket).unwrap();
    let _silent: Vec<UnixStream> = (0..2 * MOST_CLIENTS).map(|_| connect()).collect();
    let called = Instant::now();
    assert_eq!(show(&socket, What::Status).unwrap()["name"], "pretend");
    let waited = called.elapsed();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
}

/// Idle connections and slow ones used to delay a command by a second for every 32 of them.
#[test]
fn who_does_not_get_to_the_point_gives_way_to_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, _serving) = serve(&directory);
    let (start, blink) = (Instant::now(), Duration::from_millis(50));
    let stream = || UnixStream::pair().unwrap().0;
    let clients: Vec<Client> = (0..3).map(|n| Client::new(n, stream(), start)).collect();
    assert_eq!(idlest(&clients, start), None, "they have come just now");
    assert_eq!(idlest(&clients, start + blink), Some(0));

    let held: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    assert_eq!(show(&socket, What::Status).unwrap()["name"], "pretend");
    // The first have lost their places to it; how fast that went is not a test's to say.
    let lost = |stream: &&UnixStream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&mut &**stream).read(&mut [0; 1]), Ok(0))
    };
    let gone = held.iter().filter(lost).count();
    assert_eq!(gone, 100 + 1 - MOST_CLIENTS);
}

#[test]
fn a_request_that_drips_in_does_not_keep_its_place() {
    let start = Instant::now();
    let (mut dripping, near) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let stop = Arc::new(Stop {
        waker: Waker::new().unwrap(),
        asked: AtomicBool::new(false),
        look: AtomicBool::new(false),
    });
    let changes = Changes::start(Arc::new(Pretend), stop).unwrap();
    let mut client = Client::new(1, near, start);
    for second in 1..=4 {
        dripping.write_all(b"{").unwrap();
        let now = start + Duration::from_secs(second);
        assert!(step(&mut client, now, &changes, &Pretend));
        assert!(!client.is_over(now));
    }
    dripping.write_all(b"{").unwrap();
    assert!(step(&mut client, start + PATIENCE, &changes, &Pretend));
    assert!(client.is_over(start + PATIENCE), "it has done nothing yet");
}

/// Waits until the socket is served.
fn wait_until_served(socket: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while show(socket, What::Status).is_err() {
        assert!(Instant::now() < until, "nobody listens there any more");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_socket_that_somebody_removes_is_made_again_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, serving) = serve(&directory);
    wait_until_served(&socket);
    fs::remove_file(&socket).unwrap();
    wait_until_served(&socket);
    let mode = || fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);

    // Whom the owner has let in since is let in again. A request is answered behind what is seen of the file.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    wait_until_served(&socket);
    fs::remove_file(&socket).unwrap();
    wait_until_served(&socket);
    assert_eq!(mode(), 0o666);

    // Its directory too; the gateway may have put its socket there again before that is empty.
    while let Err(error) = fs::remove_dir_all(socket.parent().unwrap()) {
        assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    }
    wait_until_served(&socket);
    fs::rename(socket.parent().unwrap(), directory.path().join("away")).unwrap();
    wait_until_served(&socket);
    drop(serving);
    assert!(!socket.exists());
}

#[test]
fn what_has_taken_the_sockets_place_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, serving) = serve(&directory);
    wait_until_served(&socket);
    let precious = directory.path().join("precious");
    fs::write(&precious, "data").unwrap();
    fs::rename(&precious, &socket).unwrap();
    // Until it goes the gateway has no socket.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "data");
    fs::remove_file(&socket).unwrap();
    wait_until_served(&socket);
    // Another gateway's is not taken away at the end either.
    fs::remove_file(&socket).unwrap();
    wait_until_served(&socket);
    // In one step: between two the gateway would make its own again.
    fs::write(&precious, "data").unwrap();
    fs::rename(&precious, &socket).unwrap();
    drop(serving);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "data");
}

/// What serde calls things is nobody's concern.
#[test]
fn a_request_that_is_none_is_refused_in_plain_words() {
    let said = |line: &str| read(line.as_bytes()).unwrap_err().message;
    let all = "show, routes, explain, reload, resize, revoke";
    let object = "a request is one JSON object on one line, such as {\"command\":\"show\",\"what\":\"status\"}";
    for (line, why) in [
        (
            "nonsense",
            format!("this is no JSON from character 2 on; {object}"),
        ),
        (
            "{\"command\":",
            format!("this is no JSON from character 11 on; {object}"),
        ),
        ("[]", object.to_owned()),
        ("7", object.to_owned()),
        ("{}", format!("\"command\" is missing; it is one of {all}")),
        (
            "{\"command\":7}",
            format!("\"command\" is 7; it is one of {all}"),
        ),
        (
            "{\"command\":\"stop\"}",
            format!("\"command\" is \"stop\"; it is one of {all}"),
        ),
        (
            "{\"command\":\"reload\",\"now\":1}",
            "\"now\" has no meaning here; \"reload\" takes nothing".to_owned(),
        ),
        (
            "{\"command\":\"revoke\",\"name\":1}",
            "\"name\" has no meaning here; \"revoke\" takes client".to_owned(),
        ),
        (
            "{\"command\":\"revoke\",\"client\":1}",
            "\"client\" is 1; it is a text".to_owned(),
        ),
        (
            "{\"command\":\"explain\",\"query\":{\"from\":\"vnet\",\"source\":\"10.1\"}}",
            "\"source\" is \"10.1\"; it is an IP address".to_owned(),
        ),
        (
            "{\"command\":\"routes\",\"filter\":{\"prefix\":\"10.1.0.0\"}}",
            "\"prefix\" is \"10.1.0.0\"; it is a prefix such as \"10.2.0.0/16\"".to_owned(),
        ),
        (
            "{\"command\":\"resize\",\"resize\":{\"gateway\":\"vpn\",\"sku\":\"x\",\"generation\":900}}",
            "\"generation\" is 900; it is a whole number from 0 to 255".to_owned(),
        ),
        (
            "{\"command\":\"revoke\",\"client\":\"a\",\"client\":\"b\"}",
            "a name stands in it twice".to_owned(),
        ),
    ] {
        assert_eq!(said(line), format!("no such request: {why}"), "{line}");
    }
    let what = said("{\"command\":\"show\"}");
    assert!(
        what.contains("\"what\" is missing; it is one of status, routes, policy"),
        "{what}"
    );
}

/// What is asked of each command is what is told of it.
#[test]
fn every_field_of_a_request_is_known_where_mistakes_are_told() {
    let requests = [
        "{\"command\":\"show\",\"what\":\"status\"}",
        "{\"command\":\"routes\",\"filter\":{\"prefix\":\"10.0.0.0/8\",\"source\":\"bgp\",\"path\":\"x\"}}",
        "{\"command\":\"explain\",\"query\":{\"from\":\"vnet\",\"source\":\"10.1.0.1\",\"destination\":\"10.2.0.1\",\
         \"protocol\":6,\"source_port\":1,\"destination_port\":2,\"icmp_type\":8,\"dscp\":0}}",
        "{\"command\":\"resize\",\"resize\":{\"gateway\":\"vpn\",\"sku\":\"x\",\"generation\":1,\"recreate\":true}}",
        "{\"command\":\"revoke\",\"client\":\"x\"}",
    ];
    let serde = [
        "invalid type",
        "missing field",
        "unknown field",
        "variant",
        "expected",
        "twice",
    ];
    for request in requests {
        assert!(read(request.as_bytes()).is_ok(), "{request}");
        let value: serde_json::Value = serde_json::from_str(request).unwrap();
        for broken in broken(&value) {
            let line = broken.to_string();
            let Err(refusal) = read(line.as_bytes()) else {
                continue; // What may be left out.
            };
            let said = refusal.message;
            assert!(
                !serde.iter().any(|word| said.contains(word)),
                "{line}: {said}"
            );
        }
    }
}

/// A value with each of its fields taken out, of another type, and beside one that nobody knows.
fn broken(value: &serde_json::Value) -> Vec<serde_json::Value> {
    let serde_json::Value::Object(fields) = value else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let mut more = fields.clone();
    more.insert("zz".into(), 1.into());
    all.push(more.into());
    for (name, field) in fields {
        let mut less = fields.clone();
        less.remove(name);
        all.push(less.into());
        let others = [
            serde_json::json!([1]),
            serde_json::json!(-1),
            serde_json::json!("?"),
            serde_json::Value::Null,
        ];
        for other in others.into_iter().chain(broken(field)) {
            let mut changed = fields.clone();
            changed.insert(name.clone(), other);
            all.push(changed.into());
        }
    }
    all
}

#[test]
fn unknown_fields_of_a_request_are_refused() {
    for line in [
        "{}",
        "{\"command\":\"show\"}",
        "{\"command\":\"show\",\"what\":\"status\",\"x\":1}",
        "{\"command\":\"stop\"}",
        "[]",
    ] {
        assert!(
            matches!(read(line.as_bytes()), Err(refusal) if refusal.status == 2),
            "{line}"
        );
    }
}
