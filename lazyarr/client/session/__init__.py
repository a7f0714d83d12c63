"""This process's tie to its pager: the session, its regions, forks, and messages.

Public: `process`, which has the one session of this process, and `region`.
Not here: arrays as users see them (`arrays`).
"""
