"""References as kerchunk and VirtualiZarr write them: a store whose objects lie in other files.

A key stands for bytes in the references themselves, or for a range of bytes of a *target*: an
HDF5, NetCDF, GRIB or TIFF file, say.  Public: all modules but `templates`, for
`lazyarr.opening.references`.
"""
