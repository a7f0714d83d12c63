"""A script that says what it had imported when.

Run by its path, so that nothing but the interpreter has imported anything before.  Its arguments
are a store, and what stands in for the interpreter that is the pager's.
"""

import sys


def main(store, python):
    sys.executable = python
    before_pager = {}

    def note(event, _):
        if event == "os.posix_spawn":
            before_pager.update(sys.modules)

    sys.addaudithook(note)
    import lazyarr

    row = lazyarr.open(store)[5]
    at_first_row = set(sys.modules)
    import json

    print(json.dumps([int(row.sum()), sorted(before_pager), sorted(at_first_row)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
