//! The hosts: threads of this program that wait in accept(2). They end with it.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use ana_tests::bench::now;
use nix::sys::resource::{UsageWho, getrusage};

use crate::record::{self, ANSWER, FLIGHT};

/// So many serve one address, one connection each.
const THREADS: usize = 32;
const BLOCK: usize = 256 << 10;

pub(crate) struct Servers;

/// When the first byte of a connection arrived, of each in turn.
pub(crate) struct Told(Mutex<Receiver<f64>>);

impl Told {
    pub(crate) fn next(&self) -> f64 {
        self.0.lock().expect("nobody panics with it").recv().expect("the server runs")
    }
}

impl Servers {
    /// Says nothing, and closes after the client.
    pub(crate) fn closing(at: SocketAddr) {
        serve(at, |mut stream| io::copy(&mut stream, &mut io::sink()).map(drop));
    }

    /// A flight for the first record, an answer for every further one.
    pub(crate) fn answering(at: SocketAddr) {
        serve(at, |mut stream| answer(&mut stream, || ()));
    }

    /// The same, and tells when the first record came.
    pub(crate) fn telling(at: SocketAddr) -> Told {
        let (teller, told): (Sender<f64>, _) = channel();
        serve(at, move |mut stream| {
            answer(&mut stream, || {
                teller.send(now()).ok();
            })
        });
        Told(Mutex::new(told))
    }

    /// After the first record come so many bytes as a second one, in which a number is, asks for; and then the time that
    /// this thread has worked for it. Gives how many were sent on the last connection.
    pub(crate) fn bulk(at: SocketAddr) -> Arc<AtomicU64> {
        let (block, all) = (Arc::new(vec![0x5a; BLOCK]), Arc::new(AtomicU64::new(0)));
        let sent = Arc::clone(&all);
        serve(at, move |mut stream| {
            let mut buffer = vec![0; 4096];
            record::read(&mut stream, &mut buffer, 0)?;
            stream.write_all(&[0])?;
            let mut length = [0; 8];
            io::Read::read_exact(&mut stream, &mut length)?;
            let mut left = usize::try_from(u64::from_le_bytes(length)).expect("a length");
            let before = own_time();
            sent.store(0, Ordering::Relaxed);
            while left > 0 {
                let now = stream.write(&block[..left.min(BLOCK)])?;
                sent.fetch_add(now as u64, Ordering::Relaxed);
                left -= now;
            }
            stream.write_all(&(own_time() - before).to_le_bytes())
        });
        all
    }
}

/// User and system time of this thread, in nanoseconds.
fn own_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("this thread's");
    let nanoseconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    nanoseconds(usage.user_time()) + nanoseconds(usage.system_time())
}

fn serve(at: SocketAddr, work: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) {
    let listener = Arc::new(TcpListener::bind(at).expect("the port is free"));
    for _ in 0..THREADS {
        let (listener, work) = (Arc::clone(&listener), work.clone());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).ok();
                // The client reports what goes wrong.
                work(stream).ok();
            }
        });
    }
}

fn answer(stream: &mut TcpStream, first: impl FnOnce()) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    if record::read(stream, &mut buffer, 0)?.is_none() {
        return Ok(());
    }
    first();
    stream.write_all(&record::record(FLIGHT))?;
    while record::read(stream, &mut buffer, 0)?.is_some() {
        stream.write_all(&record::record(ANSWER))?;
    }
    Ok(())
}
