"""The command `jobyard`: the client for a shell.

    jobyard submit --group night -- ffmpeg -i in.mkv out.mp4      → a ticket
    jobyard run -- make -j2                                       → the job's own output and exit code
    jobyard map 'convert {} {.}.png' ::: *.svg                    → a job for each file

Rules: data goes to standard output, all else to standard error. What stands after `--` is the job's, never ours. A
file knows one subject, and is imported only for the verb that needs it, because scripts call this in loops:

    verbs                                what they share
    submitting.py  submit run            root.py       the verbs by name, and which file has them
    asking.py      status list explain   verb.py       --url --json --quiet, and the session a verb gets
    waiting.py     wait                  exits.py      exit codes, and the one line of an error
    output.py      result logs           selectors.py  which jobs are meant: T, T1,T2, all, last, group:NAME
    changing.py    cancel retry forget   words.py      durations, sizes and the like, as options    pure
    cluster.py     nodes stats events    options.py    the options of a job
                   placement drain       records.py    what --json prints, field by field           pure
                   undrain version       tables.py     what people read                             pure
    top.py         top                   lookout.py    what top looks at: rates, nodes, failures
    doctor.py      doctor                picture.py    what top shows, for a screen of any size  pure
                                         screen.py     the whole terminal, its keys, and back
                                         findings.py   what doctor makes of what it saw          pure
    mapping.py     map                   terminal.py   standard output and error, colours, the progress bar
    reducing.py    mapreduce             live.py       output as it comes, nothing lost or doubled  pure
    graph.py       dag                   last.py       the ticket last submitted
    completion.py  completion            templates.py  {} {.} {/} of map                            pure
    generate.py    generate              inputs.py     ::: :::: and standard input of map
    reference.py   writes docs/cli.md    running.py    many jobs of a group, to their ends
                                         campaign.py   what of them is under way and what is due    pure
"""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    try:
        from jobyard.cli.root import run  # so that importing `jobyard.cli` costs nothing

        return run(argv)
    except KeyboardInterrupt:
        return 130  # somebody was quicker than our imports
