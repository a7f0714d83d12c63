"""What threads are told that wait for what cannot be had.

Public: `shown_zeros`, an exception in the main thread in place of SIGBUS (`on_error="raise"`, by
ptrace); `refusals`, for threads that want to write.
Not here: anything that is needed when nothing fails.
"""
