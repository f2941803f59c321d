use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{
        Name as DnsName, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, SVCB,
            svcb::{Alpn, EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue},
        },
    },
};
use proptest::prelude::*;

use super::super::{Name, QueryKind, dns_answer, dns_query};

fn dns(text: &str) -> DnsName {
    DnsName::from_ascii(text).unwrap()
}

fn answer(question: &str, kind: RecordType, records: Vec<Record>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(dns(question), kind));
    message.add_answers(records);
    message.to_vec().unwrap()
}

fn a(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(dns(owner), ttl, RData::A(A(address.parse().unwrap())))
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

#[test]
fn every_name_of_a_chain_gets_the_addresses() {
    // In the wrong order, in any case, and with somebody else's address.
    let records = vec![
        a("edge.cdn.example.", 60, "192.0.2.1"),
        a("evil.example.", 60, "192.0.2.66"),
        Record::from_rdata(dns("mid.example."), 300, RData::CNAME(CNAME(dns("Edge.CDN.example.")))),
        Record::from_rdata(dns("API.example."), 30, RData::CNAME(CNAME(dns("mid.example.")))),
        Record::from_rdata(dns("edge.cdn.example."), 60, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
    ];
    let bytes = answer("api.EXAMPLE.", RecordType::A, records);
    let answer = dns_answer(&bytes).unwrap();
    assert_eq!(names(&answer.names), ["api.example", "edge.cdn.example", "mid.example"]);
    assert_eq!(
        answer.addresses,
        ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<std::net::IpAddr>().unwrap())
    );
    assert_eq!((answer.ttl, answer.kind, answer.exists), (30, 1, true));
    assert_eq!(answer.question.as_deref(), Some("api.example"));
    assert_eq!(answer.message, bytes, "untouched");
}

#[test]
fn the_keys_for_an_encrypted_hello_are_taken_out() {
    let hints = |ech: bool| {
        let mut parameters = vec![
            (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![SvcParamKey::EchConfigList]))),
            (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()]))),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A("192.0.2.9".parse().unwrap())]))),
            (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1; 90]))),
            (
                SvcParamKey::Ipv6Hint,
                SvcParamValue::Ipv6Hint(IpHint(vec![AAAA("2001:db8::9".parse().unwrap())])),
            ),
        ];
        if !ech {
            parameters.retain(|(key, _)| !matches!(key, SvcParamKey::EchConfigList | SvcParamKey::Mandatory));
        }
        HTTPS(SVCB::new(1, dns("pool.example."), parameters))
    };
    let record = |ech| Record::from_rdata(dns("a.example."), 120, RData::HTTPS(hints(ech)));
    let found = dns_answer(&answer("a.example.", RecordType::HTTPS, vec![record(true)])).unwrap();
    assert_eq!(names(&found.names), ["a.example", "pool.example"]);
    assert_eq!(found.addresses.len(), 2);
    assert_eq!((found.ttl, found.kind), (120, 65));
    let without = Message::from_vec(&found.message).unwrap();
    assert_eq!(without.answers, [record(false)]);
    assert_eq!(without.metadata.id, 7);
    let untouched = answer("a.example.", RecordType::HTTPS, vec![record(false)]);
    assert_eq!(dns_answer(&untouched).unwrap().message, untouched);
}

#[test]
fn only_an_answer_to_one_question_counts() {
    assert!(dns_answer(b"").is_err());
    let name = Name::parse(b"a.example").unwrap();
    let query = dns_query(7, &name, QueryKind::Aaaa).unwrap();
    assert!(dns_answer(&query).is_err(), "a query");
    let parsed = Message::from_vec(&query).unwrap();
    assert_eq!((parsed.metadata.id, parsed.metadata.recursion_desired), (7, true));
    assert_eq!(parsed.queries, [Query::query(dns("a.example."), RecordType::AAAA)]);
    let mut none = Message::new(7, MessageType::Response, OpCode::Query);
    assert!(dns_answer(&none.to_vec().unwrap()).is_err());
    none.add_query(Query::query(dns("a.example."), RecordType::A));
    let empty = dns_answer(&none.to_vec().unwrap()).unwrap();
    assert_eq!((empty.addresses.len(), empty.ttl), (0, 0));
    let many = (0..300u32).map(|n| a("a.example.", 1, &std::net::Ipv4Addr::from(n).to_string()));
    assert!(dns_answer(&answer("a.example.", RecordType::A, many.collect())).is_err());
}

#[test]
fn a_circle_of_names_has_an_end() {
    let link = |from: &str, to: &str| Record::from_rdata(dns(from), 1, RData::CNAME(CNAME(dns(to))));
    let bytes = answer(
        "a.example.",
        RecordType::A,
        vec![link("a.example.", "b.example."), link("b.example.", "a.example.")],
    );
    assert_eq!(names(&dns_answer(&bytes).unwrap().names), ["a.example", "b.example"]);
}

proptest! {
    #[test]
    fn any_message(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        drop(dns_answer(&bytes));
    }
}
