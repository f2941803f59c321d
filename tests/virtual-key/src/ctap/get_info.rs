//! authenticatorGetInfo (CTAP 2.1, 6.4).

use ciborium::Value;

use super::{Authenticator, cbor};
use crate::{builder::Version, hid::MESSAGE_MAX};

impl Authenticator {
    pub(super) fn get_info(&self) -> Value {
        let settings = &self.settings;
        let texts = |texts: &[&str]| Value::Array(texts.iter().map(|text| Value::from(*text)).collect());
        let newer = settings.version == Version::Ctap21;
        let versions: &[&str] = if newer { &["FIDO_2_0", "FIDO_2_1"] } else { &["FIDO_2_0"] };
        let mut info = vec![
            (0x01, texts(versions)),
            (0x03, Value::Bytes(settings.aaguid.to_vec())),
            (0x04, self.options()),
            (0x05, Value::from(MESSAGE_MAX)),
        ];
        if settings.cred_protect {
            info.push((0x02, texts(&["credProtect"])));
        }
        if self.has_client_pin() {
            let numbers = settings.pin_protocols.iter().map(|protocol| Value::from(protocol.number()));
            info.push((0x06, Value::Array(numbers.collect())));
        }
        if newer {
            let algorithms = settings.algorithms.iter().map(|algorithm| {
                cbor::map([("alg", Value::from(algorithm.cose())), ("type", Value::from("public-key"))])
            });
            info.push((0x09, texts(&["usb"])));
            info.push((0x0a, Value::Array(algorithms.collect())));
            info.push((0x0d, Value::from(super::client_pin::PIN_CODE_POINTS_MIN)));
            info.push((0x0e, Value::from(1)));
        }
        cbor::map(info)
    }

    fn options(&self) -> Value {
        let settings = &self.settings;
        let mut options = vec![("rk", settings.resident_keys), ("up", true), ("plat", false)];
        if settings.client_pin {
            options.push(("clientPin", self.store().has_pin()));
        }
        if settings.uv {
            options.push(("uv", true));
        }
        if settings.version == Version::Ctap21 {
            options.push(("alwaysUv", settings.always_uv));
            options.push(("makeCredUvNotRqd", self.makes_credentials_without_uv()));
            if self.has_client_pin() {
                options.push(("pinUvAuthToken", true));
            }
        }
        cbor::map(options)
    }

    /// alwaysUv overrules it (CTAP 2.1, 7.2).
    pub(super) const fn makes_credentials_without_uv(&self) -> bool {
        self.settings.make_cred_uv_not_required && !self.settings.always_uv
    }
}
