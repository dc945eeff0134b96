"""However the network cuts the bytes, the requests are the same; and reading them takes linear time."""

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from common import lines
from common.limits import LINE_BYTES_MAX, MIB

BODY_BYTES_MAX = 30

_LINES = st.sampled_from(
    [
        b"PING\n",
        b"\r\n",
        b" \n",
        b"1500\r\n",
        b"SUBMIT sleep 0\n",
        b"RUN name=a%20b sh echo x\r\n",
        b"STATUS k3f7qa-1\n",
        b"WAIT timeout=1 k3f7qa-1\n",
        b"nonsense\n",
        b"SUBMIT \xff\n",
        b"SUBMIT sh a\0\n",
        b"AUTH token\n",
        b"SUBMIT bytes=4 sh cat\nPING\n",  # the LF is missing
        b"SUBMIT bytes=x sh cat\n",
        b"SUBMIT bytes=31 sh cat\n",
        b"SUBMIT bytes=1",
        b"x" * LINE_BYTES_MAX,
        b"x" * (LINE_BYTES_MAX + 1) + b"\r",
        b"x" * (LINE_BYTES_MAX - 1) + b"\r\r\n",
    ]
)
_BODIES = st.builds(
    lambda verb, body: b"%b bytes=%d sh cat\n%b\n" % (verb, len(body), body),
    st.sampled_from([b"SUBMIT", b"RUN", b"SUBMIT colour=red", b"FOO", b"STATUS"]),
    st.binary(max_size=BODY_BYTES_MAX),
)
_CONVERSATIONS = st.lists(st.one_of(_LINES, _BODIES, st.binary(max_size=20)), max_size=12).map(b"".join)


def read_in_pieces(data: bytes, cuts: list[int], keep_bodies: bool) -> list[lines.Request]:
    parser = lines.Parser(body_bytes_max=BODY_BYTES_MAX, keep_bodies=keep_bodies)
    edges = [0, *sorted(cuts), len(data)]
    requests = [request for begin, end in itertools.pairwise(edges) for request in parser.feed(data[begin:end])]
    return requests + parser.eof()


@given(st.data(), _CONVERSATIONS, st.booleans())
def test_any_segmentation_gives_the_same_requests(data: st.DataObject, conversation: bytes, keep_bodies: bool) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(conversation)), max_size=20))
    whole = read_in_pieces(conversation, [], keep_bodies)
    assert read_in_pieces(conversation, cuts, keep_bodies) == whole


@given(_CONVERSATIONS.filter(lambda conversation: len(conversation) < 1000), st.booleans())
def test_byte_by_byte_gives_the_same_requests(conversation: bytes, keep_bodies: bool) -> None:
    whole = read_in_pieces(conversation, [], keep_bodies)
    assert read_in_pieces(conversation, list(range(len(conversation))), keep_bodies) == whole


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser_and_every_error_is_one_line(data: bytes) -> None:
    for request in read_in_pieces(data, [], keep_bodies=True):
        if isinstance(request, lines.Bad):
            assert lines.err(request.code, request.message).count(b"\n") == 1


def seconds_to_read(pieces: list[bytes]) -> float:
    parser = lines.Parser()
    begin = time.process_time()
    for piece in pieces:
        parser.feed(piece)
    return time.process_time() - begin


def test_a_large_body_in_many_small_pieces_takes_linear_time() -> None:
    head = b"SUBMIT bytes=%d sh cat\n" % (16 * MIB)
    assert seconds_to_read([head, *[b"x" * 1024] * (16 * 1024), b"\n"]) < 1.0


def test_a_long_line_byte_by_byte_takes_linear_time() -> None:
    assert seconds_to_read([b"x"] * LINE_BYTES_MAX) < 1.0


def test_a_line_full_of_options_takes_linear_time() -> None:
    for line in (b"SUBMIT " + b"a=b " * 16_000, b"SUBMIT " + b"=" * 65_000, b"SUBMIT a=b" + b" " * 65_000):
        assert seconds_to_read([line + b"\n"]) < 0.5
