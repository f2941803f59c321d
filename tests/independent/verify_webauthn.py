#!/usr/bin/env python3
"""Check a person's approval from one evidence record alone, with a WebAuthn library that is not ana's.

Reads one record's payload (JSON: {"operation": {...}, "assertion": {...}, ...}) from the file named, or from
stdin. The assertion is verified by PyPI's `fido2` under the public key in the record. The only thing that is
computed here is what the challenge has to be: SHA-256 over the RFC 8785 form of the operation, by PyPI's `rfc8785`.
The record of an enrolment, which has no operation, is checked against the enrolment in its detail.

    pip install fido2 rfc8785
    ./verify_webauthn.py record.json [--rp-id ana:HOST]

Exit status: 0 the approval is proven, 1 it is not (the reason is on stderr), 2 the record cannot be read.
What is not proven: that the public key belongs to the person. For that, compare it with a list that you trust.
The credential's id is only a label (WebAuthn does not sign it); the record's own signature protects it.
"""

import argparse
import base64
import hashlib
import json
import sys

import rfc8785
from fido2 import cbor
from fido2.cose import CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorAssertionResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialRpEntity,
    UserVerificationRequirement,
)


class NotProven(Exception):
    pass


def unb64(text):
    """Base64url without padding, in its one form."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise NotProven(f"{text!r} is not base64url without padding")
    return data


def parse_key(encoded):
    """The library reads a truncated or odd COSE key as well as it can; here it has to be exactly one."""
    fields = cbor.decode(encoded)
    if cbor.encode(fields) != encoded or fields.get(1) not in (1, 2):
        raise NotProven("the public key is not one COSE key in its canonical form")
    return CoseKey.parse(fields)


def what_was_to_be_signed(record):
    if record.get("operation") is not None:
        return record["operation"]
    enrolment = (record.get("detail") or {}).get("enrolment")
    if enrolment is None:
        raise NotProven("the record has neither an operation nor an enrolment")
    return enrolment


def verify(record, rp_id):
    assertion = record.get("assertion") or (record.get("detail") or {}).get("assertion")
    if not assertion:
        raise NotProven("the record has no assertion: no person approved it")
    signed = what_was_to_be_signed(record)
    challenge = hashlib.sha256(rfc8785.dumps(signed)).digest()
    client_data = CollectedClientData(unb64(assertion["client_data_json"]))
    data = AuthenticatorData(unb64(assertion["authenticator_data"]))
    credential_id = unb64(assertion["credential_id"])
    # ana's origin is its relying party id.
    rp_id = rp_id or client_data.origin
    server = Fido2Server(PublicKeyCredentialRpEntity(name="ana", id=rp_id), verify_origin=lambda origin: origin == rp_id)
    public_key = parse_key(unb64(assertion["public_key"]))
    credential = AttestedCredentialData.create(b"\0" * 16, credential_id, public_key)
    pin = signed.get("verify") == "pin"
    state = {
        "challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
        "user_verification": UserVerificationRequirement.REQUIRED if pin else UserVerificationRequirement.DISCOURAGED,
    }
    response = AuthenticationResponse(
        raw_id=credential_id,
        response=AuthenticatorAssertionResponse(
            client_data=client_data, authenticator_data=data, signature=unb64(assertion["signature"])
        ),
    )
    server.authenticate_complete(state, [credential], response)
    return assertion.get("approver", "somebody"), rp_id


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", nargs="?", default="-", help="the record's payload as JSON; - is stdin")
    parser.add_argument("--rp-id", help="the relying party id that it has to be for, ana:HOST")
    args = parser.parse_args()
    try:
        with sys.stdin if args.record == "-" else open(args.record, encoding="utf-8") as file:
            record = json.load(file)
        assert isinstance(record, dict)
    except (OSError, ValueError, AssertionError) as error:
        print(f"cannot read the record: {error}", file=sys.stderr)
        return 2
    try:
        approver, rp_id = verify(record, args.rp_id)
    except Exception as error:  # whatever the library says no with, it is a no
        print(f"not proven: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"proven: {approver} signed exactly this operation for {rp_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
