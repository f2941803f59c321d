//! Fills whatever remembers names: asks a DNS server for as many names as it is told. Arguments: the server, how many.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use ana_tests::attempt::{argument, say, tell_io};

fn main() {
    let text = |index| argument(index).to_string_lossy().into_owned();
    let server: IpAddr = text(1).parse().expect("an address");
    let many: u32 = text(2).parse().expect("a number");
    let answered = tell_io("flood", flood(SocketAddr::new(server, 53), many));
    say(&format!("answered {}", answered.unwrap_or_default()));
}

/// A window of questions is under way at a time; those that are lost are not asked again.
fn flood(server: SocketAddr, many: u32) -> std::io::Result<u32> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut answered, mut answer) = (0, [0; 512]);
    for number in 0..many {
        socket.send_to(&query(number), server)?;
        if number % 32 == 31 {
            for _ in 0..32 {
                match socket.recv(&mut answer) {
                    Ok(_) => answered += 1,
                    Err(_) => break,
                }
            }
        }
    }
    Ok(answered)
}

/// A for `nN.flood.test`.
fn query(number: u32) -> Vec<u8> {
    let id = number.to_be_bytes();
    let mut query = vec![id[2], id[3], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [format!("n{number}").as_str(), "flood", "test"] {
        query.push(u8::try_from(label.len()).expect("short"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}
