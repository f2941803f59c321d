//! What is measured, inside and outside of a session: connections, one way or another.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use ana_tests::bench::{self, now, times};
use nix::sys::resource::{UsageWho, getrusage};

use crate::record::{self, REQUEST};

/// Threads that share a rate: enough that none waits for another's slow connection.
const THREADS: usize = 16;
const BLOCK: usize = 256 << 10;

pub(crate) fn serve() {
    let mut held = Vec::new();
    bench::serve(|words| match words {
        ["close", count, to] => {
            let to = address(to);
            times(count, || drop(TcpStream::connect(to).expect("a connection")));
        }
        ["request", count, to, name] => {
            let (to, hello) = (address(to), record::hello(name));
            let all: Vec<String> = (0..number(count))
                .flat_map(|_| <[f64; 2]>::from(request(to, &hello).expect("an answer")))
                .map(|time| time.to_string())
                .collect();
            println!("{}", all.join(" "));
        }
        ["bulk", bytes, to, name] => {
            let times = bulk(number(bytes), address(to), &record::hello(name)).expect("all bytes");
            println!("{}", times.map(|time| time.to_string()).join(" "));
        }
        // Asks for so many bytes and does not read them.
        ["unread", bytes, to, name] => {
            let mut stream = TcpStream::connect(address(to)).expect("a connection");
            stream.write_all(&record::hello(name)).expect("it is taken");
            stream.read_exact(&mut [0]).expect("the server answers");
            stream.write_all(&(number(bytes) as u64).to_le_bytes()).expect("it is taken");
            held.push(stream);
            println!("asked");
        }
        ["rate", rate, seconds, to, name] => {
            println!("{}", sustained(number(rate), number(seconds), address(to), &record::hello(name)));
        }
        // So many that differ in their names.
        ["hold", count, to, name] => {
            for number in 0..number(count) {
                let mut stream = TcpStream::connect(address(to)).expect("a connection");
                stream.write_all(&record::hello(&format!("n{number}.{name}"))).expect("it waits");
                held.push(stream);
            }
            println!("held");
        }
        ["attempt", to, name] => {
            let hello = record::hello(name);
            println!("{}", now());
            request(address(to), &hello).expect("it is approved");
            println!("answered");
        }
        other => panic!("{other:?}"),
    });
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// From connect(2) to the first byte of the answer, and to the end of the second answer, in nanoseconds.
fn request(to: SocketAddr, hello: &[u8]) -> io::Result<(f64, f64)> {
    let mut buffer = [0; 4096];
    let start = now();
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.write_all(hello)?;
    // One byte first: the rest of the flight comes with it.
    stream.read_exact(&mut buffer[..1])?;
    let first = now() - start;
    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
    record::read(&mut stream, &mut buffer, 1)?.ok_or_else(ended)?;
    stream.write_all(&record::record(REQUEST))?;
    record::read(&mut stream, &mut buffer, 0)?.ok_or_else(ended)?;
    drop(stream);
    Ok((first, now() - start))
}

/// How long so many bytes took, and how long this process and the server's thread worked for them, in nanoseconds.
fn bulk(bytes: usize, to: SocketAddr, hello: &[u8]) -> io::Result<[f64; 3]> {
    let mut buffer = vec![0; BLOCK];
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(hello)?;
    // The connection stands: what follows is only its throughput.
    stream.read_exact(&mut buffer[..1])?;
    let (start, before) = (now(), own_time());
    stream.write_all(&(bytes as u64).to_le_bytes())?;
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut buffer[..left.min(BLOCK)])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => left -= length,
        }
    }
    let (time, worked) = (now() - start, own_time() - before);
    let mut servers = [0; 8];
    stream.read_exact(&mut servers)?;
    Ok([time, worked, f64::from_le_bytes(servers)])
}

fn own_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("this process's");
    let nanoseconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    nanoseconds(usage.user_time()) + nanoseconds(usage.system_time())
}

/// So many requests a second, each at its time whatever became of those before. Errors, nanoseconds that it took
/// altogether, and then how long each request took.
fn sustained(rate: usize, seconds: usize, to: SocketAddr, hello: &[u8]) -> String {
    let (next, begin) = (AtomicUsize::new(0), Instant::now());
    let apart = Duration::from_secs(1) / u32::try_from(rate).expect("a rate");
    let all: Vec<io::Result<(f64, f64)>> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= rate * seconds {
                    return mine;
                }
                let due = begin + apart * u32::try_from(number).expect("not so many");
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                mine.push(request(to, hello));
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let took = begin.elapsed().as_nanos();
    let (good, bad): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    for error in bad.iter().filter_map(|result| result.as_ref().err()).take(5) {
        eprintln!("{error}");
    }
    let times: Vec<String> = good.into_iter().flatten().map(|(_, whole)| whole.to_string()).collect();
    format!("{} {took} {}", bad.len(), times.join(" "))
}
