"""Parts of a load done by several threads."""

from __future__ import annotations

import threading

import pytest

from lazyarr.pager.work.shared_load import SharedLoad
from lazyarr.reading.workspace import Workspace


@pytest.mark.parametrize("n_helpers", [0, 1, 3])
def test_every_part_is_done_once(n_helpers):
    """However many help, and whenever they come."""
    done: list[int] = []
    team = SharedLoad(500, lambda part, _: done.append(part))
    workspace = Workspace()
    helpers = [threading.Thread(target=team.help, args=(workspace,)) for _ in range(n_helpers)]
    for helper in helpers:
        helper.start()
    team.finish(workspace)
    assert sorted(done) == list(range(500))
    team.help(workspace)
    for helper in helpers:
        helper.join()
    assert len(done) == 500
    workspace.close()


def test_finish_waits_for_who_is_still_at_it():
    """What is not done must not be installed."""
    entered, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def work(part: int, _: Workspace) -> None:
        if threading.current_thread() is helper:
            entered.set()
            assert go_on.wait(20)
        done.append(part)

    team = SharedLoad(3, work)
    workspace = Workspace()
    helper = threading.Thread(target=team.help, args=(workspace,))
    helper.start()
    assert entered.wait(20)
    finisher = threading.Thread(target=team.finish, args=(workspace,))
    finisher.start()
    while len(done) < 2:
        pass
    assert finisher.is_alive()
    go_on.set()
    finisher.join(20)
    helper.join()
    assert sorted(done) == [0, 1, 2]
    workspace.close()


@pytest.mark.parametrize("fails_in", ["helper", "finisher"])
def test_an_error_is_raised_where_the_load_is_done(fails_in):
    """And nobody begins another part after it."""
    workspace = Workspace()
    done: list[int] = []

    def work(part: int, _: Workspace) -> None:
        if part == 2:
            raise ValueError("part 2")
        done.append(part)

    team = SharedLoad(10, work)
    if fails_in == "helper":
        team.help(workspace)
    with pytest.raises(ValueError, match="part 2"):
        team.finish(workspace)
    assert done == [0, 1]
    workspace.close()
