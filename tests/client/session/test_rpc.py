"""Questions to a pager that a thread plays, over real channels."""

from __future__ import annotations

import os
import threading
import warnings

import pytest

from lazyarr.client.session.rpc import PendingRequest, Rpc
from lazyarr.errors import PagerError, PerformanceWarning
from lazyarr.known import identity_of
from lazyarr.wire import messages as w

NOTICE = {"url": "u", "array": "a", "units": 4, "units_loaded": 16}
FAILURE = {"message": "a chunk is damaged"}


def answer(_, channel, message):
    """Answer as a pager does that has everything."""
    if isinstance(message, w.WantStatistics):
        channel.send(w.Statistics(message.ticket, {"clients": 1}))
    else:
        channel.send(w.Done(message.ticket, []))


def request(ticket: int) -> w.Request:
    return w.Request(ticket, 7, [[0, 1]], [])


def never() -> None:
    raise AssertionError("no worker has taken over")


class DyingFirst:
    """Dies at its first questions, without an answer, and answers those that follow."""

    def __init__(self, n_deaths: int) -> None:
        self._n_left = n_deaths

    def __call__(self, pager, channel, message):
        if self._n_left:
            self._n_left -= 1
            pager.die()
        else:
            answer(pager, channel, message)


class Backwards:
    """Answers once it has so many questions: the last one first."""

    def __init__(self, n_questions: int) -> None:
        self._n_questions = n_questions
        self._asked = []

    def __call__(self, pager, channel, message):
        self._asked.append((channel, message))
        if len(self._asked) == self._n_questions:
            while self._asked:
                answer(pager, *self._asked.pop())


# --- answers ----------------------------------------------------------------------------


def test_questions_one_after_the_other_share_a_channel(play):
    """Each is answered by what it asks for."""
    pager = play(answer)
    rpc = Rpc(pager.control, never)
    tickets = [rpc.new_ticket() for _ in range(3)]
    assert len(set(tickets)) == 3
    assert rpc.ask(w.WantStatistics(tickets[0]), w.Statistics).document == {"clients": 1}
    for ticket in tickets[1:]:
        assert rpc.ask(request(ticket), w.Done) == w.Done(ticket, [])
    assert [message.ticket for message in pager.heard] == tickets
    assert pager.n_opened == 1
    rpc.close()


def test_answers_in_another_order_find_who_has_asked(play):
    """Three threads wait at once, and two questions were sent to be waited for later."""
    pager = play(Backwards(5))
    rpc = Rpc(pager.control, never)
    found = {}

    def ask(ticket: int) -> None:
        found[ticket] = rpc.ask(request(ticket), w.Done).ticket

    pending = [rpc.begin(request(ticket)) for ticket in (1, 2)]
    threads = [threading.Thread(target=ask, args=(ticket,)) for ticket in (3, 4, 5)]
    for thread in threads:
        thread.start()
    assert [each.wait().ticket for each in pending] == [1, 2]
    for thread in threads:
        thread.join()
    assert found == {3: 3, 4: 4, 5: 5}
    assert pager.n_opened == 5
    rpc.close()


def test_descriptors_come_with_an_answer(play, pipe):
    """The caller owns them."""

    def give(_, channel, message):
        channel.send(w.Found(message.ticket, 7, 0, 0), pipe)

    pager = play(give)
    rpc = Rpc(pager.control, never)
    found, descriptors = rpc.exchange(w.WantRegion(1, 7, "layout"), w.Found)
    assert found == w.Found(1, 7, 0, 0)
    assert [identity_of(fd) for fd in descriptors] == [identity_of(fd) for fd in pipe]
    for descriptor in descriptors:
        os.close(descriptor)
    rpc.close()


def test_units_that_failed_are_part_of_the_answer(play):
    """The others are there, so the caller decides what is raised."""
    pager = play(lambda _, channel, message: channel.send(w.Done(message.ticket, [FAILURE])))
    rpc = Rpc(pager.control, never)
    assert rpc.ask(request(1), w.Done).failures == [FAILURE]
    assert rpc.begin(request(2)).wait().failures == [FAILURE]
    rpc.close()


def test_where_no_unit_can_fail_a_failure_is_a_refusal(play):
    """Advice is never about a chunk."""
    pager = play(lambda _, channel, message: channel.send(w.Done(message.ticket, [FAILURE])))
    rpc = Rpc(pager.control, never)
    with pytest.raises(PagerError, match=r"^a chunk is damaged$"):
        rpc.ask(w.Advise(1, 7, 0, 1, "random"), w.Done)
    rpc.close()


def test_an_answer_to_something_else_costs_the_channel(play):
    """What would come on it next is not known."""
    pager = play(lambda _, channel, message: channel.send(w.Pong()))
    rpc = Rpc(pager.control, never)
    for _ in range(2):
        with pytest.raises(PagerError, match="expected Done, found Pong"):
            rpc.ask(request(1), w.Done)
    assert pager.n_opened == 2
    rpc.close()


@pytest.mark.parametrize("ask", [Rpc.ask, lambda rpc, message, _: rpc.begin(message).wait()])
def test_notices_are_shown_where_the_answer_is_had(play, ask):
    """Once: a warning as an error is raised there, and the channel is lent again."""
    pager = play(lambda _, channel, message: channel.send(w.Done(message.ticket, [], [NOTICE])))
    rpc = Rpc(pager.control, never)
    with pytest.warns(PerformanceWarning, match="'a' of u") as shown:
        ask(rpc, request(1), w.Done)
    assert len(shown) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PerformanceWarning):
            ask(rpc, request(2), w.Done)
    with pytest.warns(PerformanceWarning):
        ask(rpc, request(3), w.Done)
    assert pager.n_opened == 1
    rpc.close()


# --- workers that die -------------------------------------------------------------------


@pytest.mark.parametrize("ask", [Rpc.ask, lambda rpc, message, _: rpc.begin(message).wait()])
def test_the_next_worker_is_asked_again(play, ask):
    """With the same words, on another channel, and after `on_takeover`."""
    pager = play(DyingFirst(2))
    told = []
    rpc = Rpc(pager.control, lambda: told.append(len(pager.heard)))
    assert ask(rpc, request(1), w.Done) == w.Done(1, [])
    assert pager.heard == [request(1)] * 3
    assert pager.n_opened == 3
    assert told == [1, 2]
    rpc.close()


def test_a_worker_that_dies_between_questions_is_noticed_by_the_next(play):
    """Its channel cannot be sent on, or ends; the one that takes over is asked."""
    pager = play(lambda pager, channel, message: (answer(pager, channel, message), pager.die()))
    told = []
    rpc = Rpc(pager.control, lambda: told.append(None))
    for ticket in (1, 2, 3):
        assert rpc.ask(request(ticket), w.Done).ticket == ticket
        assert rpc.is_usable()
    assert len(told) == 2
    assert {message.ticket for message in pager.heard} == {1, 2, 3}
    rpc.close()


def test_a_question_at_which_every_worker_dies_is_given_up(play):
    """As an error that says what it was."""
    pager = play(lambda pager, *_: pager.die())
    told = []
    rpc = Rpc(pager.control, lambda: told.append(None))
    with pytest.raises(PagerError, match="died 64 times while they were asked for a Advise"):
        rpc.ask(w.Advise(1, 7, 0, 1, "random"), w.Done)
    assert len(pager.heard) == len(told) == 64
    assert not rpc.is_broken
    rpc.close()


# --- the end ------------------------------------------------------------------------------


def test_without_a_supervisor_nobody_takes_over(play):
    """Who asks is told at once, and who asks next without that anything is sent."""
    pager = play(lambda pager, *_: pager.end())
    rpc = Rpc(pager.control, never)
    for _ in range(2):
        with pytest.raises(PagerError, match="the pager is gone; open the dataset again"):
            rpc.ask(request(1), w.Done)
    with pytest.raises(PagerError, match="the pager is gone"):
        rpc.begin(request(1))
    assert pager.heard == [request(1)]
    assert (rpc.is_broken, rpc.is_usable()) == (True, False)
    rpc.close()


@pytest.mark.parametrize("ask", [Rpc.ask, lambda rpc, message, _: rpc.begin(message).wait()])
def test_a_pager_that_is_gone_before_it_is_asked_is_said_to_be_gone(channels, ask):
    """Also where no channel was open to ask on, and none can be opened."""
    control, in_pager = channels
    rpc = Rpc(control, never)
    in_pager.close()
    with pytest.raises(PagerError, match="the pager is gone; open the dataset again"):
        ask(rpc, request(1), w.Done)
    assert rpc.is_broken


def test_who_gives_up_says_why(play):
    """A child that could not join its parent's pager."""
    pager = play(answer)
    rpc = Rpc(pager.control, never)
    rpc.give_up("an example of a reason")
    with pytest.raises(PagerError, match=r"^an example of a reason$"):
        rpc.ask(request(1), w.Done)
    with pytest.raises(PagerError, match=r"^an example of a reason$"):
        rpc.begin(request(1))
    assert not rpc.is_usable()
    assert pager.heard == []
    rpc.close()


def test_a_channel_that_other_code_has_closed_is_the_reason(play, pipe):
    """What has its number is left alone."""
    pager = play(answer)
    rpc = Rpc(pager.control, never)
    taken = pager.control.fileno()
    assert rpc.is_usable()
    os.dup2(pipe[0], taken)
    assert not rpc.is_usable()
    with pytest.raises(PagerError, match="closed lazyarr's descriptors"):
        rpc.ask(request(1), w.Done)
    rpc.close()
    assert identity_of(taken) == identity_of(pipe[0])
    os.close(taken)


def test_leaving_ends_no_channel(play):
    """The pager goes on to serve threads that touch arrays while the interpreter ends."""
    pager = play(answer)
    rpc = Rpc(pager.control, never)
    rpc.ask(request(1), w.Done)
    descriptors = [channel.fileno() for channel in rpc._channels._all]
    assert len(descriptors) == 2
    rpc.leave()
    assert rpc.is_leaving
    assert pager.control.fileno() == -1
    assert rpc.is_usable()  # nobody looks any more
    ends = (pager._in_pager, *pager._channels.values())
    assert [end.is_hung_up() for end in ends] == [False, False]
    for descriptor in descriptors:
        os.close(descriptor)


# --- questions that are waited for later ----------------------------------------------------


def test_a_question_that_is_cancelled_ends_its_channel_alone(play):
    """Its answer can be taken for nobody else's; giving it up twice is nothing."""
    pager = play(Backwards(2))
    rpc = Rpc(pager.control, never)
    given_up, other = rpc.begin(request(1)), rpc.begin(request(2))
    given_up.cancel()
    given_up.cancel()
    assert other.wait().ticket == 2
    other.cancel()  # it is answered: the channel is lent again
    pager._act = answer
    assert rpc.ask(request(3), w.Done).ticket == 3
    assert pager.n_opened == 2
    rpc.close()


def test_waiting_that_is_interrupted_gives_the_question_up(play, monkeypatch):
    """The answer is on its way, and nobody else must get it."""
    pager = play(answer)
    rpc = Rpc(pager.control, never)
    pending = rpc.begin(request(1))

    def interrupted(*_):
        raise KeyboardInterrupt

    channel = pending._channel
    monkeypatch.setattr(channel, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pending.wait()
    assert channel.fileno() == -1
    assert rpc.ask(request(2), w.Done).ticket == 2
    assert pager.n_opened == 2
    rpc.close()


def test_a_pending_request_ends_with_what_its_answer_means(play):
    """Of a failure the caller makes an error."""
    pager = play(lambda _, channel, message: channel.send(w.Done(message.ticket, [FAILURE])))
    rpc = Rpc(pager.control, never)
    ended = []
    PendingRequest(rpc.begin(request(1)), ended.append).wait()
    assert ended == [w.Done(1, [FAILURE])]
    cancelled = PendingRequest(rpc.begin(request(2)), ended.append)
    cancelled.cancel()
    assert len(ended) == 1
    rpc.close()
