"""`examples/word_frequencies.py`: real input, real processes, and the right answer although some of them are killed."""

import re
import subprocess
import sys
from typing import Final

import pytest

from examples.local_cluster import REPOSITORY

pytestmark = pytest.mark.system

PATIENCE_S: Final = 300.0


def test_words_are_counted_right_although_balancer_and_a_node_are_killed_in_the_middle() -> None:
    program = [sys.executable, str(REPOSITORY / "examples/word_frequencies.py"), "--kill"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    killed, *frequent, verdict = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, ""), done
    found = re.fullmatch(
        r"balancer and node2 were killed when (\d+) of (\d+) jobs had ended, and started again", killed
    )
    assert found is not None, killed
    assert int(found[1]) < int(found[2])
    assert len(frequent) == 10
    assert re.fullmatch(r"[\d,]{5,} words in [\d,]+ files in [\d.]+ s: right", verdict), verdict
