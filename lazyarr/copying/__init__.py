"""Arrays without userfaultfd: what is asked for is loaded, and copied out.

Above `lazyarr.client`, of which it uses what does not need the kernel: indexes, residency,
descriptions.  Nothing here needs Linux.
"""
