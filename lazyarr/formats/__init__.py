"""File formats: their documents are parsed here, and become layouts.

Public: one package or module for each format; `base` says what a format is, `registry` which one
opens a URL.
Not here: reading chunks (`lazyarr.reading`) and codecs (`lazyarr.codecs`), which know no format.
"""
