"""Output as it comes: what of it is to be printed now, so that in the end it is the job's, nothing lost or doubled.

A job may begin again: it is retried, or its node is lost. Then a new attempt prints from its beginning, and what has
been printed cannot be taken back. Most jobs print the same again: as long as a new attempt does, nothing is printed
until it goes further than the one before. Where it turns out to differ, all of it is printed, and said so.

Pure. The outcome has the last word: whatever is missing when it comes is printed then.
"""

from jobyard.model import Logs, Outcome


class Stream:
    """Standard output, or standard error."""

    def __init__(self) -> None:
        self._printed = bytearray()
        self._said = bytearray()  # by the present attempt
        self.differs = False  # what was just printed begins anew, below what an attempt before has printed

    def more(self, data: bytes) -> bytes:
        """What is to be printed, now that the attempt has said this."""
        agreed = len(self._said) == len(self._printed)
        self._said += data
        self.differs = False
        if agreed:
            self._printed += data
            return data
        return self._catch_up()

    def _catch_up(self) -> bytes:
        printed, said = self._printed, self._said
        if len(said) < len(printed) and printed.startswith(said):
            return b""  # it may yet come to what is printed already
        self.differs = not said.startswith(printed)
        new = bytes(said) if self.differs else bytes(said[len(printed) :])
        self._printed = bytearray(said)
        return new

    def anew(self) -> None:
        """A new attempt begins."""
        self._said = bytearray()

    def whole(self, data: bytes) -> bytes:
        """What is still to be printed, now that this is known to be all."""
        self._said = bytearray()
        self._said += data
        self.differs = not data.startswith(self._printed)
        new = data if self.differs else data[len(self._printed) :]
        self._printed = bytearray(data)
        return new


class Live:
    """Both streams of a job. Each method returns what to print on them."""

    def __init__(self) -> None:
        self._attempt = 0
        self._streams = Stream(), Stream()

    @property
    def differs(self) -> bool:
        """Whether what was just returned begins anew."""
        return any(stream.differs for stream in self._streams)

    def take(self, logs: Logs) -> tuple[bytes, bytes]:
        if logs.attempt > self._attempt:
            self._attempt = logs.attempt
            for stream in self._streams:
                stream.anew()
        stdout, stderr = self._streams
        return stdout.more(logs.stdout), stderr.more(logs.stderr)

    def end(self, outcome: Outcome) -> tuple[bytes, bytes]:
        stdout, stderr = self._streams
        return stdout.whole(outcome.stdout), stderr.whole(outcome.stderr)
