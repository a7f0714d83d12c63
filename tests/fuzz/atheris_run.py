"""Coverage-guided fuzzing of one target: ``python -m tests.fuzz.atheris_run TARGET --seconds N``.

Starts from the seeds and from what was found before, and keeps what it finds worth keeping
in `tests/fuzz/.work`; an input that breaks an invariant is written to
`tests/fuzz/corpus/TARGET`, where a test replays it.  Needs the dependency group "fuzz".
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["lazyarr"]):
    from tests.fuzz import targets

from tests.fuzz.mutation import mutate_input
from tests.fuzz.seeds import seeds

HERE = Path(__file__).parent
WORK = HERE / ".work"
_MAX_NBYTES = 1 << 16
_HANG_SECONDS = 20
_MEMORY_MIB = 2048


def main() -> None:
    """Fuzz a target until the time is up; end with a traceback when an invariant breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=targets.TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    work = WORK / arguments.target
    found = HERE / "corpus" / arguments.target
    for directory in (work, found):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in seeds(arguments.target):
        (work / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    options = [
        sys.argv[0],
        f"-max_total_time={arguments.seconds}",
        f"-max_len={_MAX_NBYTES}",
        f"-timeout={_HANG_SECONDS}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        str(work),
        str(found),
    ]
    atheris.Setup(options, targets.TARGETS[arguments.target], custom_mutator=_mutate)
    atheris.Fuzz()


def _mutate(data: bytes, max_nbytes: int, seed: int) -> bytes:
    """Change an input's structure, or now and then its bytes as libFuzzer does."""
    random = Random(seed)
    if random.random() < 0.3:
        return atheris.Mutate(data, max_nbytes)
    changed = mutate_input(data, random)
    return changed if len(changed) <= max_nbytes else data[:max_nbytes]


if __name__ == "__main__":
    main()
