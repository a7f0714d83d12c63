"""Numbers against the C compiler, and against the manual where no header has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lazyarr.kernel import Advice, libc, mapping, rename, uapi

# The structures are declared here, as ioctl_userfaultfd(2) gives them, for numbers that
# the header on this machine is too old to have: the compiler computes those from the
# manual's formula.  A number that the header has is taken from the header.
C_PROGRAM = r"""
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
struct manual_move { __u64 dst, src, len, mode; __s64 move; };
struct manual_poison { struct uffdio_range range; __u64 mode; __s64 updated; };
#ifndef UFFDIO_CONTINUE
struct manual_continue { struct uffdio_range range; __u64 mode; __s64 mapped; };
#define UFFDIO_CONTINUE _IOWR(0xAA, 0x07, struct manual_continue)
#endif
#ifndef UFFDIO_MOVE
#define UFFDIO_MOVE _IOWR(0xAA, 0x05, struct manual_move)
#endif
#ifndef UFFDIO_POISON
#define UFFDIO_POISON _IOWR(0xAA, 0x08, struct manual_poison)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define SAY(name) printf("%s %llu\n", #name, (unsigned long long)(name));
int main(void) {
  @SAYS@
  printf("sizeof_msg %zu\nsizeof_api %zu\nsizeof_register %zu\nsizeof_range %zu\n"
         "sizeof_copy %zu\nsizeof_zeropage %zu\nsizeof_writeprotect %zu\n",
         sizeof(struct uffd_msg), sizeof(struct uffdio_api), sizeof(struct uffdio_register),
         sizeof(struct uffdio_range), sizeof(struct uffdio_copy),
         sizeof(struct uffdio_zeropage), sizeof(struct uffdio_writeprotect));
  return 0;
}
"""

REQUESTS = {
    "USERFAULTFD_IOC_NEW": (uapi.USERFAULTFD_IOC_NEW, 0, 0x00, 0),
    "UFFDIO_API": (uapi.UFFDIO_API, 3, 0x3F, 24),
    "UFFDIO_REGISTER": (uapi.UFFDIO_REGISTER, 3, 0x00, 32),
    "UFFDIO_UNREGISTER": (uapi.UFFDIO_UNREGISTER, 2, 0x01, 16),
    "UFFDIO_WAKE": (uapi.UFFDIO_WAKE, 2, 0x02, 16),
    "UFFDIO_COPY": (uapi.UFFDIO_COPY, 3, 0x03, 40),
    "UFFDIO_ZEROPAGE": (uapi.UFFDIO_ZEROPAGE, 3, 0x04, 32),
    "UFFDIO_MOVE": (uapi.UFFDIO_MOVE, 3, 0x05, 40),
    "UFFDIO_WRITEPROTECT": (uapi.UFFDIO_WRITEPROTECT, 3, 0x06, 24),
    "UFFDIO_CONTINUE": (uapi.UFFDIO_CONTINUE, 3, 0x07, 32),
    "UFFDIO_POISON": (uapi.UFFDIO_POISON, 3, 0x08, 32),
}


def _constants() -> dict[str, int]:
    """Return every number of ours by its name in C."""
    names = {name: row[0] for name, row in REQUESTS.items()}
    names |= {
        "UFFD_API": uapi.UFFD_API,
        "UFFD_USER_MODE_ONLY": uapi.USER_MODE_ONLY,
        "UFFDIO_COPY_MODE_DONTWAKE": uapi.InstallMode.DONTWAKE,
        "UFFDIO_COPY_MODE_WP": uapi.InstallMode.WP,
        "UFFDIO_ZEROPAGE_MODE_DONTWAKE": uapi.InstallMode.DONTWAKE,
        "UFFDIO_CONTINUE_MODE_DONTWAKE": uapi.InstallMode.DONTWAKE,
        "UFFDIO_CONTINUE_MODE_WP": uapi.InstallMode.WP,
        "UFFDIO_POISON_MODE_DONTWAKE": uapi.InstallMode.DONTWAKE,
        "UFFDIO_WRITEPROTECT_MODE_WP": uapi.WriteProtectMode.WP,
        "UFFDIO_WRITEPROTECT_MODE_DONTWAKE": uapi.WriteProtectMode.DONTWAKE,
        "MAP_NORESERVE": mapping._MAP_NORESERVE,
        "MAP_FIXED": mapping._MAP_FIXED,
        "MAP_FIXED_NOREPLACE": mapping._MAP_FIXED_NOREPLACE,
        "MFD_NOEXEC_SEAL": mapping._MFD_NOEXEC_SEAL,
        "FALLOC_FL_PUNCH_HOLE": mapping._FALLOC_PUNCH_HOLE,
        "FALLOC_FL_KEEP_SIZE": mapping._FALLOC_KEEP_SIZE,
        "RENAME_EXCHANGE": rename._RENAME_EXCHANGE,
    }
    names |= {f"UFFD_FEATURE_{bit.name}": bit for bit in uapi.Features}
    names |= {f"UFFDIO_REGISTER_MODE_{bit.name}": bit for bit in uapi.RegisterMode}
    names |= {f"_UFFDIO_{bit.name}": int(bit).bit_length() - 1 for bit in uapi.Ioctls}
    names |= {f"UFFD_EVENT_{event.name}": event for event in uapi.Event}
    names |= {f"UFFD_PAGEFAULT_FLAG_{bit.name}": bit for bit in uapi.FaultFlag}
    names |= {f"MADV_{advice.name}": advice for advice in Advice}
    names |= {f"SYS_{name}": libc.syscall_number(name) for name in ("userfaultfd", "renameat2")}
    return names


@pytest.fixture(scope="module")
def c_values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the C compiler makes of each name that the headers on this machine have."""
    folder: Path = tmp_path_factory.mktemp("uapi")
    says = "\n".join(f"#ifdef {name}\nSAY({name})\n#endif" for name in _constants())
    (folder / "numbers.c").write_text(C_PROGRAM.replace("@SAYS@", says))
    subprocess.run(["cc", "-o", "numbers", "numbers.c"], cwd=folder, check=True, timeout=60)
    printed = subprocess.run(
        [folder / "numbers"], capture_output=True, text=True, check=True, timeout=60
    )
    rows = (line.rsplit(" ", 1) for line in printed.stdout.splitlines())
    return {name: int(value) for name, value in rows}


@pytest.mark.parametrize("name", REQUESTS)
def test_request_number_is_what_the_manual_computes(name: str) -> None:
    """A request number is its direction, argument size, magic 0xAA and operation."""
    found, direction, number, nbytes = REQUESTS[name]
    assert found == (direction << 30) + (nbytes << 16) + (0xAA << 8) + number


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_every_number_that_the_c_headers_have_is_ours(c_values: dict[str, int]) -> None:
    """The C compiler computes the same numbers from linux/userfaultfd.h and its kin."""
    ours = _constants()
    found = {name: value for name, value in c_values.items() if name in ours}
    assert found == {name: ours[name] for name in found}
    assert set(REQUESTS) <= set(found)
    assert {"UFFD_FEATURE_MINOR_SHMEM", "UFFD_EVENT_PAGEFAULT", "MADV_DONTFORK"} <= set(found)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_structures_have_the_sizes_of_the_c_header(c_values: dict[str, int]) -> None:
    """Each layout is as long as the structure that it stands for."""
    assert c_values["sizeof_msg"] == uapi.MESSAGE_LAYOUT.size == 32
    assert c_values["sizeof_api"] == uapi.API_LAYOUT.size
    assert c_values["sizeof_register"] == uapi.REGISTER_LAYOUT.size
    assert c_values["sizeof_range"] == uapi.RANGE_LAYOUT.size
    assert c_values["sizeof_copy"] == uapi.COPY_LAYOUT.size
    assert c_values["sizeof_zeropage"] == uapi.RANGE_MODE_RESULT_LAYOUT.size
    assert c_values["sizeof_writeprotect"] == uapi.RANGE_MODE_LAYOUT.size


def test_a_bit_without_a_name_is_kept() -> None:
    """A feature of a later kernel neither fails nor gets lost."""
    features = uapi.Features(1 << 40 | 1 << 14)
    assert features & uapi.Features.POISON
    assert int(features) == 1 << 40 | 1 << 14
