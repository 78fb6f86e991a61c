"""Deliberate mistakes in every guard, and whether a fast test notices each.

``python bench/mutants.py [--area NAME ...] [--minutes N] [--seed S] [--json FILE]`` changes one comparison, limit,
time-out, boolean term, guard or sign at a time, in memory, and runs the area's tests of pure logic against it. A test
that fails, or runs out of time, has killed the mutant. With ``--minutes`` the mutants are drawn by the seed, areas in
turn; ``--minutes 0`` tries all. Mutants that change nothing are listed with the reason in bench/equivalents.json and
are not counted. ``--check`` ends with 1 when a mutant survived in an area that must be at 100 %, or more than one in
twenty elsewhere.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENTS = ROOT / "bench" / "equivalents.json"
STRICT = ("supervisor", "gate", "output", "guard")  # areas in which no mutant may survive
ELSEWHERE = 0.95
DEFAULT_MINUTES = 9.0


@dataclass(frozen=True)
class Area:
    """Files that are changed, tests that judge them, and functions that only tell or draw."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    skip: frozenset[str] = frozenset()
    select: str = ""  # pytest -k


POWER_TESTS = ("test/power/test_output.py", "test/power/test_control.py", "test/power/test_discharge.py")
AREAS = {
    "supervisor": Area(
        tuple(f"robot_charger/supervisor/{n}.py" for n in ("flow", "interlocks", "permits", "inputs")),
        tuple(f"test/supervisor/test_{n}.py" for n in ("guards", "permits", "ages", "inputs", "flow", "plain_ac")),
    ),
    "gate": Area(("robot_charger/power/gate.py",), ("test/power/test_gate.py", "test/power/test_control.py")),
    "output": Area(("robot_charger/power/output.py",), (*POWER_TESTS, "test/power/test_vehicle_saw.py")),
    "control": Area(
        ("robot_charger/power/control.py",),
        (
            "test/power/test_control_guards.py",
            *POWER_TESTS,
            "test/power/test_vehicle_saw.py",
            "test/power/test_series.py",
        ),
        frozenset({"_snapshot", "_on_wire", "measured_load", "_modules"}),
    ),
    "matrix": Area(("robot_charger/power/matrix.py",), ("test/power/test_matrix.py", "test/power/test_control.py")),
    "pilot": Area(
        ("robot_charger/pilot/logic.py", "robot_charger/pilot/ac.py"),
        ("test/pilot/test_logic.py", "test/pilot/test_ac.py", "test/pilot/test_duty.py"),
    ),
    "chademo": Area(
        ("robot_charger/chademo/logic.py",), ("test/chademo/test_faults.py", "test/chademo/test_sequence.py")
    ),
    "gbt": Area(("robot_charger/gbt/logic.py",), ("test/gbt/test_faults.py", "test/gbt/test_sequence.py")),
    "robot": Area(
        tuple(f"robot_charger/robot/{n}.py" for n in ("motion", "contact", "feel", "state")),
        ("test/robot/test_limits.py", "test/robot/test_search.py", "test/robot/test_motion.py"),
        select="not random_parkings",
    ),
    "backend": Area(
        tuple(f"robot_charger/backend/{n}.py" for n in ("transactions", "store", "tokens")),
        ("test/backend/test_transactions.py", "test/backend/test_tokens.py", "test/backend/test_store.py"),
    ),
    "guard": Area(
        ("robot_charger/guard/logic.py", "robot_charger/guard/frames.py", "robot_charger/common/e2e.py"),
        tuple(f"test/guard/test_{n}.py" for n in ("vectors", "guard", "frames_and_e2e")),
    ),
}


@functools.cache
def read(file: str) -> bytes:
    """The file as it was when its mutants were listed."""
    return (ROOT / file).read_bytes()


@dataclass(frozen=True)
class Mutant:
    """One change: replace ``[start, end)`` of the file's bytes."""

    file: str
    line: int
    code: str  # the line it is in, stripped
    change: str
    start: int
    end: int
    text: str

    def source(self) -> bytes:
        raw = read(self.file)
        return raw[: self.start] + self.text.encode() + raw[self.end :]


@dataclass
class Result:
    """Of one area."""

    mutants: int = 0
    killed: int = 0
    equivalent: int = 0
    of: int = 0  # all that there are
    seconds: float = 0.0
    survivors: list[dict[str, object]] = field(default_factory=list)


# How mistakes are made.

BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPPOSITE = {
    ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def _number(node: ast.AST) -> ast.Constant | None:
    """The node as a changed limit: a tenth more; of whole numbers a third more, and at least one."""
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        return None
    value = node.value
    return ast.Constant(value + max(1, abs(value) // 3) if isinstance(value, int) else value * 1.1 or 1.0)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _expressions(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Changes of one node: (node to replace, its replacement, what was done)."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for table, what in ((BOUNDARY, "boundary"), (OPPOSITE, "opposite")):
                if type(op) in table:
                    changed = copy.deepcopy(node)
                    changed.ops[i] = table[type(op)]()
                    yield node, changed, what
        for i, side in enumerate(node.comparators):
            limit = _number(side)
            if limit:
                changed = copy.deepcopy(node)
                changed.comparators[i] = limit
                yield node, changed, "limit"
    elif isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            kept = node.values[:i] + node.values[i + 1 :]
            yield node, kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept), "term dropped"
        yield node, ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values), "and for or"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, node.operand, "not dropped" if isinstance(node.op, ast.Not) else "sign"
    elif isinstance(node, ast.If) and not isinstance(node.test, ast.Constant):
        yield node.test, ast.Constant(False), "guard dropped"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        if not (_is_text(node.left) or _is_text(node.right) or isinstance(node.left, (ast.List, ast.Tuple))):
            yield (
                node,
                ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right),
                "sign",
            )
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        if node.func.id in ("min", "max"):
            name = ast.Name("max" if node.func.id == "min" else "min")
            yield node, ast.Call(name, node.args, node.keywords), "min for max"
        elif node.func.id == "abs":
            yield node, node.args[0], "abs dropped"
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
        yield node.value, ast.Constant(not node.value.value), "opposite"


def _limits(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Constants of the module and its classes: limits and time-outs."""
    for scope in [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]:
        enumeration = isinstance(scope, ast.ClassDef) and any(
            "Enum" in ast.unparse(b) or "Flag" in ast.unparse(b) for b in scope.bases
        )
        for statement in scope.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None and not enumeration:
                for part in ast.walk(statement.value):
                    limit = _number(part)
                    if limit and part.value not in (0, 0.0):  # type: ignore[attr-defined]
                        yield part, limit, "limit"


def _walk(node: ast.AST, skip: frozenset[str]) -> Iterator[ast.AST]:
    """Every node that decides something: no texts, annotations, assertions, errors."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.JoinedStr, ast.Assert, ast.Raise, ast.arguments)):
            continue
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and child.name in skip:
            continue
        yield child
        if isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield child.value
                yield from _walk(child.value, skip)
            continue
        yield from _walk(child, skip)


def mutants(file: str, skip: frozenset[str] = frozenset()) -> list[Mutant]:
    """Every mistake that can be made in one file, in the order of its lines."""
    raw = read(file)
    lines = raw.split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    tree = ast.parse(raw)
    found: dict[tuple[int, int, str], Mutant] = {}
    changes = [change for node in _walk(tree, skip) for change in _expressions(node)]
    for old, new, what in [*changes, *_limits(tree)]:
        start = starts[old.lineno - 1] + old.col_offset  # type: ignore[attr-defined]
        end = starts[old.end_lineno - 1] + old.end_col_offset  # type: ignore[attr-defined]
        before, after = ast.unparse(old), ast.unparse(ast.fix_missing_locations(new))
        code = lines[old.lineno - 1].decode().strip()  # type: ignore[attr-defined]
        mutant = Mutant(file, old.lineno, code, f"{what}: {before} -> {after}", start, end, f"({after})")  # type: ignore[attr-defined]
        found.setdefault((start, end, after), mutant)
    return sorted(found.values(), key=lambda m: (m.start, m.change))


def equivalents() -> set[tuple[str, str]]:
    """(file, change) of the mutants that change nothing; each has its reason in the file."""
    if not EQUIVALENTS.exists():
        return set()
    return {(row["file"], row["change"]) for row in json.loads(EQUIVALENTS.read_text())}


# How they are tried.


class _Changed(importlib.machinery.SourceFileLoader):
    """Loads the changed source in place of the file."""

    changed: bytes = b""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.changed, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.name = mutant.file.removesuffix(".py").replace("/", ".")
        self.path = str(ROOT / mutant.file)
        self.source = mutant.source()

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _Changed(fullname, self.path)
        loader.changed = self.source
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def _child(area: Area, mutant: Mutant | None, seed: int, told: int) -> None:
    """The forked process: run the tests and never return."""
    os.setsid()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    import pytest

    tests = [t for t in area.tests if (ROOT / t).exists()]
    words = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not alone and not slow", f"--hypothesis-seed={seed}", *tests]
    if area.select:
        words += ["-k", area.select]
    status = int(pytest.main(words))
    if mutant is None:
        ours = ("robot_charger.", "test_", "conftest")
        common = ("robot_charger.common.", "robot_charger.msg", "robot_charger.srv", "robot_charger.action")
        targets = {f.removesuffix(".py").replace("/", ".") for f in area.files}
        names = [
            n for n, m in list(sys.modules.items())
            if n not in targets and (not n.startswith(ours) or n.startswith(common)) and getattr(m, "__spec__", None)
        ]  # fmt: skip
        os.write(told, json.dumps(names).encode())
    os._exit(status)


def attempt(area: Area, mutant: Mutant | None, seed: int, limit_s: float) -> tuple[bool, float, list[str]]:
    """(the tests passed, seconds, modules that may be loaded beforehand)."""
    begun = time.monotonic()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(area, mutant, seed, writer)
    os.close(writer)
    heard = b""
    os.set_blocking(reader, False)
    status = None
    while status is None:
        with_data = _drain(reader)
        heard += with_data
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
        elif time.monotonic() - begun > limit_s:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = -1
        else:
            time.sleep(0.005)
    heard += _drain(reader)
    os.close(reader)
    return status == 0, time.monotonic() - begun, json.loads(heard) if heard else []


def _drain(reader: int) -> bytes:
    data = b""
    while True:
        try:
            block = os.read(reader, 65536)
        except BlockingIOError:
            return data
        if not block:
            return data
        data += block


def prepare(name: str, area: Area, seed: int) -> float:
    """Run the tests on the unchanged code; load what they need. The longest time that a mutant gets [s]."""
    passed, _, modules = attempt(area, None, seed, 600.0)
    if not passed:
        raise SystemExit(f"mutants: the tests of {name} fail on the unchanged code")
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # one that only a test can load
            continue
    _, seconds, _ = attempt(area, None, seed, 600.0)
    return 3.0 * seconds + 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--area", action="append", choices=sorted(AREAS), help="may be given several times")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="0: all mutants, however long it takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true", help="exit status 1 when too many survived")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.dont_write_bytecode = True
    known, queues, results = equivalents(), {}, {}
    for name in arguments.area or AREAS:
        files = [f for f in AREAS[name].files if (ROOT / f).exists()]
        every = [m for f in files for m in mutants(f, AREAS[name].skip)]
        some = [m for m in every if (m.file, m.change) not in known]
        random.Random(arguments.seed).shuffle(some)
        if files:
            queues[name] = some
            results[name] = Result(equivalent=len(every) - len(some), of=len(some))
    if arguments.list:
        for name, queue in queues.items():
            for m in sorted(queue, key=lambda m: (m.file, m.start)):
                print(f"{name} {m.file}:{m.line} {m.change}")
        return 0
    _try_all(queues, results, arguments.minutes, arguments.seed)
    for name, r in results.items():
        share = f"{100.0 * r.killed / r.mutants:5.1f} %" if r.mutants else "    -"
        print(f"{name:10} {r.killed:4} of {r.mutants:4} killed {share}  ({r.of} in all, {r.equivalent} equivalent)")
        for s in r.survivors:
            print(f"    {s['file']}:{s['line']}: {s['change']}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"seed": arguments.seed, "areas": {n: asdict(r) for n, r in results.items()}}, indent=1)
        )
    bad = [n for n, r in results.items() if r.killed < (1.0 if n in STRICT else ELSEWHERE) * r.mutants]
    if arguments.check and bad:
        print(f"mutants: too many survived in {', '.join(bad)}")
        return 1
    return 0


def _try_all(queues: dict[str, list[Mutant]], results: dict[str, Result], minutes: float, seed: int) -> None:
    """Areas in turn, each for the same time, until nothing is left or the time is over."""
    end = time.monotonic() + 60.0 * minutes if minutes else float("inf")
    for number, (name, queue) in enumerate(queues.items()):
        begun = time.monotonic()
        mine = begun + (end - begun) / (len(queues) - number)
        limit_s = prepare(name, AREAS[name], seed)
        result = results[name]
        while queue and time.monotonic() < mine:
            mutant = queue.pop()
            survived, _, _ = attempt(AREAS[name], mutant, seed, limit_s)
            result.mutants += 1
            result.killed += not survived
            if survived:
                result.survivors.append({"file": mutant.file, "line": mutant.line, "change": mutant.change})
                print(f"mutants: {mutant.file}:{mutant.line} survived: {mutant.change}", file=sys.stderr, flush=True)
        result.seconds = round(time.monotonic() - begun, 1)


if __name__ == "__main__":
    sys.exit(main())
