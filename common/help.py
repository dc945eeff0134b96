"""The page that HELP answers with. Pure text: every verb, kind and option that is served."""

from typing import Final

HELP_PAGE: Final = """\
Jobyard, client protocol 1. One request for each line, one reply for each.

  SUBMIT [options] KIND line       queue a job; OK TICKET: it is safe on disk
  RUN [options] KIND line          SUBMIT and WAIT in one
  1500                             a bare whole number: SUBMIT sleep 1500ms
  STATUS TICKET                    where the job stands
  RESULT TICKET                    its outcome and output, or PENDING
  WAIT [timeout=D] TICKET          RESULT, when it has ended
  CANCEL TICKET | group=G          end it, whatever its state
  LIST [state=S] [group=G] [limit=N] [local=1]    jobs, newest first (limit 100)
  NODES                            the nodes and their counts
  STATS [local=1]                  numbers by name
  AUTH TOKEN                       first of all, where a token is set
  PING  VERSION  HELP  QUIT (or EXIT)

Kinds
  sh COMMAND                       /bin/sh -c with the rest of the line
  exec WORDS                       a program and its arguments, no shell
  argv ["WORD", ...]               the same as a JSON array
  py MODULE:FUNCTION [JSON]        a Python callable; an array holds positional,
                                   an object keyword arguments
  sleep DURATION                   occupies a slot for so long

Options of SUBMIT and RUN, before the kind
  name=TEXT  group=TEXT            for people, LIST and CANCEL
  key=TEXT                         one key gives one job: safe to send again
  priority=-100..100               higher runs first (0)
  slots=1..10000                   slots that it takes on its node (1)
  crash_limit=1..1000 | off        attempts that may be lost with their node (3)
  timeout=D                        kills the attempt, and the job fails
  dir=PATH                         absolute directory to work in (an empty one)
  env.NAME=VALUE                   into its environment
  bytes=N                          N bytes and a line end follow this line: its
                                   standard input

A value is 1 to 200 bytes without blanks; other bytes as %XX (%20 is a blank).
A DURATION is 90s, 1h30m, 250ms, 1.5s or a number of seconds.
States: scheduled blocked queued dispatched running retrying
        succeeded failed cancelled
Replies: OK ... | PENDING ... | ERR CODE message. After bytes=N: N bytes and LF.
"""
