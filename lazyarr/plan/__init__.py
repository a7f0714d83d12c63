"""What the pager decides: no I/O, no clock, no threads, no kernel."""
