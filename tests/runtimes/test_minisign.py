"""Keys and signatures in minisign's format: what is written is read again, and nothing else passes."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.runtimes import minisign
from transom.runtimes.minisign import SecretKey, SignatureError

KEY = SecretKey(b"12345678", bytes(range(32)))
SIGNED = minisign.sign(b"the file", KEY, "by hand")


def test_a_signature_has_the_published_layout() -> None:
    """https://jedisct1.github.io/minisign/, "Signature format"."""
    untrusted, signature, trusted, whole = SIGNED.splitlines()
    raw = base64.b64decode(signature)
    assert untrusted.startswith("untrusted comment: ")
    assert (raw[:2], raw[2:10], len(raw)) == (b"ED", KEY.id, 74)
    assert trusted == "trusted comment: by hand"
    assert len(base64.b64decode(whole)) == 64
    assert KEY.public.text.startswith("RW")
    assert KEY.public.name == "3837363534333231"


@given(st.binary(max_size=200), st.integers(0, 31))
@settings(max_examples=50)
def test_only_the_file_and_the_key_that_were_signed_pass(data: bytes, flipped: int) -> None:
    signature = minisign.read_signature(minisign.sign(data, KEY, "x"), "m")
    minisign.verify(data, signature, KEY.public, "m")
    with pytest.raises(SignatureError, match="is not of this file"):
        minisign.verify(data + b"x", signature, KEY.public, "m")
    seed = bytearray(KEY.seed)
    seed[flipped] ^= 1
    with pytest.raises(SignatureError, match="is not of this file"):
        minisign.verify(data, signature, SecretKey(KEY.id, bytes(seed)).public, "m")


@given(st.integers(0, len(SIGNED) - 1), st.characters(min_codepoint=32, max_codepoint=126))
def test_a_changed_character_of_a_signature_never_passes_as_another_statement(at: int, character: str) -> None:
    changed = SIGNED[:at] + character + SIGNED[at + 1 :]
    try:
        signature = minisign.read_signature(changed, "m")
        minisign.verify(b"the file", signature, KEY.public, "m")
    except SignatureError:
        return
    assert signature.comment == "by hand"  # only what is called untrusted may differ


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(lambda b: b.decode("latin-1"))))
def test_any_text_is_a_key_or_a_refusal(text: str) -> None:
    for read in (
        lambda: minisign.read_signature(text, "m"),
        lambda: minisign.read_public(text, "m"),
        lambda: minisign.read_secret(text, "", "m"),
    ):
        with pytest.raises(SignatureError):
            read()


def test_a_secret_key_comes_back_with_its_password_only() -> None:
    text = minisign.write_secret(KEY, "geheim")
    assert minisign.encrypted(text, "k")
    assert minisign.read_secret(text, "geheim", "k") == KEY
    with pytest.raises(SignatureError, match="the password is wrong"):
        minisign.read_secret(text, "gehein", "k")
    plain = minisign.write_secret(KEY, "")
    assert not minisign.encrypted(plain, "k")
    assert minisign.read_secret(plain, "", "k") == KEY
    assert minisign.read_public(minisign.write_public(KEY.public), "k") == KEY.public


def test_a_key_that_asks_for_too_much_memory_or_is_damaged_is_refused() -> None:
    head, line = minisign.write_secret(KEY, "").splitlines()
    raw = bytearray(base64.b64decode(line))
    raw[100] ^= 1
    with pytest.raises(SignatureError, match="the key is damaged"):
        minisign.read_secret(f"{head}\n{base64.b64encode(raw).decode()}\n", "", "k")
    raw[2:4], raw[46:54] = b"Sc", (1 << 40).to_bytes(8, "little")
    with pytest.raises(SignatureError, match="bytes of memory to be opened"):
        minisign.read_secret(f"{head}\n{base64.b64encode(raw).decode()}\n", "x", "k")


def test_a_secret_key_does_not_show_itself() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert str(list(KEY.seed)) not in repr(KEY)
    assert repr(bytes(KEY.seed)) not in repr(KEY)
