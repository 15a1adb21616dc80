"""Hands hostile files to the commands, in one process that is watched, and writes what came of it as JSON.

    python worker.py GROUP FOLDER

A hook sees every file that is opened, every process and connection that is made, and what is unpickled. What each
command took of time and memory is measured: memory is the most that the process held beyond what it held before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import files

# Of address space: what a case may take at most, on top of what the libraries map. A bomb ends in an error there.
LIMIT = 12 * 2**30
SECONDS = 30
# These give or run code, reach another machine or another process.
FORBIDDEN = (
    *("pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
    *("subprocess.Popen", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"),
    *("ctypes.dlopen", "shutil.rmtree", "webbrowser.open"),
)


class Watch:
    """What happens while a case runs. A hook can't be removed, so it is turned on and off."""

    def __init__(self, root: Path) -> None:
        self.on, self.seen = False, list[str]()
        self.work = os.path.realpath(root)
        libraries = [sys.prefix, sys.base_prefix, *sys.path, "/proc", "/sys", "/usr", "/etc", "/lib", "/dev/null"]
        self.allowed = tuple(
            os.path.realpath(p) for p in [*libraries, *(root / name for name in ("cases", "models", "here"))] if str(p)
        )
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed):
                self.seen.append(f"open {path}")
        elif event == "exec":
            name = str(getattr(arguments[0], "co_filename", ""))
            if name.startswith(self.work):
                self.seen.append(f"exec {name}")


def main() -> None:
    group, root = sys.argv[1], Path(sys.argv[2]).resolve()
    for name in ("cases", "models", "outside", "here"):
        (root / name).mkdir()
    os.chdir(root / "models")
    with _quiet():
        prepared(root)
    watch = Watch(root)
    _check_that_it_sees(watch, root)
    signal.signal(signal.SIGALRM, _late)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    found = [run(watch, root, *one) for one in cases(group, root)]
    (root / "found.json").write_text(json.dumps(found))


def _check_that_it_sees(watch: Watch, root: Path) -> None:
    """A watch that sees nothing would find nothing wrong."""
    watch.on = True
    (root / "outside" / "secret.csv").read_text()
    pickle.loads(pickle.dumps(files.Payload(root / "outside")))
    watch.on = False
    assert [event.split()[0] for event in watch.seen] == ["open", "pickle.find_class", "os.system"], watch.seen
    assert (root / "outside" / files.CANARY).exists()
    (root / "outside" / files.CANARY).unlink()


def prepared(root: Path) -> None:
    """Two models, trained from tables by the command itself, and what lies outside of them."""
    for name, columns in (("good", "x,z"), ("other", "x,z,w")):
        rows = [",".join(str((i * (k + 3)) % 11) for k in range(columns.count(",") + 1)) + f",{i}" for i in range(80)]
        (root / "models" / f"{name}.csv").write_text("\n".join([f"{columns},y", *rows]) + "\n")
        run = files.run_of("csv", root / "models" / f"{name}.csv", {"tasks": {"y": "number"}})
        (root / "models" / f"{name}.json").write_text(json.dumps(bare(run)))
        status = command(["train", f"{name}.json", "--out", name])[0]
        assert status == 0, name
    (root / "outside" / "secret.csv").write_text("a,b\n")
    os.mkfifo(root / "outside" / "pipe")


def bare(run: dict[str, Any]) -> dict[str, Any]:
    """A bench file as a run file: it has an encoder of its own in the place of those that are compared."""
    return {"data": run["data"], "train": run["train"], "model": {**run["model"], "encoder": "linear"}}


def cases(group: str, root: Path) -> Iterator[tuple[str, list[str], str, tuple[int, ...]]]:
    """(name, arguments of the command, what the message has to name, statuses)."""
    here, good = root / "cases", root / "models" / "good"
    # Each command that reads a run file; `--out` keeps what it would write where it may.
    readers = [
        ["train", "--out", "new"],
        ["show"],
        ["show", "--cost"],
        ["bench", "--out", "new"],
        ["suggest", "--out", "new"],
    ]
    if group == "specs":
        for case in files.specs(here):
            for words in readers:
                # What a model would cost that no machine can hold is worth to know.
                statuses = (0,) if case.name == "layers.json" and words[-1] == "--cost" else case.statuses
                yield case.name, [words[0], str(case.path), *words[1:]], case.told, statuses
    elif group == "data":
        tables = [*files.tables(here), *files.arrays(here)]
        treebanks = [("conllu", path, {}, (2,)) for path in files.treebanks(here)]
        images = [("multimnist", path, {}, (2,)) for path in files.images(here)]
        for number, (kind, path, options, statuses) in enumerate([*tables, *treebanks, *images]):
            run = files.run_of(kind, path, options)
            if kind == "conllu":
                run["data"] = {"type": kind, "train": str(path)}
            (here / f"run{number}.json").write_text(json.dumps(run))
            (here / f"bare{number}.json").write_text(json.dumps(bare(run)))
            for words in readers if statuses == (2,) else readers[:2]:
                file = f"run{number}.json" if words[0] == "bench" else f"bare{number}.json"
                yield path.name, [words[0], str(here / file), *words[1:], *_fresh(words)], path.name, statuses
            if kind in ("csv", "parquet", "npz") and statuses == (2,):
                arguments = ["predict", str(good), str(path), "--out", str(here / "predicted.csv")]
                yield path.name, arguments, path.name, (2,)
    elif group == "folders":
        for case in files.folders(here, good, root / "models" / "other", root / "outside"):
            for words in ("evaluate",), ("predict",), ("show",), ("show", "--cost"):
                weights = case.name not in UNREAD or words != ("show", "--cost")
                runs = case.name != "swapped-table" or words[0] != "show"
                statuses = case.statuses if weights and runs else (0,)
                yield case.name, [words[0], str(case.path), *words[1:]], case.told if weights and runs else "", statuses
        for case in files.runs(here, good, root / "outside"):
            for words in ("evaluate", "predict"):
                statuses = case.statuses if words == "evaluate" or not case.name.startswith("table") else (1, 2)
                # The table is what predictions are written with; scores are of data that are read anew.
                yield case.name, [words, str(case.path)], case.told, statuses


# What is wrong with these is in the weights, which to tell the cost does not need.
UNREAD = (
    *("flip", "truncated", "zeroed", "longer", "emptied", "swapped", "swapped-table", "unsealed-pickle", "no-weights"),
    *("pickle", "other-weights", "header-size", "header-beyond", "header-text", "header-deep", "offsets-beyond"),
    *("offsets-before", "offsets-negative", "offsets-shared", "shape-huge", "shape-other", "dtype-integer"),
    *("dtype-unknown", "no-tensors", "too-large", "files-huge-size", "spec-other", "spec-huge"),
    *("link-model.safetensors", "pipe-model.safetensors", "device-model.safetensors", "folder-model.safetensors"),
    *(f"snapshot-{kind}-model.safetensors" for kind in ("out", "blob", "device")),
)


def _fresh(words: list[str]) -> list[str]:
    return ["--overwrite"] if words[0] in ("train", "suggest") else []


def run(
    watch: Watch, root: Path, name: str, arguments: list[str], told: str, statuses: tuple[int, ...]
) -> dict[str, Any]:
    """One command, and what is wrong with what it did."""
    os.chdir(root / "here")
    before = _reset_peak()
    started, watch.seen, watch.on = time.perf_counter(), [], True
    signal.alarm(SECONDS)
    try:
        status, out, err = command(arguments)
    finally:
        signal.alarm(0)
        watch.on = False
    seconds, memory = time.perf_counter() - started, max(0, _kib("VmHWM") - before) / 1024
    faults = [f"it did {seen}" for seen in watch.seen]
    if status not in statuses:
        faults.append(f"exit status {status}, expected {statuses}")
    if "Traceback" in out + err:
        faults.append("a traceback")
    if any(not c.isprintable() and c != "\n" for c in out + err):
        faults.append("what could rewrite a terminal")
    if len(out) + len(err) > 30_000:
        faults.append(f"{len(out) + len(err):,} characters")
    if status and (told[:60] not in err or "error: " not in err):
        faults.append(f"it does not name {told!r}")
    if (root / "cases" / files.CANARY).exists() or (root / "outside" / files.CANARY).exists():
        faults.append("what the file holds was run")
    return {
        "name": name, "command": arguments[0] + " --cost" * ("--cost" in arguments), "status": status, "faults": faults,
        "seconds": seconds, "mib": memory, "said": (out + err)[-1_500:],
    }  # fmt: skip


def command(arguments: list[str]) -> tuple[int, str, str]:
    """Status, output and errors of a command, as its process would give them."""
    from mtlkit import cli

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["mtlkit", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            status: Any = 0
        except SystemExit as end:
            status = end.code
        except BaseException as error:  # noqa: BLE001  # what would be a traceback
            import traceback

            err.write("".join(traceback.format_exception(error)))
            status = 1
    return int(status or 0), out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _late(*_: Any) -> None:
    raise TimeoutError(f"it took more than {SECONDS} seconds")


def _reset_peak() -> int:
    """Forget the most that the process held, and return what it holds now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _kib("VmRSS")


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
