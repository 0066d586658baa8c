"""The wire contract: every message between the processes of a pool. No socket in here.

A message travels as a frame (see ``link.py``): a prefix, a head of fixed layout, a body of bytes.

    caller -> boss      SUBMIT  CANCEL  RESIZE  STATS  CLOSE  STOP  PAUSE  RELOAD  STACK  EVENTS  LISTEN  OPERATE
    boss -> caller      READY  START_FAILED  RESULTS  REPLY  NOTE  CLOSED  EXIT_ERROR  LAST_EVENTS  OUTPUT_LINES
    boss -> worker      BATCH  LEAVE  WAKE
    worker -> boss      UP  INIT_FAILED  DONE  SPILL  EXIT_FAILED
    boss -> fork server     SPAWN  KILL  HANDLERS
    fork server -> boss     SPAWNED  SPAWN_FAILED  EXITED  OUTPUT
    door -> boss        SUBMIT  CANCEL  STATS  STACK  EVENTS  CLIENT_GONE  NOTE  OPERATE  CLIENT_LINE  LINE_END  CLIENTS
    boss -> door        RESULTS  REPLY  CLOSE  CLOSED
    caller -> scribe    SUBMIT  KEYS  RECORD  RETRIEVED  ATTACH  RESUME  UNKEYED  DOOR, and what is for the boss
    door -> scribe      SUBMIT  RECORD  CANCEL  TAKEN  CLIENTS  CLIENT_GONE  LINE_END
    scribe -> door      REPLY  RECALL  RESULTS  CLOSED
    engine's line -> scribe     WANTED, and what a boss sends
    scribe -> caller    OPENED  RECALL  RECALLED  SETTLED, and what comes from the boss
    reader -> scribe    ASK
    scribe -> reader    REPLY
    client -> door      SUBMIT  RECORD  CANCEL  STATS  STACK  EVENTS  CLOSE  STOP  CREDIT  TAKEN  FORGET  PIECE
    door -> client      RESULTS  REPLY  RECALL  TAKEN  PING  CLOSE  CLOSED  GOODBYE  PIECE
    client -> boss      SUBMIT
    boss -> client      READY  RESULTS  GOODBYE

Jobs travel as **blocks**, results as **segments**; both lay many small payloads end to end with their sizes in columns
beside them, so that the boss can cut, join and pass them on by slicing, and never looks inside.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any

VERSION = 1
INFO, WARNING = 20, 30  # of a NOTE, as in the module logging, which takes long to load
PREFIX = Struct("<BBHIQ")  # version, kind, descriptors, bytes of head, bytes of body


class ProtocolError(Exception):
    """Bytes that cannot be what our own processes write: somebody else wrote into a socket, or into shared memory."""


class Kind(IntEnum):
    """What a frame means. A kind's number never changes its meaning within a VERSION."""

    # to the boss; through a scribe or a door, where there is one
    SUBMIT = 1
    CANCEL = 2
    RESIZE = 3
    STATS = 4
    CLOSE = 5
    STOP = 6
    PAUSE = 10
    RELOAD = 11
    STACK = 12
    LISTEN = 13
    EVENTS = 15
    # to a scribe
    RECORD = 7
    RETRIEVED = 8
    ATTACH = 9
    ASK = 14
    KEYS = 26
    RESUME = 27
    UNKEYED = 28
    WANTED = 29

    # to the caller
    READY = 16
    START_FAILED = 17
    RESULTS = 18
    REPLY = 19
    NOTE = 20
    CLOSED = 21
    EXIT_ERROR = 22
    OPENED = 23
    SETTLED = 24
    RECALLED = 25
    LAST_EVENTS = 30
    OUTPUT_LINES = 31

    # to a worker
    BATCH = 32
    LEAVE = 33
    WAKE = 34

    # from a worker
    UP = 48
    INIT_FAILED = 49
    DONE = 50
    SPILL = 51
    EXIT_FAILED = 52

    # to the fork server
    SPAWN = 64
    KILL = 65
    HANDLERS = 66

    # from the fork server
    SPAWNED = 80
    SPAWN_FAILED = 81
    EXITED = 82
    OUTPUT = 95

    # between a door, its clients, and the boss or the scribe
    CLIENT_GONE = 96
    CREDIT = 97
    TAKEN = 98
    PIECE = 100
    RECALL = 101
    GOODBYE = 103
    PING = 104
    FORGET = 105
    OPERATE = 106
    CLIENT_LINE = 107
    LINE_END = 108
    CLIENTS = 109
    DOOR = 110


# SUBMIT and BATCH describe a batch of jobs: consecutive ids, the same options.
# first id, jobs, jobs of the first block to skip, blocks, priority, timeout (seconds), retries, attempt
BATCH_HEAD = Struct("<QIIIqdII")
BLOCK_COUNT = "I"  # array code of the column that counts the jobs of each block
BLOCK_SIZE = "Q"  # array code of the column with each block's bytes

# RESULTS holds segments: first id, jobs, where the first payload starts, bytes of payload, pid, attempt
SEGMENT = Struct("<QIQQII")

FIRST_ID = Struct("<Q")  # RESUME: after the request's number, the id of the first job; the body is a key a job
REQUEST = Struct("<Q")  # number of a request, which its REPLY repeats
QUEUED_ONLY = b"q"  # CANCEL: after the request's number, where jobs that a worker has are to be left alone
UNBEGUN = b"u"  # the same, where that is so of those that run; what a worker has not begun is taken from it
SWITCH = Struct("<?")  # PAUSE: after the request's number, whether to pause or to resume
JOB = Struct("<Q")  # STACK: after the request's number, the job's id, or EVERY_JOB
EVERY_JOB = (1 << 64) - 1
COUNT = Struct("<I")  # RESIZE: after the request's number, how many workers
EVENTS = Struct("<Q?")  # after the request's number: the number of the last event seen, and whether to wait for more
SPILL = Struct("<QB7xdd")  # job id, outcome; when the job began and ended (monotonic seconds)
NOTE = Struct("<B")  # level: INFO or WARNING; the text follows as the body
SPAWN = Struct("<II?I")  # slot, the worker's index, whether it may connect by ZeroMQ, which handlers it has
GENERATION = Struct("<I")  # HANDLERS: their number; the body is what they are, or empty when they are needed no more
KILL = Struct("<IIi")  # slot, pid, signal (0: the whole tree, by SIGKILL)
SPAWNED = Struct("<II12s")  # slot, pid, identity at the boss's ZeroMQ socket
OUTPUT = Struct("<IIB12s")  # slot, pid, stream, the secret that frames begin with
SPAWN_FAILED = Struct("<Ii")  # slot, errno
EXIT_ERROR = Struct("<I")  # pid of the worker; the body is the error
EXITED = Struct("<IIi")  # slot, pid, wait status
MARKS = Struct("<dd")  # of a segment with one job
MARK = Struct("<d")  # a time (monotonic seconds); RECALL of a scribe: when the jobs were added, before their batch

# Jobs that come through a door: the number of the door and of the client stand above the client's own ids for them.
CLIENT_BITS = 40  # an id shifted right by this many bits tells the client; 0 is the pool's owner
DOOR_BITS = 56  # and by this many, the door
OWN_ID = (1 << CLIENT_BITS) - 1  # the bits that are the client's own
FIRST_CLIENT_ID = 1 << DOOR_BITS
LAST_DOOR, LAST_CLIENT = (1 << 7) - 2, (1 << DOOR_BITS - CLIENT_BITS) - 1  # so that ids stay below 2**63
FIRST_RERUN_ID = LAST_DOOR + 1 << DOOR_BITS  # from here on: jobs that an operator had run once more
# With a journal, those of clients that are kept have no door's number, and clients' numbers from this one on:
FIRST_KEPT_CLIENT = 1 << 15
LISTEN = Struct("<I")  # number of the door; its process is at the other end of the socket that comes along
CLIENT_GONE = Struct("<QI")  # number of a request, and of the client: what it has queued or running is nobody's.
# LINE_END, with the same: all goes by the door again. CLIENT_LINE has the client's number (COUNT), and its line's fd
CREDIT = Struct("<Q")  # bytes of results that a client has taken in since it came
PIECE = Struct("<QQ")  # of a frame that is larger than a message may be: all its bytes, and where this piece starts


def unpack(layout: Struct, head: memoryview) -> tuple[Any, ...]:
    """What is in a frame's head. ProtocolError when that is not of the layout's size."""
    if len(head) != layout.size:
        raise ProtocolError(f"a head of {len(head)} bytes instead of {layout.size}")
    return layout.unpack(head)
