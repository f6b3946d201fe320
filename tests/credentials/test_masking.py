"""Secrets in what a server writes back, however it escapes them."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.credentials.masking import MASK, Secret, StreamMask, mask_bytes, redact

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40)


def written(key: str, way: str) -> str:
    """Returns a key as a server may write it."""
    escapes = {"all": lambda c: f"\\u{ord(c):04x}", "upper": lambda c: f"\\u{ord(c):04X}",
               "some": lambda c: c if c.isalnum() else f"\\u{ord(c):04X}",
               "twice": lambda c: f"\\\\u{ord(c):04x}", "url": lambda c: f"%{ord(c):02X}"}  # fmt: skip
    return "".join(map(escapes[way], key))


@given(KEYS, st.sampled_from(["all", "upper", "some", "twice", "url"]), st.data())
@example("sk-a+b/c=0123456", "some", None)
@example("00000000000\\", "all", None)
@example("00000000000%", "url", None)
def test_a_key_is_masked_with_any_of_its_characters_escaped(key: str, way: str, data: st.DataObject | None) -> None:
    forms = tuple(form.encode() for form in Secret(key).forms())
    whole = written(key, way)
    if data is not None and way in ("all", "some") and "\\" not in key and '"' not in key:
        mixed = [one if data.draw(st.booleans()) else f"\\u{ord(one):04x}" for one in key]
        whole = "".join(mixed)
    body = f'{{"error": "bad key <{whole}>"}}'
    assert mask_bytes(body.encode(), forms) == f'{{"error": "bad key <{MASK}>"}}'.encode()
    assert redact(f"bad key <{whole}> there", [Secret(key)]) == f"bad key <{MASK}> there"


@given(KEYS, st.sampled_from(["all", "some", "twice"]), st.lists(st.integers(1, 60), max_size=6))
def test_a_key_in_a_stream_is_never_whole(key: str, way: str, cuts: list[int]) -> None:
    mask = StreamMask(tuple(form.encode() for form in Secret(key).forms()))
    body, shown = f"data: <{written(key, way)}>\n\n".encode(), b""
    for cut in [*cuts, len(body)]:
        shown += mask.feed(body[:cut])
        body = body[cut:]
    assert mask_bytes(shown, tuple(form.encode() for form in Secret(key).forms())) == shown
    assert MASK.encode() in shown
    assert shown.endswith(b">\n\n")


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=30), max_size=4))
def test_a_body_without_the_key_keeps_its_bytes(body: dict[str, str]) -> None:
    forms = tuple(form.encode() for form in Secret("sk-0123456789abcdef").forms())
    for data in (json.dumps(body).encode(), json.dumps(body, ensure_ascii=False).encode()):
        assert mask_bytes(data, forms) == data
        assert StreamMask(forms).feed(data) == data


@pytest.mark.parametrize("key", ["test", "x", "none", "EMPTY", "lm-studio", "ab1", "key"])
def test_a_short_key_is_no_part_of_words(key: str) -> None:
    text = f"the {key} model at {key}s and un{key} was not found; the {key}-large is"
    assert redact(text, [Secret(key)]) == text
    assert redact(f"no {key}", [Secret(key)]) == f"no {key}"


@pytest.mark.parametrize("key", ["test", "x", "none", "lm-studio", "ab1", "abc12345"])
@pytest.mark.parametrize(
    "said", ["Incorrect API key provided: {}.", "invalid api_key '{}'", "Authorization: Bearer {}", '{{"token": "{}"}}']
)
def test_a_short_key_is_masked_where_the_text_names_it(key: str, said: str) -> None:
    assert redact(said.format(key), [Secret(key)]) == said.format(MASK)


def test_a_short_key_with_digits_is_masked_as_a_word() -> None:
    assert redact("abc12345 is refused, abc123456 is not", [Secret("abc12345")]) == "*** is refused, abc123456 is not"
