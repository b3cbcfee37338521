"""P-256 keys and signatures (ECDSA over SHA-256, DER), as `openssl dgst -sha256 -verify` reads them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError as error:
    raise ImportError(f"{error.name} is not installed and signatures need it: pip install 'cegm[audit]'") from error

SCHEME = ec.ECDSA(hashes.SHA256())

PRIVATE, PUBLIC = ".key", ".pub"
"""Suffixes of the two files of a pair."""


def new(name: str) -> tuple[Path, Path]:
    """Makes a pair of keys: `NAME.key`, which its owner alone can read, and `NAME.pub`; ValueError where one is there already."""
    private, public = Path(f"{name}{PRIVATE}"), Path(f"{name}{PUBLIC}")
    for path in (private, public):
        if path.exists():
            raise ValueError(f"{path} exists, and what it signed needs it; give another name")
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    private.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    public.write_bytes(pem(key.public_key()))
    return private, public


def private_key(path: str) -> ec.EllipticCurvePrivateKey:
    """A private key from its PEM file; ValueError where it is none, of another kind, locked, or readable by others."""
    file = _file(path)
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ValueError(f"private key {path} can be read by others; chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except TypeError:
        raise ValueError(f"private key {path} is locked by a passphrase; give one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} is no private key in PEM; make a pair with cegm keys new NAME") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"private key {path} is not of the kind P-256; make a pair with cegm keys new NAME")
    return key


def public_key(path: str) -> ec.EllipticCurvePublicKey:
    """A public key from its PEM file; ValueError where it is none or of another kind."""
    content = _file(path).read_bytes()
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} is no public key in PEM; give the file NAME{PUBLIC} of the signer") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"public key {path} is not of the kind P-256; give the file NAME{PUBLIC} of the signer")
    return key


def _file(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"key {path} does not exist; make a pair with cegm keys new NAME")
    return file


def pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as its file holds it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of a public key in DER, hex: what two people compare on the telephone."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def sign(key: ec.EllipticCurvePrivateKey, content: bytes) -> bytes:
    """The signature of some content."""
    return key.sign(content, SCHEME)


def holds(key: ec.EllipticCurvePublicKey, signature: bytes, content: bytes) -> bool:
    """Whether a signature is of this content by the private half of this key."""
    try:
        key.verify(signature, content, SCHEME)
    except InvalidSignature:
        return False
    return True
