"""The process that fills pages, started by the first client and ended with the last.

Public: `__main__`, the program that clients start.  Inside: `lifecycle` (supervisor, sentinel),
`service` (messages and faults), `work` (loads), `memory` (installs), `onerror`; each uses those
that come before it in: `memory`, `onerror`, `lifecycle`, `work`, `service`.
Not here: decisions (`lazyarr.plan`), file formats, and anything that users import.
"""
