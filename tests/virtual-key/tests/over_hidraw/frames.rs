//! Asked frame by frame.

use std::time::Duration;

use ana_virtual_key::{Command, Fault, Person, VirtualKey};

use crate::{
    client::{BROADCAST, CANCEL, CBOR, Client, ERROR, First, GET_INFO, INIT, KEEPALIVE, PING, SELECTION},
    skip::no_uhid,
};

/// Says once that it wants a touch, and nothing while it only works.
fn plugged() -> VirtualKey {
    keeping_alive(Duration::from_secs(3600))
}

fn keeping_alive(every: Duration) -> VirtualKey {
    VirtualKey::builder("ana framed key").keepalive_every(every).plug().unwrap()
}

fn error(channel: u32, code: u8) -> (u32, u8, u16, u8) {
    (channel, ERROR, 1, code)
}

fn short(answer: &First) -> (u32, u8, u16, u8) {
    (answer.channel, answer.command, answer.length, answer.data[0])
}

#[test]
fn a_ping_of_many_reports_comes_back() {
    if no_uhid("a_ping_of_many_reports_comes_back") {
        return;
    }
    let key = plugged();
    let mut client = Client::open(&key);
    let payload: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let (first, rest) = payload.split_at(57);
    let length = 1000_u16.to_be_bytes();
    let channel = client.channel.to_be_bytes();
    client.send_report(&[channel.as_slice(), &[PING], &length, first].concat());
    for (sequence, data) in (0..).zip(rest.chunks(59)) {
        client.send_report(&[channel.as_slice(), &[sequence], data].concat());
    }
    let answer = client.first();
    assert_eq!((answer.command, answer.length), (PING, 1000));
    let mut data = answer.data;
    for sequence in (0..).take(rest.chunks(59).count()) {
        let report = client.report();
        assert_eq!(report[4], sequence);
        data.extend(&report[5..]);
    }
    assert_eq!(data[..1000], payload);
}

#[test]
fn channels_are_given_and_others_refused() {
    if no_uhid("channels_are_given_and_others_refused") {
        return;
    }
    let key = plugged();
    let mut client = Client::open(&key);
    let mut other = Client::open(&key);
    // Everybody reads everything: this is the answer to the other one.
    assert_eq!(client.first().command, INIT);
    assert_ne!(client.channel, other.channel);
    for channel in [0, 5, BROADCAST] {
        other.send(channel, CBOR, GET_INFO);
        assert_eq!(short(&other.first()), error(channel, 0x0b));
    }
    other.send(other.channel, 0x80 | 0x2a, &[]);
    assert_eq!(short(&other.first()), error(other.channel, 0x01));
}

#[test]
fn who_asks_while_it_blinks_has_to_wait() {
    if no_uhid("who_asks_while_it_blinks_has_to_wait") {
        return;
    }
    let key = plugged();
    key.person(Person::ByHand);
    let mut client = Client::open(&key);
    client.send(client.channel, CBOR, SELECTION);
    let keepalive = client.first();
    assert_eq!((keepalive.channel, keepalive.command, keepalive.data[0]), (client.channel, KEEPALIVE, 2));
    let mut other = Client::open(&key);
    assert_eq!(short(&other.ask(GET_INFO)), error(other.channel, 0x06));
    // A cancel by another channel changes nothing, a new beginning on its own one ends it.
    other.send(other.channel, CANCEL, &[]);
    key.until_seen("hears the cancel", |seen| seen.iter().any(|request| request.command == Command::Cancel));
    assert!(key.is_blinking());
    client.send(client.channel, INIT, b"anew....");
    client.until(|answer| answer.command == INIT && answer.data.starts_with(b"anew...."));
    assert!(!key.is_blinking());
    let asked = key.seen().into_iter().find(|request| request.command == Command::Selection).unwrap();
    assert!(!asked.cancelled);
    // It had no answer: this one is the next one's.
    key.person(Person::Denies);
    assert_eq!(short(&client.ask(SELECTION)), (client.channel, CBOR, 1, 0x27));
}

#[test]
fn a_cancel_ends_the_request_of_its_channel() {
    if no_uhid("a_cancel_ends_the_request_of_its_channel") {
        return;
    }
    let key = plugged();
    key.person(Person::Never(None));
    let mut client = Client::open(&key);
    client.send(client.channel, CBOR, SELECTION);
    key.until_blinking();
    client.send(client.channel, CANCEL, &[]);
    let answer = client.until(|answer| answer.command != KEEPALIVE);
    assert_eq!(short(&answer), (client.channel, CBOR, 1, 0x2d));
    // With nothing to cancel, it is heard and not answered.
    client.send(client.channel, CANCEL, &[]);
    assert!(client.is_silent(100));
}

#[test]
fn frames_are_wrong_as_ordered() {
    if no_uhid("frames_are_wrong_as_ordered") {
        return;
    }
    let key = plugged();
    let mut client = Client::open(&key);
    let channel = client.channel;
    let mut first = |fault: Fault| {
        key.misbehaves(fault);
        client.send(channel, CBOR, SELECTION);
        short(&client.first())
    };
    assert_eq!(first(Fault::Garbage), (channel, CBOR, 201, 0));
    assert_eq!(first(Fault::HugeLength), (channel, CBOR, 0xffff, 0));
    let other = first(Fault::WrongChannel).0;
    assert_ne!(other, channel);
    assert_eq!(first(Fault::WrongCommand), (channel, PING, 1, 0));
    assert_eq!(first(Fault::ErrorFrame(0x7f)), error(channel, 0x7f));
    assert_eq!(first(Fault::StatusByte(0x99)), (channel, CBOR, 1, 0x99));
    key.misbehaves(Fault::DeepNesting.on(Command::GetInfo));
    client.send(channel, CBOR, GET_INFO);
    assert_eq!(client.first().length, 3002);
}

#[test]
fn a_short_report_is_short() {
    if no_uhid("a_short_report_is_short") {
        return;
    }
    let key = plugged();
    let mut client = Client::open(&key);
    key.misbehaves(Fault::ShortReport);
    client.send(client.channel, CBOR, SELECTION);
    // Linux gives it to who reads or, from 6.12's later versions on, drops it.
    if !client.is_silent(1000) {
        assert_eq!(client.report().len(), 20);
    }
}

#[test]
fn silence_is_silent_and_the_key_is_free_after_it() {
    if no_uhid("silence_is_silent_and_the_key_is_free_after_it") {
        return;
    }
    let key = plugged();
    let mut client = Client::open(&key);
    key.misbehaves(Fault::Silence);
    client.send(client.channel, CBOR, SELECTION);
    key.until_seen("is asked", |seen| seen.iter().any(|request| request.command == Command::Selection));
    client.send(BROADCAST, INIT, b"a nonce!");
    assert!(client.is_silent(300));
    key.misbehaves(None);
    assert_eq!(short(&client.ask(SELECTION)), (client.channel, CBOR, 1, 0));
}

#[test]
fn keepalives_go_on_until_they_are_taken_back() {
    if no_uhid("keepalives_go_on_until_they_are_taken_back") {
        return;
    }
    let key = keeping_alive(Duration::from_millis(5));
    let mut client = Client::open(&key);
    key.misbehaves(Fault::KeepaliveForever);
    client.send(client.channel, CBOR, SELECTION);
    key.until_blinking();
    // Neither a touch nor a cancel ends it.
    key.touch();
    client.send(client.channel, CANCEL, &[]);
    for _ in 0..20 {
        assert_eq!(short(&client.first()), (client.channel, KEEPALIVE, 1, 2));
    }
    key.misbehaves(None);
    let answer = client.until(|answer| answer.command != KEEPALIVE);
    assert_eq!(short(&answer), (client.channel, CBOR, 1, 0x2d));
    // Nor does it hinder who pulls it out.
    key.misbehaves(Fault::KeepaliveForever);
    client.send(client.channel, CBOR, SELECTION);
    key.until_blinking();
    assert!(key.unplug().seen().last().is_some_and(|request| request.command == Command::Selection));
}

#[test]
fn init_can_have_another_nonce() {
    if no_uhid("init_can_have_another_nonce") {
        return;
    }
    let key = plugged();
    let mut client = Client::without_channel(&key);
    key.misbehaves(Fault::DifferentNonce);
    client.send(BROADCAST, INIT, b"a nonce!");
    let answer = client.first();
    assert_eq!((answer.command, answer.length), (INIT, 17));
    assert_ne!(answer.data[..8], *b"a nonce!");
}

#[test]
fn a_report_out_of_order_is_an_error() {
    if no_uhid("a_report_out_of_order_is_an_error") {
        return;
    }
    let key = plugged();
    let mut client = Client::open(&key);
    let channel = client.channel.to_be_bytes();
    client.send_report(&[channel.as_slice(), &[CBOR, 0, 100], &[0; 57]].concat());
    client.send_report(&[channel.as_slice(), &[5], &[0; 43]].concat());
    assert_eq!(short(&client.first()), error(client.channel, 0x04));
    client.send_report(&[channel.as_slice(), &[CBOR, 0xff, 0xff]].concat());
    assert_eq!(short(&client.first()), error(client.channel, 0x03));
}
