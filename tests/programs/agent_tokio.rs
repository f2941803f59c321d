//! An agent with one thread and tokio: fetches `/tokio` from the host in its argument and prints the answer, while its
//! clock has to keep ticking.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::interval,
};

async fn fetch(host: String) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(&host).await?;
    let request = format!("GET /tokio HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn run(host: String) {
    let answer = tokio::spawn(fetch(host));
    let mut clock = interval(Duration::from_millis(50));
    let (mut ticks, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    while !answer.is_finished() {
        clock.tick().await;
        ticks += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    println!("ticks {ticks}\nlongest {}", longest.as_millis());
    match answer.await {
        Ok(Ok(answer)) => println!("{answer}"),
        other => println!("error: {other:?}"),
    }
}

fn main() -> std::io::Result<()> {
    let host = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(host));
    Ok(())
}
