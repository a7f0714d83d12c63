"""Fakes that are public: stores and servers that are slow, broken or wrong on command.

Public: the names below, for the tests of other projects too.
Not here: fixtures and helpers of lazyarr's own tests (`tests`).
"""

from lazyarr.testing.faulty import Call, FaultyStore, Misbehaviour, random_plan
from lazyarr.testing.http_server import Behaviour, HttpRequest, HttpServer, serve_directory
from lazyarr.testing.latency import LatencyStore
from lazyarr.testing.process import ServerProcess, serve_commands

__all__ = [
    "LatencyStore",
    "FaultyStore",
    "Misbehaviour",
    "random_plan",
    "Call",
    "serve_directory",
    "HttpServer",
    "Behaviour",
    "HttpRequest",
    "ServerProcess",
    "serve_commands",
]
