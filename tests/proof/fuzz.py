"""Fuzzes what comes from outside: program files, texts, random graphs, random PyTorch modules, ONNX files.

    python tests/proof/fuzz.py                                            an hour of CPU time in all, on every core
    python tests/proof/fuzz.py --minutes 5 programs                       one kind for five minutes
    python tests/proof/fuzz.py --core build/sanitize/_core.abi3.so texts  on another build of the core (make sanitize)

Each case is a seed of tests/support/fuzz_<kind>.py, run in a child process with bounds on memory and time, so that a
crash, a hang and a case that takes all memory are found too, and the next seed goes on. Exit status 1 if anything was
found; a case is run again by `--seed N --cases 1`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
KINDS = ("programs", "library", "texts", "graphs", "modules", "onnx")
MEMORY = 16 << 30  # bytes of address space of a child
PATIENCE = 120  # seconds for a case, of which the slowest take a few
LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so.6")


def child(kind: str, seed: int, cases: int) -> None:
    """Runs seeds until it is stopped: a line of JSON before each, and one behind it.

    Nothing else reaches standard output, whatever a library or a build of the core prints there.
    """
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if "LTC_CORE" in os.environ:
        importlib.import_module("chosen_core")  # puts that core in place
    else:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # a sanitizer maps more than that
    case = importlib.import_module(f"fuzz_{kind}").case
    for number in range(seed, seed + cases):
        print(json.dumps({"begin": number}), file=reports, flush=True)
        signal.alarm(PATIENCE)
        try:
            result = {"outcome": case(number)}
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})"
            result = {"outcome": "FOUND", "what": what}
        signal.alarm(0)
        print(json.dumps(result), file=reports, flush=True)


def events(kind: str, seed: int, cases: int, core: str | None) -> Iterator[dict[str, Any]]:
    """What a child says, and how it ended if that was not its own end."""
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    if core is not None:
        paths = [_library(name) for name in LIBRARIES]
        environment |= {"LTC_CORE": core, "LD_PRELOAD": " ".join(paths), "ASAN_OPTIONS": "detect_leaks=0",
                        "SKBUILD_EDITABLE_SKIP": str(ROOT / "build" / "editable")}  # fmt: skip
    command = [sys.executable, __file__, "--child", "--seed", str(seed), "--cases", str(cases), kind]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for line in process.stdout:
            yield json.loads(line)
        complaint = process.stderr.read()
        if process.wait():
            yield {"died": process.returncode, "complaint": complaint[-2000:]}
    finally:
        process.kill()
        process.wait()


def _library(name: str) -> str:
    done = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Tally:
    """Outcomes and what was found, of one kind, by several processes at once."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.found: list[str] = []

    def add(self, kind: str, number: int, event: dict[str, Any]) -> None:
        outcome = event.get("outcome", "FOUND")
        self.outcomes[outcome] += 1
        if outcome == "FOUND":
            what = event.get("what") or f"the process died with {event['died']}: {event['complaint']}"
            self.found.append(f"{kind} {number}: {what}")
            tqdm.write(self.found[-1], file=sys.stdout)


def fuzz(kind: str, seconds: float, seed: int, cases: int, core: str | None, tally: Tally, bar: Any) -> None:
    """The seeds from `seed` on, for so long, one process after the other."""
    begin, number, last = time.monotonic(), seed, seed + cases
    while number < last and time.monotonic() - begin < seconds:
        for event in events(kind, number, last - number, core):
            if "begin" not in event:
                tally.add(kind, number - 1, event)
                continue
            number = event["begin"] + 1
            if bar is not None:
                bar.n = min(bar.total, round(time.monotonic() - begin))
                bar.set_postfix(cases=tally.outcomes.total(), found=len(tally.found), refresh=False)
                bar.update(0)
            if time.monotonic() - begin >= seconds:
                break


def fuzz_on_every_core(kind: str, seconds: float, given: argparse.Namespace) -> Tally:
    """One kind for so many seconds of CPU time: each core has its part of the seeds."""
    tally, form = Tally(), "{l_bar}{bar}| {n_fmt}/{total_fmt} s{postfix}"
    jobs = min(given.jobs, given.cases)
    part = given.cases // jobs
    with (
        tqdm(total=round(seconds / jobs), desc=kind, bar_format=form, mininterval=1) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        work = [
            pool.submit(fuzz, kind, seconds / jobs, given.seed + job * part, part, given.core, tally, shown)
            for job, shown in enumerate([bar, *[None] * (jobs - 1)])
        ]
        for done in work:
            done.result()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--minutes", type=float, default=60.0, help="of CPU time, for all kinds together")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--cases", type=int, default=1 << 30, help="of each kind, at most")
    parser.add_argument("--core", help="another build of the C++ core, with sanitizers")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"there is no kind {', '.join(sorted(unknown))}")
    if given.child:
        return child(given.kinds[0], given.seed, given.cases)
    importlib.import_module("ltc_compiler")  # builds the core if it is old, before all children do so at once
    found: list[str] = []
    for kind in given.kinds:
        tally = fuzz_on_every_core(kind, 60 * given.minutes / len(given.kinds), given)
        found += tally.found
        listed = ", ".join(f"{n} {outcome}" for outcome, n in tally.outcomes.most_common())
        print(f"{kind}: {tally.outcomes.total()} cases: {listed}")
    if found:
        sys.exit(f"{len(found)} found:\n" + "\n".join(found))
    return None


if __name__ == "__main__":
    main()
