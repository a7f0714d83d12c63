"""Arrays without userfaultfd: what is asked for is loaded, and copied out.

Public: `array` (`CopyArray`), `making`, and `loader`, which has the counts of this process.
Not here: what needs Linux.  The package stands above `lazyarr.client`, and uses what does not need
the kernel there: indexes, residency, descriptions.
"""
