"""What the pager decides: no I/O, no clock, no threads, no kernel.

Public: `machine` (events in, commands out) and `messages`, for the pager; `link`, `passes`,
`selection` and `coalescing`, for the code that reads.
Not here: whatever makes a call.  The pager's `work` carries out what is decided.
"""
