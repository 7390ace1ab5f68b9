"""Bodies that two parsers could read differently."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import Invalid
from freehold.gateway.wire import chat
from freehold.gateway.wire.strict import check

FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
BODY = {"model": "m", "messages": [{"role": "user", "content": 'Grüße {["x\\'}], "n": 1}


def body(text: str) -> bytes:
    return f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}]{text}}}'.encode()


@pytest.mark.parametrize(
    "data",
    [
        body(',"model":"other"'),
        body(', "model": "other"'),
        body(',"mod\\u0065l":"other"'),
        body(',"x":1,"x":1'),
        b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}',
        b'{"model":"m","messages":[{"role":"user"},{"role":"system","content":"b","role":"user"}]}',
        b'{"model":"m", "messages":[{"role":"user"}],"messages":[{"role":"user","content":"b"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"x":"\xc3("}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\udc00 and on"}]}',
        body(',"x":NaN'),
        body(',"x":-Infinity'),
        body(',"x":' + "[" * 101 + "]" * 101),
        body(',"x":' + '{"a":[' * 60 + "1" + "]}" * 60),
        body(',"x":' + "[" * 100_000 + "]" * 100_000),
        body(",") + b"{}",
        b"\xef\xbb\xbf" + body(""),
    ],
)
def test_what_could_be_read_otherwise_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        chat.read(data)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")])
@pytest.mark.parametrize("plain", [True, False])
def test_what_is_plain_is_taken(separators: tuple[str, str], plain: bool) -> None:
    data = json.dumps(BODY, separators=separators, ensure_ascii=plain).encode()
    chat.read(b" " + data + b"\n")
    chat.read(body(',"x":' + "[" * 95 + "]" * 95))
    chat.read(body(',"x":"' + "[{" * 200 + '"'))
    chat.read(body(',"x":{"a":1,"a":2}'))


NAMES = st.text(st.sampled_from('ab"\\ é'), max_size=3)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(
    pairs=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    message=st.lists(st.tuples(NAMES, VALUES), max_size=3),
    blank=st.sampled_from(["", " ", "\n  "]),
)
def test_refused_exactly_when_a_name_stands_twice(
    pairs: list[tuple[str, object]], message: list[tuple[str, object]], blank: str
) -> None:
    def write(found: list[tuple[str, str]]) -> str:
        return "{" + ",".join(f"{blank}{json.dumps(n)}{blank}:{v}" for n, v in found) + "}"

    inner = write([(name, json.dumps(value)) for name, value in message])
    top = [(name, json.dumps(value)) for name, value in pairs] + [("messages", f"[{inner}]")]
    data = write(top).encode()
    twice = any(len(p) != len({name for name, _ in p}) for p in (top, message))
    try:
        check(data, FIELDS.decode(data))
        assert not twice
    except Invalid:
        assert twice
