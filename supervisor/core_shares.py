"""Which processor cores each worker of a version has, where the operator wants workers pinned.

With `cpu_launcher_enable` the peer starts every worker through torch's
`run_cpu`; we take the arguments of that program (`cpu_launcher_args`) and do
what it would do, without a process of its own between a worker and its
supervisor: N workers of a version share the cores out evenly, in order.

Source: contracts/torchserve.md 8.9; the program's own help for the arguments.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from stoker.errors import SettingsError

_FLAGS: Final = frozenset(
    {"use_logical_core", "latency_mode", "throughput_mode", "disable_taskset", "disable_numactl"}
)
_NUMBERS: Final = frozenset({"ninstances", "ncores_per_instance", "node_id", "rank"})
#: Of what the program can do besides: its allocators, its Intel runtime, its logs.
_MOOT_FLAGS: Final = frozenset(
    {
        *("enable_tcmalloc", "enable_jemalloc", "use_default_allocator", "disable_iomp"),
        *("multi_instance", "skip_cross_node_cores"),
    }
)
_MOOT_TEXTS: Final = frozenset({"log_path", "log_file_prefix"})
LATENCY_CORES: Final = 4
#: What torch's threads are told, as the program does; an operator's own value is stronger.
THREAD_VARIABLES: Final = {"KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}


class Processor(NamedTuple):
    """One logical processor: its number, and the core and NUMA node that it is on."""

    number: int
    core: int
    node: int = 0


@dataclass(frozen=True, slots=True)
class LauncherArgs:
    """`cpu_launcher_args`, read.

    Attributes:
        cores_per_instance: Of one worker; 0: an even share.
        instances: Workers that share the cores; 0: as many as the version has.
        core_list: Numbers of processors; () for those of `node`.
        node: -1 for all.
        uses_logical: Every hyper-thread counts, not every core.
        moot: Names of arguments that change nothing here.
    """

    cores_per_instance: int = 0
    instances: int = 0
    core_list: tuple[int, ...] = ()
    node: int = -1
    uses_logical: bool = False
    is_for_latency: bool = False
    is_for_throughput: bool = False
    moot: tuple[str, ...] = ()


def parse_launcher_args(text: str) -> LauncherArgs:
    """Raises SettingsError for what the program would not understand either."""
    try:
        words = shlex.split(text.replace("=", " "))
    except ValueError as error:
        raise _wrong(str(error)) from None
    flags: set[str] = set()
    numbers: dict[str, int] = {}
    core_list: tuple[int, ...] = ()
    moot: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            raise _wrong(f"{word} is no argument")
        if name in _FLAGS:
            flags.add(name)
        elif name in _MOOT_FLAGS:
            moot.append(word)
        elif name in _MOOT_TEXTS:
            next(waiting, "")
            moot.append(word)
        elif name in _NUMBERS:
            numbers[name] = _number(word, next(waiting, ""))
        elif name == "core_list":
            core_list = tuple(_number(word, item) for item in next(waiting, "").split(","))
        else:
            raise _wrong(f"{word} is not known")
    if core_list and "ncores_per_instance" not in numbers:
        raise _wrong("--core_list needs --ncores_per_instance")
    if "rank" in numbers:
        moot.append("--rank")  # every worker has its own
    return LauncherArgs(
        max(0, numbers.get("ncores_per_instance", 0)),
        max(0, numbers.get("ninstances", 0)),
        core_list,
        numbers.get("node_id", -1),
        "use_logical_core" in flags,
        "latency_mode" in flags,
        "throughput_mode" in flags,
        tuple(moot),
    )


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _wrong(f"{name} takes a number, not {text!r}") from None


def _wrong(why: str) -> SettingsError:
    return SettingsError(f"cpu_launcher_args: {why}.", setting="cpu_launcher_args")


def share(
    args: LauncherArgs, processors: Sequence[Processor], count: int, index: int
) -> tuple[int, ...]:
    """The processors of one of `count` workers; at least one.

    Where there are more workers than shares some of them have the same.
    """
    cores = _cores(args, processors)
    if args.is_for_latency:
        each, shares = LATENCY_CORES, len(cores) // LATENCY_CORES
    elif args.is_for_throughput:
        shares = len({processor.node for processor in processors})
        each = len(cores) // shares
    else:
        shares = args.instances or count
        each = args.cores_per_instance or len(cores) // shares
        if args.cores_per_instance:
            shares = len(cores) // each
    each = max(1, min(each, len(cores)))
    shares = max(1, min(shares, len(cores) // each))
    first = index % shares * each
    return tuple(cores[first : first + each])


def _cores(args: LauncherArgs, processors: Sequence[Processor]) -> list[int]:
    """What there is to share out, in order: never nothing."""
    there = {processor.number for processor in processors}
    if wanted := [number for number in sorted(set(args.core_list)) if number in there]:
        return wanted
    is_by_mode = args.is_for_latency or args.is_for_throughput
    chosen = sorted(processors)
    if args.node >= 0 and not is_by_mode:
        chosen = [each for each in chosen if each.node == args.node] or chosen
    if args.uses_logical and not is_by_mode:
        return [processor.number for processor in chosen]
    # The first thread of each core.
    firsts: dict[tuple[int, int], int] = {}
    for processor in chosen:
        firsts.setdefault((processor.node, processor.core), processor.number)
    return sorted(firsts.values())


def thread_environment(args: LauncherArgs, cores: Sequence[int]) -> dict[str, str]:
    """For a worker that starts on these."""
    variables = {"OMP_NUM_THREADS": str(len(cores))}
    # With every hyper-thread in use it would leave half of them idle.
    return variables if args.uses_logical else {**THREAD_VARIABLES, **variables}
