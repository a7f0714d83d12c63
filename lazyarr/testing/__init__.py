"""Fakes that are public: stores and servers that are slow, broken or wrong on command."""

from lazyarr.testing.http_server import Behaviour, HttpRequest, HttpServer, serve_directory
from lazyarr.testing.process import ServerProcess, serve_commands
from lazyarr.testing.stores import Call, FaultyStore, LatencyStore, Misbehaviour, random_plan

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
