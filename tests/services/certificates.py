"""Keys and certificates that tests make for themselves."""

from __future__ import annotations

import base64
import ipaddress
import json
from dataclasses import dataclass
from datetime import timedelta

import base58
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from coordinator_node.entities.times import utc_now


@dataclass(frozen=True)
class Certified:
    """A key with its certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def public_der(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certify(name: str, issuer: Certified | None = None, *, authority: bool = False) -> Certified:
    """A key with a certificate for a host name and 127.0.0.1, signed by the issuer or by itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:60])])
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - timedelta(days=1))
        .not_valid_after(utc_now() + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    return Certified(key, certificate)


class Wallet:
    """A cruncher's wallet, which says whose key a model node speaks with."""

    def __init__(self) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.address = base58.b58encode(public).decode()

    def vouch(self, model_id: str, node: Certified) -> tuple[tuple[str, str], ...]:
        """The metadata with which a node proves that this wallet stands for its key."""
        message = {
            "cert_pub": base64.b64encode(node.public_der).decode(),
            "model_id": model_id,
            "hotkey": f"hotkey-{model_id}",
        }
        signed = json.dumps(message).encode()
        return (
            ("x-server-auth-message", base64.b64encode(signed).decode()),
            ("x-server-auth-signature", base64.b64encode(self._key.sign(signed)).decode()),
            ("x-server-wallet-pubkey", self.address),
        )
