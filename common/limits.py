"""Everything that can grow has its limit here, with unit and reason.

Limits that an operator may change are settings (`common/settings.py`); these are the ones that belong to the
protocols and to the design. Relations between limits are asserted below, when the module is imported.
"""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- the client protocol ---------------------------------------------------------------------------------------
LINE_BYTES_MAX = 64 * KIB  # a request line without its LF: room for a long command, too little to hurt
BODY_BYTES_MAX = 64 * MIB  # the default and the ceiling of JOBYARD_BODY_MAX
OPTION_BYTES_MAX = 200  # an option's value, before its %XX are undone
BODIES_BYTES_MAX = 512 * MIB  # of all clients of a node together, from their first byte until they are on disk
BODY_WAIT_S = 5.0  # for room among them
REPLIES_UNREAD_BYTES_MAX = 4 * MIB  # a client that does not read is no longer read from
REQUESTS_OPEN_MAX = 4096  # requests of one connection whose reply is owed: hides the round trip, bounds memory
ERRORS_IN_A_ROW_MAX = 1000  # somebody is talking another protocol
AUTH_WAIT_S = 60.0  # from connect to AUTH, where a token is set: long enough to type it by hand
REFUSALS_MAX = 64  # connections that are told at once why they end; others end without a word
HTTP_CONNECTIONS_MAX = 64  # a dashboard in some browsers, scrapers and scripts; never a load that jobs would feel
HTTP_REFUSALS_MAX = 32  # beyond these, told so at once; others end without a word
READ_BYTES = 64 * KIB  # one read of a client's socket, parsed as a whole
ANSWER_WAIT_S = 5.0  # what STATUS and the like wait for a balancer or an origin that cannot be reached
LIST_LIMIT_DEFAULT = 100
LIST_SCAN_MAX = 20_000  # records that one LIST looks at: a filter that matches little must not stall a program
ORDERS_PER_STEP_MAX = 500  # jobs of a group that one step cancels, retries or forgets: others are served in between
EXPLAIN_LOOKED_AT_MAX = 1000  # queued jobs that one EXPLAIN looks at to count them exactly
LIST_LIMIT_MAX = 10_000  # one reply fits in memory; more is a job for a cursor
DURATION_MAX_S = 10 * 365.25 * 86400.0  # ten years
PRIORITY_MAX = 100
SLOTS_PER_JOB_MAX = 10_000
CRASH_LIMIT_DEFAULT = 3  # as Dask and Ray; an attempt lost with its node is seldom innocent the third time
AFTER_MAX = 1000  # tickets that a job may wait for, and as many that it may read
INPUT_OUTPUTS_MAX = 100_000  # outputs of which an input is put together, in one step: about a second of a balancer
RETRIES_MAX = 1000
BACKOFF_DEFAULT_S = 1.0
BACKOFF_MAX_S = 300.0  # the doubling ends here: somebody may be waiting for the job
BACKOFF_JITTER = 0.25  # of the wait, up or down: jobs that failed together do not come back together
ATTEMPTS_PER_LEDGER = 1000  # a ledger that others preceded numbers attempts from so much higher for each of them
LEDGERS_OUTLIVED_MAX = 1_000_000
ATTEMPTS_KEPT_MAX = 2000  # records of a job's earlier attempts
ARRAY_ELEMENTS_MAX = 1_000_000
ARRAY_INDEX_MAX = 999_999_999
WATCH_TICKETS_MAX = 5000  # as many as fit into a line
WATCH_LINES_MAX = 10_000  # ends that one reply to WATCH tells of; the cursor goes on behind them
EVENTS_PER_REPLY_MAX = 10_000
EVENTS_BYTES_MAX = 64 * MIB  # what is kept for EVENTS, as it is read: about the life of 100,000 jobs
LIFE_BYTES_MAX = 4 * MIB  # looked through for the events of one job,
LIFE_RECORDS_MAX = 8192  # and so many records: together 15 ms at most
LOGS_PERIOD_S = 0.25  # how often a running job is asked what it has printed

# --- between balancer and nodes --------------------------------------------------------------------------------
FRAME_BYTES_MAX = 192 * MIB  # one outcome of a Python job: 64 MiB of value, 64 MiB of prints, and its envelope
FRAME_BYTES_MAX_UNPROVEN = 4 * KIB  # before the peer has proved the key
BATCH_BYTES = 1 * MIB  # a batch is cut into frames of about this size, so that a poll never waits behind 100 MiB
ENDS_PER_STEP_BYTES = 32 * MIB  # results that one step reads for a node that was away
BATCH_ITEMS_MAX = 10_000  # entries of one frame
HANDSHAKE_S = 5.0  # from connect to Welcome; and of TLS on the clients' port
LINKS_UNPROVEN_MAX = 64  # connections on the cluster port that have not proved the key
LINK_UNSENT_BYTES_MAX = 512 * MIB  # a peer that does not read is cut and dials again
LINK_STALLED_S = 60.0  # for one write, of a mebibyte at most, to be taken by the other side
LINK_MESSAGE_S_MAX = 600.0  # for one message to come in: 192 MiB at 2.6 Mbit/s
PROBE_S = 1.0  # how long an old link may take to prove that it lives when its id knocks again
REDIAL_S_MIN = 0.05
REDIAL_S_MAX = 1.0

# --- what waits, and is on disk anyway -------------------------------------------------------------------------
ENTRIES_AWAKE_MAX = 20_000  # live jobs in the balancer's memory; beyond, those rest on disk that wait for a node
OWN_JOBS_AWAKE_MAX = 20_000  # live jobs of an origin of which it remembers what it last heard; as many yet unsent
JOBS_APART_S = 0.005  # between two messages with jobs that nobody waits for
ENDS_ASKED_MAX = 1000  # jobs whose ends an origin asks for at once when it is back …
ENDS_ASKED_PERIOD_S = 0.02  # … and how long it waits before it asks for more: a million in 20 s

# --- running jobs ----------------------------------------------------------------------------------------------
FALLBACK_LOOKED_AT_MAX = 500  # jobs that a node without a balancer looks at in a step
KILL_GRACE_S = 5.0  # between SIGTERM and SIGKILL
PYTHON_OUTPUT_BYTES_MAX = 64 * MIB  # a py job's value, and likewise its prints; more fails, nothing is cut

# --- the store -------------------------------------------------------------------------------------------------
SYNC_WITHIN_S = 0.02  # what nobody waits for is on disk after that; meanwhile it gathers
STORE_FULL_FRACTION = 0.75  # from here SUBMIT gets FULL; outcomes still pass
STORE_EXPIRE_FRACTION = 0.60  # from here the oldest ended jobs expire early
EXPIRE_PER_STEP_MAX = 1000  # expiry never holds up a step for long
EXPIRE_PERIOD_S = 1.0
EXPIRE_AGAIN_S = 0.05  # while more is due: ended jobs go as fast as they come, 20,000 in a second

assert FRAME_BYTES_MAX > 2 * PYTHON_OUTPUT_BYTES_MAX + MIB, "an outcome must fit into a frame"
assert FRAME_BYTES_MAX > BODY_BYTES_MAX + MIB, "a job must fit into a frame"
assert BODIES_BYTES_MAX > BODY_BYTES_MAX, "a body alone must find room"
assert STORE_EXPIRE_FRACTION < STORE_FULL_FRACTION < 1, "room is made before work is refused"
assert REDIAL_S_MIN < REDIAL_S_MAX <= 1.0, "promised: redialled at least every second"
