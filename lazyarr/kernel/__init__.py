"""userfaultfd and mappings: the only place that makes these calls.

Layers, lowest first: `uapi` the numbers; `outcome` and `events` what the kernel
answers, as values; `descriptor` and `raw` the calls; `handle` the typed handle.
Beside them `mapping` and `buffers`, `probing`, `lifeline`,
`threads`, `holding`, `birth`, `rename`, `locking`, `status` and `written`.

Public: the names below, and `diagnosis`, which says why userfaultfd cannot be used.
Not here: policy.  Nothing here knows of arrays, units, clients or the pager.
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.kernel.birth import HERE, arrive, is_fork_seen, may_start_threads, renew_in_child
    from lazyarr.kernel.buffers import ScratchBuffer, buffer_address, memory_view
    from lazyarr.kernel.diagnosis import Attempt, Surroundings, feature_names
    from lazyarr.kernel.events import Fault
    from lazyarr.kernel.handle import Userfaultfd
    from lazyarr.kernel.holding import allow_holding, hold_still, must_allow_holding
    from lazyarr.kernel.identity import Identity, current_identity
    from lazyarr.kernel.lifeline import arm_lifeline, disarm_lifeline, pidfd_open
    from lazyarr.kernel.locking import (
        alone_with,
        holds_lock,
        leave_alone_in_child,
        lock_holder,
        lock_taker,
        try_lock,
    )
    from lazyarr.kernel.mapping import (
        PAGE_NBYTES,
        Advice,
        Protection,
        create_memfd,
        in_core,
        madvise,
        map_private,
        map_shared,
        protect,
        punch_hole,
        reserve,
        resize_memfd,
        seal_memfd,
        unmap,
    )
    from lazyarr.kernel.outcome import Operation, Outcome, Stop, decode_outcome
    from lazyarr.kernel.probing import WRITE_BACK, KernelSupport, probe
    from lazyarr.kernel.rename import exchange_paths
    from lazyarr.kernel.status import Stamp, current_stamp, stamp_of
    from lazyarr.kernel.threads import (
        arm_once,
        has_handler,
        is_armed,
        is_deaf,
        read_turns,
        signal_main_thread,
        signal_thread,
    )
    from lazyarr.kernel.timer import Timer
    from lazyarr.kernel.uapi import Features, InstallMode, Ioctls, RegisterMode, WriteProtectMode
    from lazyarr.kernel.written import find_written, read_memory

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
    "WRITE_BACK",
    "KernelSupport",
    "probe",
    "Attempt",
    "Surroundings",
    "feature_names",
    "PAGE_NBYTES",
    "Advice",
    "Protection",
    "create_memfd",
    "in_core",
    "madvise",
    "map_private",
    "map_shared",
    "protect",
    "punch_hole",
    "reserve",
    "resize_memfd",
    "seal_memfd",
    "unmap",
    "ScratchBuffer",
    "buffer_address",
    "memory_view",
    "arm_lifeline",
    "disarm_lifeline",
    "pidfd_open",
    "HERE",
    "arrive",
    "is_fork_seen",
    "may_start_threads",
    "renew_in_child",
    "allow_holding",
    "hold_still",
    "must_allow_holding",
    "arm_once",
    "has_handler",
    "is_armed",
    "is_deaf",
    "read_turns",
    "signal_main_thread",
    "signal_thread",
    "exchange_paths",
    "alone_with",
    "holds_lock",
    "leave_alone_in_child",
    "lock_holder",
    "lock_taker",
    "try_lock",
    "Timer",
    "Identity",
    "current_identity",
    "Stamp",
    "current_stamp",
    "stamp_of",
    "find_written",
    "read_memory",
]

__getattr__ = import_on_use(
    globals(),
    {
        "birth": "HERE arrive is_fork_seen may_start_threads renew_in_child",
        "buffers": "ScratchBuffer buffer_address memory_view",
        "diagnosis": "Attempt Surroundings feature_names",
        "events": "Fault",
        "handle": "Userfaultfd",
        "holding": "allow_holding hold_still must_allow_holding",
        "identity": "Identity current_identity",
        "lifeline": "arm_lifeline disarm_lifeline pidfd_open",
        "locking": "alone_with holds_lock leave_alone_in_child lock_holder lock_taker try_lock",
        "mapping": "PAGE_NBYTES Advice Protection create_memfd in_core madvise"
        " map_private map_shared protect punch_hole reserve resize_memfd seal_memfd unmap",
        "outcome": "Operation Outcome Stop decode_outcome",
        "probing": "WRITE_BACK KernelSupport probe",
        "rename": "exchange_paths",
        "status": "Stamp current_stamp stamp_of",
        "threads": "arm_once has_handler is_armed is_deaf read_turns signal_main_thread"
        " signal_thread",
        "timer": "Timer",
        "uapi": "Features InstallMode Ioctls RegisterMode WriteProtectMode",
        "written": "find_written read_memory",
    },
)
