"""Keys of releases: what is written, what is refused, and that another program takes the signatures."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cegm.lab.cli import main
from cegm.lab.release import keys


def test_a_pair_signs_and_verifies_and_its_private_half_is_its_owner_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", str(tmp_path / "anna")]) == 0
    private, public = tmp_path / "anna.key", tmp_path / "anna.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = keys.public_key(str(public))
    assert keys.fingerprint(key) in capsys.readouterr().out
    signature = keys.sign(keys.private_key(str(private)), b"said")
    assert keys.holds(key, signature, b"said")
    assert not keys.holds(key, signature, b"said otherwise")
    assert not keys.holds(key, signature + b"\0", b"said")
    assert not keys.holds(key, b"", b"said")


def test_a_pair_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", str(tmp_path / "anna")]) == 0
    before = (tmp_path / "anna.key").read_bytes()
    assert main(["keys", "new", str(tmp_path / "anna")]) == 2
    assert "anna.key exists" in capsys.readouterr().err
    assert (tmp_path / "anna.key").read_bytes() == before
    assert main(["keys", "old", str(tmp_path / "anna")]) == 2


def test_keys_that_are_none_or_of_another_kind_or_open_to_others_are_refused(tmp_path: Path) -> None:
    keys.new(str(tmp_path / "anna"))
    encoding, kind, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    others = {
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(encoding, kind, plain),
        "p384": ec.generate_private_key(ec.SECP384R1()).private_bytes(encoding, kind, plain),
        "locked": ec.generate_private_key(ec.SECP256R1()).private_bytes(
            encoding, kind, serialization.BestAvailableEncryption(b"word")
        ),
        "noise": b"noise",
        "public": (tmp_path / "anna.pub").read_bytes(),
    }
    wanted = {
        "rsa": "kind P-256",
        "p384": "kind P-256",
        "locked": "passphrase",
        "noise": "no private",
        "public": "no private",
    }
    for name, content in others.items():
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ValueError, match=wanted[name]):
            keys.private_key(str(path))
    with pytest.raises(ValueError, match="no public key"):
        keys.public_key(str(tmp_path / "anna.key"))
    with pytest.raises(ValueError, match="does not exist"):
        keys.public_key(str(tmp_path / "nobody.pub"))
    (tmp_path / "anna.key").chmod(0o640)
    with pytest.raises(ValueError, match="can be read by others"):
        keys.private_key(str(tmp_path / "anna.key"))


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("sha256sum")), reason="needs openssl and sha256sum")
def test_openssl_and_sha256sum_verify_a_release_without_this_package(release: Path, people: Path) -> None:
    def says(*words: str) -> bool:
        return subprocess.run(words, cwd=release, capture_output=True, check=False).returncode == 0

    trainer, approver = str(people / "trainer.pub"), str(people / "approver.pub")
    signed = ("openssl", "dgst", "-sha256", "-verify")
    assert says(*signed, trainer, "-signature", "trainer.sig", "manifest.sha256")
    assert says("sha256sum", "--check", "--strict", "manifest.sha256")
    assert says(*signed, approver, "-signature", "approver.sig", "approval.json")
    assert not says(*signed, approver, "-signature", "trainer.sig", "manifest.sha256")
    (release / "evidence" / "card.md").write_text("another")
    assert not says("sha256sum", "--check", "--strict", "manifest.sha256")
