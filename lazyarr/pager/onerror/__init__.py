"""An exception in the main thread in place of SIGBUS: `on_error="raise"`, by ptrace.

Public: `shown_zeros`.
Not here: anything that is needed when nothing fails.
"""
