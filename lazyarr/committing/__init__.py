"""From changed units of an array to the objects of its store.

Public: `Committer`; for the writer of whole stores also `coder` and `objects`.
Not here: which units have changed (the pager, the copying engine), documents
(`lazyarr.writer`), and how a store keeps objects (`lazyarr.store`).
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.committing.committer import Committer

__all__ = ["Committer"]

__getattr__ = import_on_use(globals(), {"committer": "Committer"})
