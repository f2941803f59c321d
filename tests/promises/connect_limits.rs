//! How much one session may keep busy: what is beyond it is reset at once, and that is on the record; what cannot be protected,
//! too.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ana_tests::{Ground, Net, records::Record, wait};

/// DNS connections over TCP at a time, as the supervisor has it.
const RELAYS: usize = 64;

/// Keeps so many DNS connections open, each with an answered question; tells of those that get none. Then closes one, and
/// asks until there is an answer again; the same with a reset.
const RELAYED: &str = "
import errno, socket, struct, sys, time
name = b''.join(bytes([len(part)]) + part for part in (b'www', b'innocent', b'test')) + b'\\0'
query = struct.pack('!6H', 7, 0x100, 1, 0, 0, 0) + name + struct.pack('!2H', 1, 1)
kept, refused = [], []
def ask():
    try:
        s = socket.create_connection(('192.0.2.53', 53), 20)
        s.sendall(struct.pack('!H', len(query)) + query)
        if len(s.recv(2)) == 2: s.recv(512); return kept.append(s)
        refused.append('end')
    except OSError as error: refused.append(errno.errorcode.get(error.errno, str(error)))
for _ in range(int(sys.argv[1])): ask()
print('answered', len(kept), 'refused', refused, flush=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(20); s.sendto(query, ('192.0.2.53', 53)); print('over UDP', len(s.recv(512)) > 12, flush=True)
for how in ('orderly', 'reset'):
    ending = kept.pop()
    if how == 'reset': ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    ending.close()
    before, until = len(kept), time.monotonic() + 20
    while len(kept) == before and time.monotonic() < until: ask()
    print('again', how, len(kept) > before, flush=True)
";

/// What was reset because there were too many.
fn too_many(ground: &Ground) -> Vec<Record> {
    let of_them = |record: &Record| {
        record.payload["detail"]["refused"].as_str().is_some_and(|text| text.contains("could not be held"))
    };
    ground.records_of("tamper").into_iter().filter(of_them).collect()
}

#[test]
fn name_servers_without_ana() {
    let (ground, net) = (Ground::bare("relays-bare"), Net::new("relays-bare"));
    let many = (RELAYS + 3).to_string();
    let told = net.run_without_ana(&ground, &["python3", "-c", RELAYED, &many]).assert_code(0).stdout();
    assert!(told.contains(&format!("answered {many} refused []\n")), "{told}");
}

/// One more is reset; UDP is not concerned, and there is room again when one ends.
#[test]
fn connections_to_name_servers() {
    let (ground, net) = (Ground::new("relays"), Net::new("relays"));
    ground.protecting_api();
    let many = (RELAYS + 3).to_string();
    let told = net.start(&ground, &["python3", "-c", RELAYED, &many]).finish().assert_code(0).stdout();
    let expected = format!("answered {RELAYS} refused ['ECONNRESET', 'ECONNRESET', 'ECONNRESET']\n");
    assert!(told.contains(&expected), "{told}");
    assert!(told.contains("over UDP True\nagain orderly True\nagain reset True\n"), "{told}");
    let noted = too_many(&ground);
    // The same again within some seconds is one.
    let destination = noted.first().map(|record| &record.payload["detail"]["destination"]);
    assert!(noted.len() <= 3 && destination == Some(&"192.0.2.53:53".into()), "{noted:#?}");
    ground.verify();
}

/// Connections that wait or are being joined at a time, as the supervisor has it.
const CONNECTIONS: usize = 4096;
/// How many there are beyond it.
const BEYOND: usize = 40;
/// So long the supervisor tries to reach whoever does not answer.
const DIAL: Duration = Duration::from_secs(30);

/// One process has descriptors for some of them only. Tells how many were made, and how many of them were reset.
const CROWD: &str = "
import os, select, socket, sys
address, many = sys.argv[1], int(sys.argv[2])
all = {}
for _ in range(many):
    try:
        s = socket.create_connection((address, 80), 25)
        s.sendall(b'GET /crowd HTTP/1.1\\r\\nHost: www.innocent.test\\r\\n\\r\\n')
        all[s.fileno()] = s
    except ConnectionError: os.write(1, b'reset\\n')
os.write(1, b'made\\n')
poll = select.poll()
for number in all: poll.register(number, select.POLLIN)
while all:
    for number, _ in poll.poll():
        poll.unregister(number); all.pop(number).close(); os.write(1, b'reset\\n')
";

/// Beyond what may wait connections are reset, and not one of those that wait.
#[test]
fn connections_that_wait() {
    let (ground, net) = (Ground::new("crowd"), Net::new("crowd"));
    ground.protecting_api();
    // Nothing protects it: they wait for the host, who never answers.
    let silent: Ipv4Addr = net.silent();
    let processes = 8;
    let each = (CONNECTIONS + BEYOND) / processes;
    assert_eq!(each * processes, CONNECTIONS + BEYOND, "all processes make as many");
    let program = ground.write_home("crowd.py", 0o644, CROWD).display().to_string();
    let script = format!("for i in $(seq {processes}); do python3 {program} {silent} {each} & done; wait");
    let begin = Instant::now();
    let session = net.start(&ground, &["bash", "-c", &script]);
    let count = |word: &str| session.stdout().matches(word).count();
    wait::until("all of them are made", || (count("made\n") == processes).then_some(()));
    wait::until("those beyond are reset", || (count("reset\n") >= BEYOND).then_some(()));
    let (took, reset) = (begin.elapsed(), count("reset\n"));
    println!("{} connections, {reset} reset, {took:?}", CONNECTIONS + BEYOND);
    // Later, the first of them are given up.
    assert!(took > DIAL || reset == BEYOND, "{reset} were reset after {took:?}");
    let noted = wait::until("it is on the record", || Some(too_many(&ground)).filter(|all| !all.is_empty()));
    let destination = &noted[0].payload["detail"]["destination"];
    assert_eq!(*destination, format!("{silent}:80"), "{noted:#?}");
    drop(session);
    ground.verify();
}

/// Addresses of protected names that the supervisor keeps in mind, as it has it.
const ADDRESSES: u32 = 32 << 10;

/// A protected name has more addresses than can be protected: that there is a hole is on the record, once.
#[test]
fn addresses_that_cannot_be_protected() {
    let (ground, net) = (Ground::new("too-many-addresses"), Net::new("too-many-addresses"));
    ground.protecting_api();
    let address = |number: u32| Ipv4Addr::from(0x0a00_0000 + number);
    let lines: Vec<String> = (0..ADDRESSES).map(|n| format!("{} api.protected.test\n", address(n))).collect();
    net.write("hosts", &lines.concat());
    let mut session = net.launch(&ground, &["bash", "-c", "echo begun; read line; true"]).start_listening();
    session.until_stdout("begun");
    session.hush();
    session.finish().assert_code(0);
    let lost = ground.records_of("loss");
    let told: Vec<_> =
        lost.iter().filter_map(|loss| loss.payload["detail"]["unprotected"].as_str()).collect();
    assert_eq!(told.len(), 1, "{lost:#?}");
    // What the DNS says comes behind those.
    assert!(told[0].starts_with("192.0.2.10 of api.protected.test: "), "{told:?}");
    assert!(told[0].contains("too many addresses"), "{told:?}");
    ground.verify();
}
