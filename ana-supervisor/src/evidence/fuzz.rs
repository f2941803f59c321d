//! One segment of any bytes, read and verified.

use p256::ecdsa::SigningKey;
use serde_json::Value;

use super::{
    Report, Trust, VERSION, chain,
    human::WebAuthn,
    read::{Lines, Next},
    sign::Signer,
    verify::Verification,
};

/// What somebody without the key can write proves nothing, and what is signed is verified without a panic: once as the
/// bytes are, once with every line as the payload of a record of its own, chained and signed.
///
/// # Panics
/// When either is not so.
pub(crate) fn segment(data: &[u8]) {
    let signer = signer();
    let mut trust = Trust::default();
    trust.add_key(signer.public().clone());
    let verify = |bytes: &[u8]| {
        Verification { trust: &trust, proof: &WebAuthn, live: &|_| true, heads: &[], progress: &|_, _| {} }
            .bytes(bytes)
    };
    let raw = verify(data);
    assert!(raw.is_err() || data.is_empty(), "unsigned bytes were taken for evidence: {raw:?}");
    let (log, count) = signed(data, &signer);
    if let Ok(Report { records, head, .. }) = verify(&log) {
        assert_eq!((records, head.is_some()), (count, count > 0));
        if let Some(last) = log.len().checked_sub(2) {
            assert!(verify(&log[..last]).is_err(), "a torn line was not seen");
        }
    }
}

/// Every line that is a JSON object, with the place in the chain that its record has.
fn signed(data: &[u8], signer: &Signer) -> (Vec<u8>, u64) {
    let (mut log, mut prev, mut seq) = (Vec::new(), chain::link(b""), 0);
    let mut lines = Lines::new(data);
    while let Ok(Next::Line(line)) = lines.next() {
        let Ok(Value::Object(mut payload)) = serde_json::from_slice(line) else { continue };
        payload.insert("v".into(), VERSION.into());
        payload.insert("seq".into(), (seq + 1).into());
        payload.insert("prev".into(), prev.clone().into());
        let Ok(record) = signer.sign(Value::Object(payload).to_string().as_bytes()) else { continue };
        seq += 1;
        prev = chain::link(record.as_bytes());
        log.extend(record.into_bytes());
        log.push(b'\n');
    }
    (log, seq)
}

fn signer() -> Signer {
    let key = SigningKey::from_slice(&[7; 32]);
    #[allow(clippy::expect_used, reason = "a constant; and whoever fuzzes wants to see a panic")]
    Signer::new(&key.expect("a P-256 key")).expect("a signer")
}
