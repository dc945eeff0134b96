"""The kinds of jobs by name, for the settings, which import nothing that reads a job."""

from typing import Final

KINDS: Final = ("sh", "exec", "argv", "py", "call", "sleep")
