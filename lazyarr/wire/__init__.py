"""Messages between processes, and the channels that carry them and their descriptors.

Public: `messages`, `channel`, `meeting` (joining by a name), `ledger` (what the supervisor keeps)
and `jobs` (for decoders).
Not here: what follows from a message.  The supervisor imports this package and nothing heavier.
"""
