"""Hostile files, made by code: specs and run files, tables, arrays, treebanks, images, and folders with a model.

Each is a `Case`: the file to hand to the commands, what the exit status may be, and the words that the message has.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CANARY = "canary"
GOOD_SPEC: dict[str, Any] = {"input": [2], "encoder": "linear", "tasks": {"a": {"outputs": 1}}}


@dataclass(frozen=True)
class Case:
    """A hostile file, and what is right to do with it.

    Attributes:
        name: of the case.
        path: what the commands are given.
        told: the name that the message has to have.
        statuses: of exit; 0 only where the file is odd but means no harm.
    """

    name: str
    path: Path
    told: str
    statuses: tuple[int, ...] = (2,)


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.root / CANARY}",)


def specs(root: Path) -> Iterator[Case]:
    """Files that are no spec and no run file, whatever reads them."""
    touch = f"touch {root / CANARY}"
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    named = {"input": [2], "encoder": "linear"}
    wide = {"input": [2], "encoder": {"type": "mlp", "hidden": [30_000] * 30}, "tasks": {"a": {"outputs": 1}}}
    texts: dict[str, str | bytes] = {
        "apply.yaml": f"encoder: !!python/object/apply:os.system ['{touch}']\n",
        "new.yaml": f"!!python/object/new:subprocess.Popen [['touch', '{root / CANARY}']]\n",
        "name.yaml": "encoder: !!python/name:os.system\n",
        "module.yaml": "encoder: !!python/module:os\n",
        "laughs.yaml": "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghi")),
        "merge.yaml": "a: &a {b: 1}\nc:\n  <<: *a\n",
        "binary.yaml": "encoder: !!binary aGVsbG8=\n",
        "set.yaml": "encoder: !!set {a, b}\n",
        "twice.yaml": "encoder: mlp\nencoder: cnn\n",
        "numbers.yaml": "1: 2\n",
        "complex.yaml": "? [1, 2]\n: 3\n",
        "deep.yaml": "[" * 50_000,
        "indented.yaml": "".join(" " * i + "a:\n" for i in range(900)),
        "documents.yaml": "a: 1\n---\nb: 2\n",
        "times.yaml": "encoder: 1" + ":59" * 50_000 + "\n",
        "nan.yaml": "input: [.nan]\n",
        "bell.yaml": 'encoder: "\\e[2J\\e]0;owned\\a"\ntasks: {"\\e[31mred": {outputs: 1}}\ninput: [2]\n',
        "nul.yaml": b"encoder: \x00\n",
        "long.yaml": "a" * 2**20 + ": 1\n",
        "large.yaml": "# " + "x" * (9 * 2**20),
        "dotted.toml": ".".join(["a"] * 50_000) + " = 1\n",
        "quoted.toml": ".".join(['"a"'] * 50_000) + " = 1\n",
        "twice.toml": "a = 1\na = 2\n",
        "deep.toml": "a = " + "[" * 50_000,
        "inf.toml": "input = [inf]\n",
        "digits.toml": "a = " + "9" * 1_000_000,
        "latin.toml": b'encoder = "\xff\xfe"\n',
        "escape.toml": '"\\u001b[31m" = 1\n"a\\nerror: all is well" = 2\n',
        "twice.json": '{"encoder": "mlp", "encoder": "cnn"}',
        "nan.json": '{"input": [NaN]}',
        "infinity.json": '{"input": [-Infinity]}',
        "huge.json": '{"input": [1e999]}',
        "integer.json": '{"input": [' + "9" * 100_000 + "]}",
        "surrogate.json": '{"encoder": "\\ud800"}',
        "deep.json": "[" * 200_000,
        "nested.json": json.dumps({"encoder": deep}),
        "list.json": "[1, 2]",
        "empty.json": "",
        "wide16.json": json.dumps(GOOD_SPEC).encode("utf-16"),
        "many.json": '{"a": [' + "1," * 1_500_000 + "1]}",
        "bidi.json": json.dumps({**named, "tasks": {"a\u202eb\u009b31m": {"outputs": -1}}}),
        "class.json": json.dumps({**named, "tasks": {"__class__": {"outputs": 1, "head": "__init__"}}}),
        "names.json": json.dumps({**named, "tasks": {"x" * 9_000: {"outputs": 1}}}),
        "paths.json": json.dumps({**named, "tasks": {"../../etc/passwd": {"outputs": 1}}}),
        "wrong.json": json.dumps({**named, "tasks": {f"t{i}": {"outputs": "x"} for i in range(9_000)}}),
        "os.json": json.dumps({**GOOD_SPEC, "encoder": {"type": "os:system", "command": touch}}),
        "file.json": json.dumps({**GOOD_SPEC, "encoder": {"type": "../../evil.py"}}),
        "hub.json": json.dumps({**GOOD_SPEC, "input": [3, 9, 9], "encoder": {"type": "timm", "model": "hf-hub:a/b"}}),
        "url.json": json.dumps(
            {**GOOD_SPEC, "input": [3, 9, 9], "encoder": {"type": "torchvision", "model": "http://127.0.0.1/a"}}
        ),
        "layers.json": json.dumps(wide),
        "input.json": json.dumps({**GOOD_SPEC, "input": [2**24, 2**24]}),
        "bare.json": json.dumps({**GOOD_SPEC, "input": 6}),
    }
    for name, text in texts.items():
        path = root / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        yield Case(name, path, name)
    os.mkfifo(root / "pipe.yaml")
    (root / "zero.json").symlink_to("/dev/zero")
    (root / "folder.toml").mkdir()
    for name in ("pipe.yaml", "zero.json", "none.toml", "x" * 300 + ".toml"):
        yield Case(name, root / name, name)


def run_of(kind: str, path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """A run file that is right but for the data that it names."""
    return {
        "data": {"type": kind, "path": str(path), **options},
        "model": {"sharing": "hard"},
        "train": {"epochs": 1},
        "bench": {"trunks": {"one": "linear"}, "seeds": 1},
    }


def tables(root: Path) -> Iterator[tuple[str, Path, dict[str, Any], tuple[int, ...]]]:
    """CSV and Parquet files as (kind, file, options, statuses)."""
    tasks: dict[str, Any] = {"tasks": {"y": "number"}}
    rows = "".join(f"{i % 7},{i}\n" for i in range(60))
    texts: dict[str, str | bytes] = {
        "nul.csv": "x,y\n" + "1\x00,2\n" * 40 + "a,b\n",
        "field.csv": "x,y\n" + ("a" * 200_000 + ",b\n") * 40,
        "columns.csv": ",".join(f"c{i}" for i in range(400_000)) + "\n",
        "commas.csv": "," * 5_000_000,
        "same.csv": "x,x,y\n" + "1,2,3\n" * 40,
        "ragged.csv": "x,y\n1,2\n1,2,3,4\n",
        "quote.csv": 'x,y\n1,"2\n' + rows,
        "latin.csv": "x,y\n\xe9,1\n".encode("latin-1"),
        "wide16.csv": ("x,y\n" + rows).encode("utf-16"),
        "empty.csv": "",
        "header.csv": "x,y\n",
        "inf.csv": "x,y\n" + "1,inf\n" * 40,
        "text.csv": "x,y\n" + rows + "1,=cmd|'/c calc'!A1\n",
        "escape.csv": "\x1b[31mx,y\n" + "\x1b]0;owned\x07,1\n" * 3 + "1,\x1b[2J\n",
        "packed.csv.gz": gzip.compress(b"0" * 2**26) * 20,
        "cut.csv.gz": gzip.compress(("x,y\n" + rows).encode())[:-20],
        "plain.csv.gz": "x,y\n" + rows,
        "packed.csv.bz2": "x,y\n" + rows,
        "pickle.csv": pickle.dumps(Payload(root)),
        "text.parquet": "x,y\n" + rows,
        "magic.parquet": b"PAR1" + b"\xff" * 1_000 + struct.pack("<I", 2**31 - 1) + b"PAR1",
    }
    for name, text in texts.items():
        path = root / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        yield "parquet" if ".parquet" in name else "csv", path, tasks, (2,)
    # Odd, but a table: it is read as it stands, and nothing in it is a formula to us.
    (root / "formula.csv").write_text("x,y\n" + "".join(f"=1+{i % 5},{i}\n" for i in range(60)))
    yield "csv", root / "formula.csv", tasks, (0,)
    (root / "mark.csv").write_bytes(b"\xef\xbb\xbf" + ("x,y\n" + rows).encode())
    yield "csv", root / "mark.csv", tasks, (0,)
    categories = "".join(f"{','.join(f'{i % 1000:03}' for _ in range(600))},{i}\n" for i in range(2_000))
    (root / "onehot.csv").write_text(",".join(f"c{i}" for i in range(600)) + ",y\n" + categories)
    yield "csv", root / "onehot.csv", {**tasks, "inputs": {f"c{i}": "category" for i in range(600)}}, (2,)
    yield from _parquets(root, tasks)
    os.mkfifo(root / "pipe.csv")
    (root / "zero.csv").symlink_to("/dev/zero")
    for path in (root / "pipe.csv", root / "zero.csv", root / "none.csv", root, Path("/dev/stdin")):
        yield "csv", path, tasks, (2,)
    yield "csv", Path("http://127.0.0.1:9/x.csv"), tasks, (2,)
    yield "parquet", Path("s3://bucket/x.parquet"), tasks, (2,)


def _parquets(root: Path, tasks: dict[str, Any]) -> Iterator[tuple[str, Path, dict[str, Any], tuple[int, ...]]]:
    import pyarrow
    from pyarrow import parquet

    values = pyarrow.chunked_array([pyarrow.DictionaryArray.from_arrays(np.zeros(300, np.int32), ["x" * 10_000_000])])
    # A text of 10 MB once in the file and 300 times in the table.
    parquet.write_table(
        pyarrow.table({"x": values, "y": np.arange(300.0)}), root / "text300.parquet", compression="zstd"
    )
    yield "parquet", root / "text300.parquet", tasks, (2,)
    same = pyarrow.chunked_array([pyarrow.repeat(pyarrow.scalar(True), 10_000_000)] * 56)
    parquet.write_table(pyarrow.table({"x": same}), root / "runs.parquet", compression="zstd")
    yield "parquet", root / "runs.parquet", tasks, (2,)
    parquet.write_table(pyarrow.table({"x": [[1.0]] * 40, "y": np.arange(40.0)}), root / "nested.parquet")
    yield "parquet", root / "nested.parquet", tasks, (2,)
    good = (root / "nested.parquet").read_bytes()
    (root / "cut.parquet").write_bytes(good[:-30])
    (root / "flipped.parquet").write_bytes(good[:-60] + bytes(b ^ 0x55 for b in good[-60:-12]) + good[-12:])
    yield "parquet", root / "cut.parquet", tasks, (2,)
    yield "parquet", root / "flipped.parquet", tasks, (2,)


def _npy(header: str | bytes, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    raw += b" " * (64 - (10 + len(raw) + 1) % 64) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(raw))
    return b"\x93NUMPY" + version + size + raw + data


def _dict(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def _zip(members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if change:
            for info in archive.infolist():
                change(info)  # the central directory, which is written at the end, lies then
    return made.getvalue()


def _set(name: str, value: Any) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: setattr(info, name, value)


def arrays(root: Path) -> Iterator[tuple[str, Path, dict[str, Any], tuple[int, ...]]]:
    """The same of .npz files."""
    y = _npy(_dict("(40, 1)"), b"\0" * 160)
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(root)] * 40, dtype=object), allow_pickle=True)
    bad: dict[str, bytes] = {
        "objects": objects.getvalue(),
        "shape": _npy(_dict("(1000000000000,)"), b"\0" * 160),
        "overflow": _npy(_dict("(4294967296, 4294967296, 4)"), b"\0" * 160),
        "negative": _npy(_dict("(-40, -2)"), b"\0" * 320),
        "nothing": _npy(_dict("(1000000000000,)", "'|S0'")),
        "short": _npy(_dict("(40, 2)"), b"\0" * 100),
        "more": _npy(_dict("(40, 2)"), b"\0" * 1_000),
        "code": _npy(f"__import__('os').system('touch {root / CANARY}')"),
        "codes": _npy(_dict(f"(__import__('os').system('touch {root / CANARY}'),)")),
        "brackets": _npy("(" * 5_000),
        "header": _npy("{" + " " * 1_000_000, version=b"\x02\x00"),
        "version": _npy(_dict("(40, 2)"), b"\0" * 320, version=b"\x09\x00"),
        "records": _npy(_dict("(40,)", "[('a', '<f4'), ('b', '|O')]"), b"\0" * 320),
        "text": _npy(_dict("(40,)", "'<U2'"), b"a\0\0\0b\0\0\0" * 40),
        "nan": _npy(_dict("(40, 2)"), b"\xff" * 320),
        "foreign": b"no array",
    }
    files = {name: _zip({"x.npy": data, "y.npy": y}) for name, data in bad.items()}
    good = {"x.npy": _npy(_dict("(40, 2)"), b"\0" * 320), "y.npy": y}
    files |= {
        # The sizes that these declare are those of gigabytes of zeros, which nobody needs to write.
        "bomb": _zip({"x.npy": _npy(_dict("(40, 250000000)")), "y.npy": y}, _set("file_size", 128 + 40 * 10**9)),
        "grows": _zip(
            {"x.npy": _npy(_dict("(40, 30000000)", "'|u1'")), "y.npy": y}, _set("file_size", 128 + 12 * 10**8)
        ),
        "method": _zip(good, _set("compress_type", 97)),
        "secret": _zip(good, _set("flag_bits", 1)),
        "checksum": _zip(good, _set("CRC", 1)),
        "above": _zip({"../../x.npy": good["x.npy"], "y.npy": y}),
        "cut": _zip(good)[:-40],
        "one": good["x.npy"],
        "pickle": pickle.dumps(Payload(root)),
        "empty": b"",
    }
    for name, data in files.items():
        path = root / f"{name}.npz"
        path.write_bytes(data)
        yield "npz", path, {"inputs": "x", "tasks": ["y"], "packed": name == "grows"}, (2,)
    os.mkfifo(root / "pipe.npz")
    for path in (root / "pipe.npz", root / "none.npz", Path("http://127.0.0.1:9/x.npz")):
        yield "npz", path, {"inputs": "x", "tasks": ["y"]}, (2,)


def treebanks(root: Path) -> Iterator[Path]:
    """CoNLL-U files, which are refused."""
    row = "1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_\n"
    texts: dict[str, str | bytes] = {
        "line.conllu": "1\t" + "a" * 5_000_000,
        "columns.conllu": row + "1\tThe\n",
        "tabs.conllu": "\t" * 1_000_000 + "\n",
        "latin.conllu": row.encode() + b"\xff\xfe",
        "nul.conllu": b"\x00" * 1_000,
        "comments.conllu": "# nothing\n" * 1_000,
        "empty.conllu": "",
        "packed.conllu.gz": gzip.compress((b"#" + b"0" * 1000 + b"\n") * 2**14) * 30,
        "cut.conllu.gz": gzip.compress(row.encode() * 1_000)[:-20],
        "pickle.conllu": pickle.dumps(Payload(root)),
    }
    for name, text in texts.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        yield root / name


def images(root: Path) -> Iterator[Path]:
    """Folders with the four files of MNIST, of which one lies."""
    good = {
        "train-images-idx3-ubyte": struct.pack(">4i", 0x803, 30, 28, 28) + b"\1" * 30 * 784,
        "train-labels-idx1-ubyte": struct.pack(">2i", 0x801, 30) + b"\1" * 30,
    }
    first = "train-images-idx3-ubyte"
    wrong = {
        "huge": struct.pack(">4i", 0x803, 2**31 - 1, 28, 28),
        "million": struct.pack(">4i", 0x803, 999_999, 28, 28) + b"\1" * 784,
        "negative": struct.pack(">4i", 0x803, -1, 28, 28),
        "magic": struct.pack(">4i", 0x80D, 30, 28, 28) + b"\1" * 30 * 784,
        "sides": struct.pack(">4i", 0x803, 30, 2**30, 2**30),
        "short": good[first][:-5],
        "more": good[first] + b"\1",
        "empty": b"",
    }
    for name, data in wrong.items():
        folder = root / f"mnist-{name}"
        folder.mkdir()
        for file, content in {**good, first: data}.items():
            (folder / file).write_bytes(content)
        yield folder


def reseal(folder: Path) -> None:
    """Write a manifest that fits what is in a folder, as whoever forges one does."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    seal(folder, manifest)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with its own digest."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(_json(content)).hexdigest()
    (folder / "manifest.json").write_bytes(_json({**content, "sha256": digest}))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _tensors(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


WEIGHTS, SPEC, MANIFEST, RUN, TABLE = "model.safetensors", "spec.json", "manifest.json", "run.json", "table.json"


def folders(root: Path, good: Path, other: Path, outside: Path) -> Iterator[Case]:
    """Folders with a model that somebody made or changed: `good` is one that is right, `other` one of another model."""
    weights = (good / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", weights[:8])[0]
    header, data = json.loads(weights[8 : 8 + length]), weights[8 + length :]
    first = next(name for name in header if name != "__metadata__")
    flipped = bytes([weights[-1] ^ 1])

    def with_header(**change: Any) -> bytes:
        return _tensors({**header, first: {**header[first], **change}}, data)

    plain: dict[str, dict[str, bytes | None]] = {
        "flip": {WEIGHTS: weights[:-1] + flipped},
        "truncated": {WEIGHTS: weights[: len(weights) // 2]},
        "zeroed": {WEIGHTS: weights[:200] + b"\0" * (len(weights) - 200)},
        "longer": {WEIGHTS: weights + b"\0"},
        "emptied": {WEIGHTS: b""},
        "swapped": {WEIGHTS: (other / WEIGHTS).read_bytes()},
        "swapped-spec": {SPEC: (other / SPEC).read_bytes()},
        "swapped-table": {TABLE: (other / RUN).read_bytes()},
        "unsealed-pickle": {WEIGHTS: pickle.dumps(Payload(root))},
        "no-weights": {WEIGHTS: None},
        "no-spec": {SPEC: None},
        "no-manifest": {MANIFEST: None},
        "manifest-text": {MANIFEST: b"no manifest"},
        "manifest-list": {MANIFEST: b"[]"},
        "manifest-deep": {MANIFEST: b"[" * 200_000},
        "manifest-nested": {MANIFEST: b'{"format": 1, "a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"},
        "manifest-large": {MANIFEST: b" " * (9 * 2**20)},
        "manifest-surrogate": {MANIFEST: b'{"format": 1, "a": "\\ud800"}'},
        "manifest-escape": {MANIFEST: b'{"format": "\\u001b[31m' + b"x" * 100_000 + b'"}'},
    }
    sealed: dict[str, dict[str, bytes]] = {
        "pickle": {WEIGHTS: pickle.dumps(Payload(root))},
        "other-weights": {WEIGHTS: (other / WEIGHTS).read_bytes()},
        "header-size": {WEIGHTS: _tensors(header, data, size=2**63 - 1)},
        "header-beyond": {WEIGHTS: _tensors(header, data, size=len(weights) * 2)},
        "header-text": {WEIGHTS: _tensors(b"{" * length, data)},
        "header-deep": {WEIGHTS: _tensors(b'{"a":' * 200, data)},
        "offsets-beyond": {WEIGHTS: with_header(data_offsets=[0, 10**12])},
        "offsets-before": {WEIGHTS: with_header(data_offsets=[100, 0])},
        "offsets-negative": {WEIGHTS: with_header(data_offsets=[-8, 8])},
        "offsets-shared": {WEIGHTS: _tensors({**header, "x": header[first]}, data)},
        "shape-huge": {WEIGHTS: with_header(shape=[2**40, 2**40])},
        "shape-other": {WEIGHTS: with_header(shape=[1, *header[first]["shape"]])},
        "dtype-integer": {WEIGHTS: with_header(dtype="I32")},
        "dtype-unknown": {WEIGHTS: with_header(dtype="PICKLE")},
        "no-tensors": {WEIGHTS: _tensors({})},
        "too-large": {WEIGHTS: weights + b"\0" * 2**24},
        "spec-other": {SPEC: (other / SPEC).read_bytes()},
        "spec-list": {SPEC: b"[]"},
        "spec-deep": {SPEC: b'{"encoder": ' + b"[" * 3_000 + b"]" * 3_000 + b"}"},
        "spec-nan": {SPEC: b'{"input": [NaN]}'},
        "spec-twice": {SPEC: b'{"input": [1], "input": [2]}'},
        "spec-large": {SPEC: b" " * (9 * 2**20)},
        "spec-huge": {SPEC: _json({**GOOD_SPEC, "encoder": {"type": "mlp", "hidden": [30_000, 30_000]}})},
        "spec-plugin": {SPEC: _json({**GOOD_SPEC, "encoder": "evil_plugin"})},
        "spec-code": {SPEC: _json({**GOOD_SPEC, "encoder": "os:system"})},
    }
    for name, files in {**plain, **sealed}.items():
        folder = root / name
        shutil.copytree(good, folder)
        for file, content in files.items():
            if content is None:
                (folder / file).unlink()
            else:
                (folder / file).write_bytes(content)
        if name in sealed:
            reseal(folder)
        yield Case(name, folder, name, (2,) if name in ("spec-plugin", "spec-code") else (1, 2))
    yield from _manifests(root, good)
    yield from _special(root, good, outside)


def _manifests(root: Path, good: Path) -> Iterator[Case]:
    right = json.loads((good / MANIFEST).read_bytes())
    entry = {"bytes": 4, "sha256": hashlib.sha256(b"a,b\n").hexdigest()}
    changes: dict[str, Any] = {
        "traversal": {**right["files"], "../outside/secret.csv": entry},
        "absolute": {**right["files"], "/etc/passwd": entry},
        "hidden": {**right["files"], ".bashrc": entry},
        "huge-size": {**right["files"], WEIGHTS: {**right["files"][WEIGHTS], "bytes": 10**15}},
        "text-size": {**right["files"], WEIGHTS: {**right["files"][WEIGHTS], "bytes": "many"}},
        "negative-size": {**right["files"], WEIGHTS: {**right["files"][WEIGHTS], "bytes": -1}},
        "no-digest": {**right["files"], WEIGHTS: {"bytes": 5}},
        "list": [WEIGHTS],
        "null": None,
    }
    for name, files in changes.items():
        folder = root / f"files-{name}"
        shutil.copytree(good, folder)
        seal(folder, {**right, "files": files})
        yield Case(folder.name, folder, folder.name, (1,))
    for number in (2, "1", None, 10**30):
        folder = root / f"format-{number}"
        shutil.copytree(good, folder)
        seal(folder, {**right, "format": number})
        yield Case(folder.name, folder, folder.name, (1,))


def _special(root: Path, good: Path, outside: Path) -> Iterator[Case]:
    """Links, pipes and devices in the place of files."""
    for file in (WEIGHTS, SPEC, MANIFEST):
        shutil.copy(good / file, outside / file)
        for kind in ("link", "pipe", "device", "folder"):
            folder = root / f"{kind}-{file}"
            shutil.copytree(good, folder)
            (folder / file).unlink()
            if kind == "link":
                (folder / file).symlink_to(outside / file)
            elif kind == "pipe":
                os.mkfifo(folder / file)
            elif kind == "device":
                (folder / file).symlink_to("/dev/zero")
            else:
                (folder / file).mkdir()
            yield Case(folder.name, folder, folder.name, (1,))
    yield Case("missing", root / "missing", "missing", (2,))
    yield from _snapshots(root, good, outside)
    # Of a folder's files, `show` takes the spec.
    yield Case("file", good / SPEC, SPEC, (0, 1, 2))


def _snapshots(root: Path, good: Path, outside: Path) -> Iterator[Case]:
    """Folders laid out as in the cache of the Hugging Face Hub, where one link leads out of it."""
    kinds = [(kind, file) for kind in ("out", "blob", "device") for file in (WEIGHTS, SPEC, MANIFEST)]
    for kind, file in [*kinds, ("blobs", MANIFEST)]:
        repository = root / f"snapshot-{kind}-{file}" / "models--anna--houses"
        snapshot, blobs = repository / "snapshots" / "main", repository / "blobs"
        shutil.copytree(good, blobs)
        snapshot.mkdir(parents=True)
        for path in blobs.iterdir():
            (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
        if kind == "blobs":
            shutil.rmtree(blobs)
            blobs.symlink_to(outside)
        else:
            link = (snapshot if kind == "out" else blobs) / file
            link.unlink()
            link.symlink_to("/dev/zero" if kind == "device" else outside / file)
        yield Case(repository.parent.name, snapshot, repository.parent.name, (1,))


def runs(root: Path, good: Path, outside: Path) -> Iterator[Case]:
    """Folders of which the model is right, and the run or the table is not. `show` reads neither."""
    run, table = json.loads((good / RUN).read_bytes()), json.loads((good / TABLE).read_bytes())
    inputs = table["inputs"]
    changes: dict[str, tuple[str, Any]] = {
        "run-list": (RUN, []),
        "run-empty": (RUN, {}),
        "run-plugin": (RUN, {**run, "data": {"type": "evil_plugin"}}),
        "run-code": (RUN, {**run, "data": {"type": "os:system"}}),
        "run-precision": (RUN, {**run, "train": {"precision": "../../x"}}),
        "run-url": (RUN, {**run, "data": {**run["data"], "path": "http://127.0.0.1:9/x.csv"}}),
        "run-pipe": (RUN, {**run, "data": {**run["data"], "path": str(outside / "pipe")}}),
        "run-device": (RUN, {**run, "data": {**run["data"], "path": "/dev/zero"}}),
        "run-folder": (RUN, {**run, "folder": "\x1b[31m/nowhere", "data": {**run["data"], "path": "\x1b[2J.csv"}}),
    }
    broken: dict[str, tuple[str, Any]] = {
        "table-list": (TABLE, []),
        "table-separator": (TABLE, {**table, "separator": "(a+)+$"}),
        "table-scale": (TABLE, {**table, "inputs": [{**inputs[0], "scale": 0.0}, *inputs[1:]]}),
        "table-large": (TABLE, {**table, "inputs": [{"name": "x" * 20_000, "kind": "number"}]}),
    }
    for name, (file, content) in {**changes, **broken}.items():
        folder = root / name
        shutil.copytree(good, folder)
        (folder / file).write_bytes(_json(content))
        reseal(folder)
        yield Case(name, folder, "", (1, 2))
    for file in (RUN, TABLE):
        folder = root / f"flip-{file}"
        shutil.copytree(good, folder)
        data = bytearray((folder / file).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / file).write_bytes(data)
        yield Case(folder.name, folder, folder.name, (1,))
