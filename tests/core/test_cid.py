"""engine/core/cid.py, against ids that others have published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engine.core.cid import JSON, RAW, canonical_json, cid, cid_of_digest, cid_of_file, cid_of_json, parse


@pytest.mark.parametrize(
    ("data", "codec", "expected"),
    [
        (b"", RAW, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        # the example of the JavaScript library `multiformats`
        (b'{"hello":"world"}', JSON, "bagaaierasords4njcts6vs7qvdjfcvgnume4hqohf65zsfguprqphs3icwea"),
    ],
)
def test_published_ids(data: bytes, codec: int, expected: str) -> None:
    assert cid(data, codec) == expected


def test_the_order_of_keys_does_not_matter() -> None:
    assert cid_of_json({"a": 1, "b": {"c": 2, "d": 3}}) == cid_of_json({"b": {"d": 3, "c": 2}, "a": 1})


def test_canonical_json_is_utf8_without_spaces() -> None:
    assert canonical_json({"b": "é", "a": [1, 2.5]}) == '{"a":[1,2.5],"b":"é"}'.encode()


def test_nan_has_no_content_id() -> None:
    with pytest.raises(ValueError, match="JSON"):
        cid_of_json(float("nan"))


def test_a_file_has_the_id_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 3_000_000)
    assert cid_of_file(path) == cid(b"x" * 3_000_000)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        cid_of_digest(hashlib.sha1(b"").digest())


@pytest.mark.parametrize(
    ("text", "as_version_1"),
    [
        # one content, four ways to write it, as the JavaScript library `multiformats` does
        (text, "bafybeid4sdwreqhdcns54bwwtx6xwunagnahwh3lthuf3yjgrnd3avpahm")
        for text in (
            "QmWiuSKg4UH5L65raqwu2yJtFtQ3ekNvJpXhLvHykgLJaN",
            "bafybeid4sdwreqhdcns54bwwtx6xwunagnahwh3lthuf3yjgrnd3avpahm",
            "zdj7Wdp9okjuwkgCoPnKauWuM9St6bVNHo4B8wE1igea7uCkJ",
            "f017012207c90ed1240e31365de06d69dfd7b51a033407b1f6b99e85de1268b47b055e03b",
        )
    ],
)
def test_ids_of_either_version_in_any_base_are_read(text: str, as_version_1: str) -> None:
    assert str(parse(text)) == as_version_1


def test_an_identity_id_holds_its_content() -> None:
    found = parse("bafkqablimvwgy3y")
    assert (found.digest, found.fits(b"hello"), found.fits(b"hallo")) == (b"hello", True, False)


def test_a_hash_that_is_not_known_is_never_right() -> None:
    sha512 = (
        "bafkrgqe3ohjcjplc6n4f3fwunlj6upltggn7xqujbsvnvyw764srszz4u4rshq6ztos4chl4plgg4ffyyxnayrtdi5oc4xb2332g645433aeg"
    )
    with pytest.raises(ValueError, match="hash function 0x13 can't be checked here"):
        parse(sha512).fits(b"hello")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "bafy",
        "Qm",
        "Qm" + "1" * 44,
        "Qm" + "0" * 44,
        "xyz",
        "b" + "a" * 100,
        "bafkqablimvwgy3yaaa",
        "fff",
        "z0O",
    ],
)
def test_what_is_not_a_content_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)
