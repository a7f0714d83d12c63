"""lazyarr's arrays in other libraries, each of which has a module of its name here.

They use lazyarr's public interface alone.  None is imported unless its library is used: by an
entry point of `pyproject.toml`, or by a method that the library's name is part of.
"""
