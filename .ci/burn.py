"""Keeps one core busy until it is ended, so that tests beside it wait for the processor."""

while True:
    pass
