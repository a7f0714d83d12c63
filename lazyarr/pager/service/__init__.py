"""What the worker hears and answers: messages and faults in, events for the state machine out.

Public: `server`, which `pager.__main__` starts.
Not here: loading units (`work`), and the calls that install pages (`memory`).
"""
