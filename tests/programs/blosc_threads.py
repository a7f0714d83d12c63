"""Programs of tests/codecs/test_blosc.py."""

import faulthandler
import os

from lazyarr.codecs.blosc import Blosc


def says_how_many_threads_it_has():
    faulthandler.cancel_dump_traceback_later()  # which has a thread
    codec = Blosc("zstd", 1, 1, 65536, 4)
    stored = codec.encode(bytes(range(256)) * 65536)
    codec.decode_into(stored, memoryview(bytearray(2**24)))
    print(len(os.listdir("/proc/self/task")))


def says_what_it_has_left_to_numcodecs():
    from numcodecs import blosc

    blosc.use_threads = True
    says_how_many_threads_it_has()
    print(blosc.use_threads)
