"""The verdict in words: its last line tells at a glance, and every fault is named, though not all of a thousand."""

from dataclasses import replace

from chaos.blows import Kind
from chaos.display import SHOWN_MAX, in_words
from chaos.verdict import Verdict

FINE = Verdict(
    acknowledged=1234, keyed=600, finished=1234, in_doubt=3, ran_in_doubt=1, executions=((1, 1200), (2, 34)),
    blows=((Kind.CUT, 2), (Kind.KILL, 3)), longest_without_end_s=4.25, longest_without_acknowledgement_s=2.0,
    lost=(), changed=(), duplicated=(), untold=(), amiss=(), in_vain=(),
)  # fmt: skip


def test_the_last_line_is_the_whole_verdict() -> None:
    *_, last = in_words(FINE).splitlines()
    assert last == "chaos: 1,234 submitted, 1,234 finished, 0 lost, 0 changed, 0 duplicated"


def test_counts_blows_executions_and_stalls_are_told() -> None:
    words = in_words(FINE)
    for part in ("5: 2 × cut, 3 × kill", "600 of them with a key", "1: 1,200, 2: 34", "4.2 s without the end of a job"):
        assert part in words


def test_faults_of_every_kind_are_named_and_the_last_line_says_so() -> None:
    for kind in ("lost", "changed", "duplicated", "untold", "amiss", "in_vain"):
        words = in_words(replace(FINE, **{kind: ("what happened",)}))  # type: ignore[arg-type]
        assert f"{kind.replace('_', ' ')}: what happened" in words
        assert words.endswith("NOT AS PROMISED")


def test_a_thousand_faults_are_counted_and_some_are_shown() -> None:
    words = in_words(replace(FINE, lost=tuple(f"ticket {number}" for number in range(1000))))
    assert words.count("lost: ticket") == SHOWN_MAX
    assert f"lost: and {1000 - SHOWN_MAX} more" in words
    assert "1,000 lost" in words
