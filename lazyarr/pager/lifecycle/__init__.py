"""How the pager's processes begin, are watched, and are replaced when they die.

Public: `supervisor`, `sentinel`, `rendezvous`, `ledger_client`, `inflight_record`.
Not here: what a worker does while it lives (`service`, `work`).
"""
