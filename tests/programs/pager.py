"""Programs of tests/pager and tests/wire."""

import os
import signal
import sys

from lazyarr.kernel import PAGE_NBYTES, Features, RegisterMode, Userfaultfd, map_private
from lazyarr.pager.lifecycle.supervisor import Supervisor
from lazyarr.wire.channel import Channel, channel_pair
from lazyarr.wire.meeting import connect
from lazyarr.wire.messages import Join, Pong


def work(channel, ledger, inflight, doomed):
    """Die of a question, unless it is known to be deadly."""
    channel.send(Pong())
    print(inflight.n_deaths, sorted(doomed), flush=True)
    if not doomed:
        inflight.begin_answer(0, 7)
        os.kill(os.getpid(), signal.SIGSEGV)


def wait(channel, *_):
    channel.receive()


def a_question_that_ends_three_workers_is_known_to_the_next():
    _ours, theirs = channel_pair()
    Supervisor(theirs.fileno(), work=work, keep_watch=wait, decode=wait).run()


def sends_what_it_has_registered_and_ends(fd):
    channel = Channel.from_descriptor(int(fd))
    uffd = Userfaultfd.open(Features(0), user_mode_only=True)
    address = map_private(PAGE_NBYTES, writable=True)
    uffd.register(address, PAGE_NBYTES, RegisterMode.MISSING)
    channel.send(Join([]), [uffd.fileno()])
    print(address)


def comes_to(name):
    channel = connect(name, timeout_seconds=5)
    print(channel is not None, flush=True)
    sys.stdin.readline()
    received = channel.receive()
    print(received and received.message)
