"""userfaultfd and mappings: the only place that makes these calls.

Layers, lowest first: `uapi` the numbers; `outcome` and `events` what the kernel
answers, as values; `descriptor` and `raw` the calls; `handle` the typed handle.
Beside them `mapping` and `buffers`, `probing`, `lifeline`,
`threads`, `holding`, `rename` and `status`.
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.kernel.buffers import ScratchBuffer, buffer_address, memory_view
    from lazyarr.kernel.diagnosis import Attempt, Surroundings, feature_names
    from lazyarr.kernel.events import Fault
    from lazyarr.kernel.handle import Userfaultfd
    from lazyarr.kernel.holding import allow_holding, hold_still, must_allow_holding
    from lazyarr.kernel.lifeline import arm_lifeline, disarm_lifeline, pidfd_open
    from lazyarr.kernel.mapping import (
        PAGE_NBYTES,
        Advice,
        Protection,
        create_memfd,
        madvise,
        map_private,
        map_shared,
        protect,
        punch_hole,
        reserve,
        unmap,
    )
    from lazyarr.kernel.outcome import Operation, Outcome, Stop, decode_outcome
    from lazyarr.kernel.probing import KernelSupport, probe
    from lazyarr.kernel.rename import exchange_paths, rename_noreplace
    from lazyarr.kernel.status import Stamp, current_stamp, stamp_of
    from lazyarr.kernel.threads import (
        arm_once,
        has_handler,
        is_armed,
        read_turns,
        signal_main_thread,
    )
    from lazyarr.kernel.uapi import Features, InstallMode, Ioctls, RegisterMode, WriteProtectMode

__all__ = [
    "Userfaultfd",
    "Features",
    "RegisterMode",
    "InstallMode",
    "WriteProtectMode",
    "Ioctls",
    "Fault",
    "Operation",
    "Outcome",
    "Stop",
    "decode_outcome",
    "KernelSupport",
    "probe",
    "Attempt",
    "Surroundings",
    "feature_names",
    "PAGE_NBYTES",
    "Advice",
    "Protection",
    "create_memfd",
    "madvise",
    "map_private",
    "map_shared",
    "protect",
    "punch_hole",
    "reserve",
    "unmap",
    "ScratchBuffer",
    "buffer_address",
    "memory_view",
    "arm_lifeline",
    "disarm_lifeline",
    "pidfd_open",
    "allow_holding",
    "hold_still",
    "must_allow_holding",
    "arm_once",
    "has_handler",
    "is_armed",
    "read_turns",
    "signal_main_thread",
    "exchange_paths",
    "rename_noreplace",
    "Stamp",
    "current_stamp",
    "stamp_of",
]

__getattr__ = import_on_use(
    globals(),
    {
        "buffers": "ScratchBuffer buffer_address memory_view",
        "diagnosis": "Attempt Surroundings feature_names",
        "events": "Fault",
        "handle": "Userfaultfd",
        "holding": "allow_holding hold_still must_allow_holding",
        "lifeline": "arm_lifeline disarm_lifeline pidfd_open",
        "mapping": "PAGE_NBYTES Advice Protection create_memfd madvise map_private map_shared"
        " protect punch_hole reserve unmap",
        "outcome": "Operation Outcome Stop decode_outcome",
        "probing": "KernelSupport probe",
        "rename": "exchange_paths rename_noreplace",
        "status": "Stamp current_stamp stamp_of",
        "threads": "arm_once has_handler is_armed read_turns signal_main_thread",
        "uapi": "Features InstallMode Ioctls RegisterMode WriteProtectMode",
    },
)
