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
  WATCH [timeout=D] [since=CURSOR] T1,T2,... | group=G    which have ended
  CANCEL TICKET | group=G          end it, whatever its state
  RETRY TICKET | group=G           queue it again, if it failed or was cancelled
  FORGET TICKET | group=G          erase it, if it has ended
  EXPLAIN TICKET                   why it waits, and what would change that
  LOGS [follow=1] TICKET           what it has printed so far, or as it prints
  LIST [state=S] [group=G] [limit=N] [local=1]    jobs, newest first (limit 100)
  NODES   STATS [local=1]          the nodes and their counts; numbers by name
  PLACEMENT [POLICY]               who gets the next job: level, random, ...
  EVENTS [follow=1] [since=CURSOR] the life of every job, as JSON lines
  DRAIN   UNDRAIN                  this node takes no new jobs; takes them again
  AUTH TOKEN                       first of all, where a token is set
  PING   VERSION   HELP   QUIT (or EXIT)

Kinds
  sh COMMAND                       /bin/sh -c with the rest of the line
  exec WORDS                       a program and its arguments, no shell
  argv ["WORD", ...]               the same as a JSON array
  py MODULE:FUNCTION [JSON]        a Python callable; an array holds positional,
                                   an object keyword arguments
  call [TEXT]                      what its body, cloudpickle bytes, calls
  sleep DURATION                   occupies a slot for so long

Options of SUBMIT and RUN, before the kind
  name=TEXT  group=TEXT            for people; for WATCH, LIST, CANCEL ...
  key=TEXT                         one key gives one job: safe to send again
  priority=-100..100               higher runs first (0)
  slots=1..10000                   slots that it takes on its node (1)
  retries=N  backoff=D             attempts after a failure (0), and the first
                                   wait before one, which doubles (1s)
  crash_limit=1..1000 | off        attempts that may be lost with their node (3)
  timeout=D                        kills the attempt, and the job fails
  delay=D  after=T1,T2,...         not before; not before these have succeeded
  input=T1,T2,...                  after these, and what they have printed, an
                                   array's by index, follows its standard input
  array=FIRST-LAST[:STEP][%MOST]   a job for each index, MOST at once; {} in the
                                   line and JOBYARD_INDEX are the index
  cpu=D  memory=SIZE  output=SIZE  more than that ends the attempt, and the
  processes=N  files=N             job fails (files: it only gets no more)
  dir=PATH  env.NAME=VALUE         where it works (an empty one); variables
  bytes=N                          N bytes and a line end follow this line: its
                                   standard input

A value is 1 to 200 bytes without blanks; other bytes as %XX (%20 is a blank).
A DURATION is 90s, 1h30m, 250ms, 1.5s or a number of seconds; a SIZE 512MiB.
States: scheduled blocked queued dispatched running retrying
        succeeded failed cancelled
Replies: OK ... | PENDING ... | ERR CODE message. After bytes=N: N bytes and LF.
"""
