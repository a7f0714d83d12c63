"""The user's process: it maps the memory of arrays, and asks the pager for units.

Public: `arrays` (what users hold), `session` (the tie to the pager), `pickling`, `array_ref`.
Not here: from a URL to an array (`lazyarr.opening`), and reading and decoding chunks
(`lazyarr.reading`), for which the pager is there.
"""
