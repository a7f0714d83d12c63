"""Two kinds of work that exclude one another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from lazyarr.copying.rooms import Rooms


def test_nobody_is_beside_the_other_kind_and_everybody_gets_in():
    """Many of one kind are in at once, and none starves, however many come."""
    rooms, inside, seen = Rooms(), [0, 0], set()
    lock, together = threading.Lock(), threading.Barrier(2)

    def work(number):
        room = number % 2
        for _ in range(200):
            with rooms.inside(room):
                with lock:
                    inside[room] += 1
                    seen.add((inside[0] > 0, inside[1] > 0))
                with lock:
                    inside[room] -= 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert seen == {(True, False), (False, True)}

    def meet(_):
        with rooms.inside(0):
            together.wait(20)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(meet, range(2)))
    assert repr(rooms) == "<Rooms: [0, 0] inside, [0, 0] waiting>"


def test_who_waits_for_the_other_room_comes_before_newcomers():
    """Those who come while somebody waits do not go past."""
    rooms, order, left = Rooms(), [], threading.Event()

    def enter(room):
        with rooms.inside(room):
            order.append(room)

    with ThreadPoolExecutor(2) as threads:
        with rooms.inside(0):
            waiting = threads.submit(enter, 1)
            while rooms.is_free(0):  # until it waits
                left.wait(0.001)
            newcomer = threads.submit(enter, 0)
        waiting.result(20)
        newcomer.result(20)
    assert order == [1, 0]
