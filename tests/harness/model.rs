//! A scripted model on loopback: it speaks as much of the Anthropic messages API as an agent needs. It answers the
//! first request that offers tools with one call of the tool `Bash`, and the request that brings the result with text.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::wait;

/// The server; it ends with the test program.
pub struct Model {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Model {
    /// Starts a model that wants `command` run.
    pub fn start(command: &str) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").expect("loopback"), command)
    }

    /// The same at a listener that somebody else has made, in another network namespace perhaps.
    pub fn start_on(listener: TcpListener, command: &str) -> Self {
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, command) = (Arc::clone(&requests), command.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, command) = (Arc::clone(&seen), command.clone());
                std::thread::spawn(move || serve(&stream, &seen, &command));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bodies of all requests for a message so far.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().expect("no server thread panics").clone()
    }

    /// Waits for the request that carries the tool's result, and gives the result as text.
    #[track_caller]
    pub fn tool_result(&self) -> String {
        wait::until("the agent sends the tool's result to the model", || {
            self.requests().iter().find_map(result_in).map(|result| {
                let content = &result["content"];
                content.as_str().map_or_else(|| content.to_string(), str::to_owned)
            })
        })
    }
}

/// Serves one connection until the client closes it.
fn serve(stream: &TcpStream, seen: &Mutex<Vec<Value>>, command: &str) {
    let mut reader = BufReader::new(stream);
    while let Some((line, body)) = request(&mut reader) {
        let answer = answer(&line, &body, seen, command);
        let mut stream = stream;
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// One HTTP request: its first line and its body.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, body))
}

fn answer(line: &str, body: &[u8], seen: &Mutex<Vec<Value>>, command: &str) -> Vec<u8> {
    let path = line.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    match (line.starts_with("POST "), path) {
        (true, "/v1/messages/count_tokens") => response("200 OK", "application/json", "{\"input_tokens\":1}"),
        (true, "/v1/messages") => {
            let request: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
            let events = events(&request, command);
            seen.lock().expect("no server thread panics").push(request);
            response("200 OK", "text/event-stream", &events)
        }
        _ => response("404 Not Found", "application/json", "{}"),
    }
}

fn response(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The result of our tool call, in a request that carries it.
fn result_in(request: &Value) -> Option<Value> {
    let messages = request["messages"].as_array()?;
    let blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
    blocks.into_iter().find(|block| block["type"] == "tool_result").cloned()
}

/// The server-sent events of one answer.
fn events(request: &Value, command: &str) -> String {
    let has_tool =
        request["tools"].as_array().is_some_and(|all| all.iter().any(|tool| tool["name"] == "Bash"));
    let (block, delta, stop) = if has_tool && result_in(request).is_none() {
        let input = json!({"command": command, "description": "runs what the test wants"}).to_string();
        (
            json!({"type": "tool_use", "id": "toolu_test", "name": "Bash", "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input}),
            "tool_use",
        )
    } else {
        (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": "the model is done"}),
            "end_turn",
        )
    };
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let message = json!({"id": "msg_test", "type": "message", "role": "assistant", "content": [],
        "model": "test", "stop_reason": null, "stop_sequence": null, "usage": usage});
    let all = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ];
    all.iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("named above")))
        .collect()
}
