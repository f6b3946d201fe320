"""The strength of the tests of engine/middleware: the share of small wrong changes that they notice.

    python benchmarks/mutation.py                     every file
    python benchmarks/mutation.py queue breaker       some
    python benchmarks/mutation.py --processes 2       two at once

One mutant at a time: a comparison, a boolean, an operator, a constant, a condition, `min` for `max`, a statement left
out, a value not returned. The file's own tests and the quick part of tests/test_chain.py run against it (see TESTS); it
is killed when one of them fails, or when they take far longer than they should. Prose is left alone: docstrings,
f-strings, strings with a space in them, annotations, decorators, __slots__.

Each mutant runs in a fork of a process that has everything loaded except the engine: a fraction of a second. What was
killed is kept in benchmarks/.mutation, and not run again while its file stays as it is; survivors are run again when
the tests have changed. Mutants that change nothing a user could see are in equivalent_mutants.txt, each with its
reason, and are counted apart.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "engine" / "middleware"
TESTS_DIR = ROOT / "tests" / "middleware"
CHAIN = ROOT / "tests" / "test_chain.py"
STATE = Path(__file__).parent / ".mutation"
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.txt"
TESTS: dict[str, tuple[str, ...]] = {
    "layer_context": ("test_layers.py",),
    "stream_timeout": ("test_stream_timeout.py", "test_timeout.py", "test_deadline.py"),
    "retry_budget": ("test_retry_budget.py", "test_retry.py"),
    "hedge_latency": ("test_hedge_latency.py", "test_hedge.py"),
    "rescue": ("test_rescue.py", "test_rescue_splice.py"),
    "rescue_splice": ("test_rescue_splice.py", "test_rescue.py"),
}
"""Files with tests other than those of their own name."""
EVERY = ("test_layers.py",)
"""Tests of every file, in addition to the quick ones of tests/test_chain.py."""
OPTIONS = (
    "-q",
    f"--rootdir={ROOT}",
    *("-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "_hypothesis_pytestplugin"),
    "--assert=plain",  # rewriting them costs more than running them
)
MEMORY_BYTES = 8 << 30
"""Memory of one mutant; one that takes more is killed."""


# -- mutants ------------------------------------------------------------------------------------------------------

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_PROSE_FIELDS = frozenset({"annotation", "returns", "decorator_list", "bases"})


@dataclass(frozen=True)
class Mutant:
    """One wrong change. `name` does not change as long as the function around it does not."""

    name: str
    line: int
    code: CodeType


def mutants(path: Path) -> Iterator[Mutant]:
    """Yields every mutant of a file, in order."""
    tree = ast.parse(path.read_text())
    seen: Counter[str] = Counter()
    for where, holder, field, index, node in list(_sites(tree)):
        for after in _changes(node, inside=bool(where)):
            name = f"{path.stem}:{where or '(module)'}: {_shown(node)} → {_shown(after)}"
            seen[name] += 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            ast.copy_location(after, node)
            _put(holder, field, index, after)
            code = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
            _put(holder, field, index, node)
            yield Mutant(name, getattr(node, "lineno", 0), code)


def _sites(node: ast.AST, where: str = "") -> Iterator[tuple[str, ast.AST, str, int | None, ast.AST]]:
    """Yields every node that may be changed: its function, and the field that holds it."""
    if isinstance(node, ast.JoinedStr):
        values = [part for part in node.values if isinstance(part, ast.FormattedValue)]
        for part in values:
            yield from _below(part, "value", None, part.value, where)
        return
    for field, value in ast.iter_fields(node):
        if field in _PROSE_FIELDS or (
            field == "value" and isinstance(node, ast.Expr) and isinstance(value, ast.Constant)
        ):
            continue
        for index, each in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(each, ast.AST) and not _is_slots(each):
                yield from _below(node, field, index, each, where)


def _below(
    holder: ast.AST, field: str, index: int | None, node: ast.AST, where: str
) -> Iterator[tuple[str, ast.AST, str, int | None, ast.AST]]:
    yield where, holder, field, index, node
    name = getattr(node, "name", "")
    deeper = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    yield from _sites(node, f"{where}.{name}".lstrip(".") if deeper else where)


def _changes(node: ast.AST, inside: bool) -> Iterator[ast.AST]:
    """Yields the replacements of a node. `inside` a function or class, where statements may be left out."""
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for other in _COMPARISONS.get(type(op), ()):
                ops: list[ast.cmpop] = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        yield ast.Call(ast.Name(_NAMES[node.func.id], ast.Load()), node.args, node.keywords)
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.If | ast.While) and _plain(node.test):
        yield type(node)(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.IfExp) and _plain(node.test):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Return) and getattr(node.value, "value", node.value) is not None:
        yield ast.Return(ast.Constant(None))
    if inside and _may_go(node):
        yield ast.Pass()


def _constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and value and " " not in value:
        yield ast.Constant(f"not {value}")


def _may_go(node: ast.AST) -> bool:
    """Returns True if a statement may be left out."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Await)
    if isinstance(node, ast.AnnAssign):
        return node.value is not None
    return isinstance(node, ast.Assign | ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)


def _plain(test: ast.expr) -> bool:
    """Returns True for a condition that no other change inverts."""
    return not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant)


def _is_slots(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(getattr(each, "id", "") == "__slots__" for each in node.targets)


def _put(holder: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(holder, field, node)
    else:
        getattr(holder, field)[index] = node


def _shown(node: ast.AST) -> str:
    """Returns one line: of a condition only its head."""
    if isinstance(node, ast.If | ast.While):
        return f"{type(node).__name__.lower()} {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())


# -- one mutant ---------------------------------------------------------------------------------------------------


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Supplies a mutant when a module is imported."""

    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        self.module, self.path, self.code = module, path, code

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.module:
            return None
        package = self.path.stem == "__init__"
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=[str(self.path.parent)] if package else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def preload() -> None:
    """Imports all modules that no mutant can change, so that forks have them at no cost."""
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(STATE / "bytecode")
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "EXAMPLES": "10"}
    import pytest

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main([*OPTIONS, "--collect-only", str(TESTS_DIR), str(CHAIN)])


def start(file: Path, code: CodeType | None, limit_s: float) -> int:
    """Runs the file's tests in a fork, against the mutant `code` or the unchanged file. Returns the fork's pid."""
    pid = os.fork()
    if pid:
        return pid
    signal.setitimer(signal.ITIMER_REAL, limit_s)  # its default action ends the process, whatever it does
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    for name in [name for name in sys.modules if name.partition(".")[0] in ("engine", "chain", "conftest")]:
        del sys.modules[name]
    tests = tests_of(file)
    for path in tests:
        sys.modules.pop(path.stem, None)
    if code is not None:
        sys.meta_path.insert(0, _Instead(module_of(file), file, code))
    # What a mutant breaks is found by the first example as well as by the smallest one; nothing is remembered; and a
    # machine that is busy kills nothing.
    settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        deadline=None,
        max_examples=20,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    chosen = [str(path) if path != CHAIN else f"{path}::test_at_some_moments_nothing_stays_held" for path in tests]
    os._exit(int(pytest.main([*OPTIONS, "-x", "--hypothesis-profile=mutation", *chosen])))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tests_of(file: Path) -> list[Path]:
    own = TESTS.get(file.stem, (f"test_{file.stem}.py",))
    found = [TESTS_DIR / name for name in dict.fromkeys((*own, *EVERY))]
    return [*found, CHAIN]


# -- all of them --------------------------------------------------------------------------------------------------


class Ledger:
    """The outcomes of the mutants of one file, on disk."""

    def __init__(self, file: Path) -> None:
        self.path = STATE / f"{file.stem}.json"
        source = hashlib.sha256(file.read_bytes()).hexdigest()
        tests = hashlib.sha256(b"".join(path.read_bytes() for path in tests_of(file))).hexdigest()
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.killed: dict[str, str] = known.get("killed", {}) if known.get("source") == source else {}
        again = known.get("tests") != tests or known.get("source") != source
        self.survived: list[str] = [] if again else known.get("survived", [])
        self.head = {"source": source, "tests": tests}

    def save(self) -> None:
        STATE.mkdir(exist_ok=True)
        (STATE / ".gitignore").write_text("*\n")
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.head | {"killed": self.killed, "survived": self.survived}, indent=1))
        new.replace(self.path)


def examine(file: Path, processes: int) -> tuple[list[Mutant], Ledger]:
    """Runs the mutants of one file without a known outcome. Exits if the tests fail without a mutant."""
    ledger, every = Ledger(file), list(mutants(file))
    left = [each for each in every if each.name not in ledger.killed and each.name not in ledger.survived]
    if left:
        began = time.monotonic()
        status = os.waitpid(start(file, None, 600.0), 0)[1]
        if status != 0:
            raise SystemExit(f"{file.stem}: its tests fail as it is: {' '.join(str(path) for path in tests_of(file))}")
        limit_s = 5.0 + 4.0 * processes * (time.monotonic() - began)
        _run(file, left, ledger, processes, limit_s)
    return every, ledger


def _run(file: Path, left: list[Mutant], ledger: Ledger, processes: int, limit_s: float) -> None:
    running: dict[int, Mutant] = {}
    waiting = left[::-1]
    done = 0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                mutant = waiting.pop()
                running[start(file, mutant.code, limit_s)] = mutant
            pid, status = os.wait()
            mutant = running.pop(pid)
            if status == 0:
                ledger.survived.append(mutant.name)
            else:
                ledger.killed[mutant.name] = "time" if os.WIFSIGNALED(status) else "test"
            done += 1
            if done % 20 == 0 or not waiting:
                ledger.save()
                print(f"\r{file.stem}: {done}/{len(left)}, {len(ledger.survived)} survive", end="", file=sys.stderr)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        ledger.save()
        print(file=sys.stderr)


def equivalent() -> set[str]:
    """Reads the names of the mutants that change nothing. Exits if one has no reason: an indented line below its
    group."""
    found: set[str] = set()
    group: list[str] = []
    for line in EQUIVALENT.read_text().splitlines():
        if line.startswith("  "):
            found |= set(group)
            group = []
        elif line and not line.startswith("#"):
            group.append(line)
    if group:
        raise SystemExit(f"{EQUIVALENT.name}: no reason is given for {group[0]}")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("files", nargs="*", help="names in engine/middleware, such as queue; none: all")
    options.add_argument("--processes", type=int, default=1, help="mutants at once")
    said = options.parse_args()
    sys.path[:0] = [str(ROOT), str(TESTS_DIR)]
    preload()
    files = [FILES / f"{name}.py" for name in said.files] or sorted(FILES.glob("*.py"))
    same = equivalent()
    unknown = set(same)
    rows, survivors = [], []
    for file in files:
        every, ledger = examine(file, said.processes)
        names = {each.name for each in every}
        unknown -= names
        alive = [each for each in every if each.name not in ledger.killed]
        survivors += [each for each in alive if each.name not in same]
        rows.append((file.stem, len(every), len(ledger.killed), len([each for each in alive if each.name in same])))
    _print(rows, survivors)
    if not said.files and unknown:
        print("no such mutants, but listed as equivalent:", *sorted(unknown), sep="\n  ")


def _print(rows: list[tuple[str, int, int, int]], survivors: list[Mutant]) -> None:
    print("| file | mutants | killed | equivalent | survived | score |\n|---|--:|--:|--:|--:|--:|")
    total = ("all", *(sum(row[column] for row in rows) for column in (1, 2, 3)))
    for name, every, killed, same in (*rows, total):
        score = killed / max(1, every - same)
        print(f"| {name} | {every} | {killed} | {same} | {every - killed - same} | {score:.1%} |")
    if survivors:
        print("\nsurvivors:")
    for mutant in survivors:
        print(f"  line {mutant.line}: {mutant.name}")


if __name__ == "__main__":
    main()
