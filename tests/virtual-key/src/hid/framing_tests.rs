use super::*;

fn message(channel: u32, length: usize) -> Message {
    let payload = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
    Message { channel, command: command::CBOR, payload }
}

/// What the reports lead to; only the last one may lead to anything.
fn received(assembly: &mut Assembly, reports: &[Vec<u8>]) -> Received {
    let now = Instant::now();
    let mut results: Vec<Received> = reports.iter().map(|report| assembly.receive(report, now)).collect();
    let last = results.pop().unwrap();
    assert!(results.iter().all(|result| *result == Received::Nothing), "{results:?}");
    last
}

#[test]
fn messages_of_every_length_come_together() {
    let edges = (0..=400).chain(usize::from(MESSAGE_MAX) - CONTINUATION_DATA - 1..=usize::from(MESSAGE_MAX));
    for length in edges {
        let message = message(7, length);
        let reports = message.reports();
        assert!(reports.iter().all(|report| report.len() == REPORT));
        assert_eq!(received(&mut Assembly::default(), &reports), Received::Message(message), "{length}");
    }
}

#[test]
fn a_message_cut_off_anywhere_leads_to_nothing_and_init_gets_over_it() {
    let reports = message(7, 1000).reports();
    for cut in 1..reports.len() {
        let mut assembly = Assembly::default();
        assert_eq!(received(&mut assembly, &reports[..cut]), Received::Nothing);
        let init = Message { channel: 7, command: command::INIT, payload: vec![1; 8] };
        assert_eq!(received(&mut assembly, &init.reports()), Received::Message(init));
        // Nothing of the old one is left.
        let next = message(7, 300);
        assert_eq!(received(&mut assembly, &next.reports()), Received::Message(next));
    }
}

#[test]
fn a_missing_or_doubled_report_is_an_error() {
    let reports = message(7, 1000).reports();
    for missing in 1..reports.len() - 1 {
        let mut left = reports.clone();
        left.remove(missing);
        let mut assembly = Assembly::default();
        let error = Received::Error(7, error::INVALID_SEQ);
        assert_eq!(received(&mut assembly, &left[..=missing]), error);
        // What comes after it belongs to nothing.
        assert_eq!(received(&mut assembly, &left[missing..]), Received::Nothing);
    }
    let doubled = [&reports[..2], &reports[1..2]].concat();
    assert_eq!(received(&mut Assembly::default(), &doubled), Received::Error(7, error::INVALID_SEQ));
}

#[test]
fn a_new_message_in_the_middle_of_one_is_an_error() {
    let reports = message(7, 1000).reports();
    let again = [&reports[..3], &reports[..1]].concat();
    assert_eq!(received(&mut Assembly::default(), &again), Received::Error(7, error::INVALID_SEQ));
}

#[test]
fn another_channel_has_to_wait_and_disturbs_nothing() {
    let mut assembly = Assembly::default();
    let (one, other) = (message(7, 1000), message(8, 1000));
    let (reports, others) = (one.reports(), other.reports());
    assert_eq!(received(&mut assembly, &reports[..5]), Received::Nothing);
    assert_eq!(received(&mut assembly, &others[..1]), Received::Error(8, error::CHANNEL_BUSY));
    assert_eq!(received(&mut assembly, &others[1..]), Received::Nothing);
    assert_eq!(received(&mut assembly, &reports[5..]), Received::Message(one));
}

#[test]
fn a_client_that_went_away_blocks_nobody() {
    let mut assembly = Assembly::default();
    let begin = Instant::now();
    let reports = message(7, 1000).reports();
    assert_eq!(assembly.receive(&reports[0], begin), Received::Nothing);
    let later = begin + PATIENCE + Duration::from_millis(1);
    let other = message(8, 5);
    assert_eq!(assembly.receive(&other.reports()[0], later), Received::Message(other));
    assert_eq!(assembly.receive(&reports[1], later), Received::Nothing);
}

#[test]
fn reports_that_are_too_short_or_claim_too_much_are_refused() {
    let now = Instant::now();
    let mut assembly = Assembly::default();
    for length in 0..5 {
        assert_eq!(assembly.receive(&vec![0x90; length], now), Received::Nothing);
    }
    let claiming = message(7, 10).reports_claiming(MESSAGE_MAX + 1);
    assert_eq!(assembly.receive(&claiming[0], now), Received::Error(7, error::INVALID_LEN));
}
