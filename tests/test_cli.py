"""The command line as a user runs it, on files of their own: in a process where that counts, else in this one."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from rich.console import Console

from mtlkit import cli
from mtlkit.cli import console
from mtlkit.cli.scores import print_scores

RUN = """
[data]
type = "csv"
path = "houses.csv"
tasks = { price = "number", sold = "class" }

[model]
encoder = { type = "mlp", hidden = [32] }

[train]
epochs = 12
batch_size = 32
optimizer = { type = "adam", lr = 1e-2 }
"""
MTLKIT = str(Path(sys.executable).with_name("mtlkit"))
WIDE = {"COLUMNS": "200"}


def in_a_process(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **WIDE, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def mtlkit(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in this process, which has imported torch: to start another takes seconds."""
    out, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["mtlkit", *arguments]),
        # A console asks once how wide it is, when it is made.
        mock.patch.object(console, "out", Console(width=int(WIDE["COLUMNS"]))),
        mock.patch.object(console, "err", Console(width=int(WIDE["COLUMNS"]), stderr=True)),
        contextlib.chdir(cwd or os.curdir),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    return subprocess.CompletedProcess(arguments, int(end.value.code or 0), out.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 400 houses with gaps, its run file, and the model trained from that file alone."""
    folder = tmp_path_factory.mktemp("houses")
    draw = random.Random(0)
    rows = []
    for _ in range(400):
        area, rooms, city = draw.randint(40, 200), draw.randint(1, 6), draw.choice(["Ulm", "Bonn", "Köln"])
        price = 3 * area + 20 * rooms + {"Ulm": 0, "Bonn": 50, "Köln": 100}[city]
        rows.append(
            {
                "area": "" if draw.random() < 0.05 else area,
                "rooms": rooms,
                "city": city,
                "price": "" if draw.random() < 0.2 else price,
                "sold": "" if draw.random() < 0.2 else "yes" if area > 100 else "no",
            }
        )
    _write(folder / "houses.csv", rows)
    _write(folder / "new.csv", [{"area": 180, "rooms": 5, "city": "Köln"}, {"area": 45, "rooms": 1, "city": "Ulm"}])
    (folder / "houses.toml").write_text(RUN)
    done = in_a_process(MTLKIT, "train", "houses.toml", "--out", "model", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    return folder


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_of_ones_own_trains_from_a_run_file_and_predicts_a_csv(folder: Path) -> None:
    done = mtlkit("predict", "model", "new.csv", "--out", "predicted.csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    with (folder / "predicted.csv").open(encoding="utf-8") as file:
        large, small = csv.DictReader(file)
    assert large["city"] == "Köln" and large["area"] == "180"  # the rows of the source stand unchanged
    # In the units and labels of the table.
    assert abs(float(large["price"]) - 740) < 60 and abs(float(small["price"]) - 155) < 60
    assert (large["sold"], small["sold"]) == ("yes", "no")
    assert float(large["sold_yes"]) + float(large["sold_no"]) == pytest.approx(1, abs=1e-5)


def test_evaluate_gives_what_train_printed(folder: Path) -> None:
    done = mtlkit("evaluate", "model", "--json", cwd=folder)
    scores = json.loads(done.stdout)
    assert scores["price"]["r2"] > 0.9 and scores["sold"]["accuracy"] > 0.8
    again = mtlkit("train", "houses.toml", "--out", "model2", cwd=folder)
    assert f"{scores['price']['r2']:.4f}" in again.stdout  # and the second run is the first
    with (folder / "houses.csv").open(encoding="utf-8") as file:
        priced = sum(row["price"] != "" for row in csv.DictReader(file))
    examples, labels, price, sold, columns, end, *_ = again.stdout.splitlines()
    assert (examples, labels) == ("examples: 320 train, 40 valid, 40 test", "labels:")
    assert sum(int(count) for count in re.findall(r"\d+", price)) == priced and sold.startswith("  sold: ")
    assert columns == "columns: 2 numbers, 1 category; an input of 6"  # of area a column more, where it is empty
    assert re.fullmatch(r"12 epochs, all that were planned; kept the last weights; [\d.]+ s without validation", end)


def test_evaluate_scores_a_new_table(folder: Path) -> None:
    from mtlkit.runfile import open_run

    rows = [
        {"area": area, "rooms": 3, "city": "Ulm", "price": "" if area == 60 else 3 * area + 60, "sold": sold}
        for area, sold in ((60, "no"), (90, "yes"), (150, "yes"), (180, ""))
    ]
    _write(folder / "labelled.csv", rows)
    done = mtlkit("evaluate", "model", "labelled.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    kept = open_run(folder / "model")
    assert kept.table is not None
    found = kept.trainer.predict(next(kept.table.parts(str(folder / "labelled.csv"))))
    price = kept.table.targets["price"]
    true = [(float(row["price"]) - price.mean) / price.scale for row in rows[1:]]  # type: ignore[arg-type, union-attr]
    errors = [(p - t) ** 2 for p, t in zip(found["price"][1:, 0].tolist(), true, strict=True)]
    assert scores["price"]["loss"] == pytest.approx(sum(errors) / 3, rel=1e-4)
    sold = [found["sold"][row, label].item() for row, label in enumerate((0, 1, 1))]
    assert scores["sold"]["loss"] == pytest.approx(-sum(map(math.log, sold)) / 3, rel=1e-4)
    assert scores["sold"]["accuracy"] == pytest.approx(sum(p > 0.5 for p in sold) / 3)
    printed = mtlkit("evaluate", "model", "labelled.csv", cwd=folder).stdout
    assert printed.startswith("labelled.csv") and printed.count("  constant") == 2


def test_evaluate_scores_the_tasks_that_a_new_table_has(folder: Path, tmp_path: Path) -> None:
    _write(tmp_path / "new.csv", [{"area": 90, "rooms": 3, "city": "Ulm", "price": 330}])
    done = mtlkit("evaluate", str(folder / "model"), "new.csv", "--json", cwd=tmp_path)
    assert set(json.loads(done.stdout)) == {"price"} and "not scored: 'sold'" in done.stderr


def test_evaluate_without_the_training_data_tells_no_constant(folder: Path) -> None:
    _write(folder / "new1.csv", [{"area": 90, "rooms": 3, "city": "Ulm", "price": 330, "sold": "yes"}])
    (folder / "houses.csv").rename(folder / "away.csv")
    try:
        done = mtlkit("evaluate", "model", "new1.csv", cwd=folder)
    finally:
        (folder / "away.csv").rename(folder / "houses.csv")
    assert done.returncode == 0 and "the training data can't be read: houses.csv" in done.stderr
    assert "price" in done.stdout and "constant" not in done.stdout


def test_evaluate_refuses_what_it_can_not_score(folder: Path) -> None:
    done = mtlkit("evaluate", "model", "houses.csv", "--split", "test", cwd=folder)
    assert done.returncode == 2 and "expected one of them" in done.stderr
    done = mtlkit("evaluate", "model", "new.csv", cwd=folder)
    assert done.returncode == 2 and "has no column 'price', 'sold'" in done.stderr
    (folder / "plain.toml").write_text('[data]\ntype = "linear"\n[model]\nencoder = "mlp"\n[train]\nepochs = 1\n')
    assert mtlkit("train", "plain.toml", cwd=folder).returncode == 0
    done = mtlkit("evaluate", "runs/plain", "houses.csv", cwd=folder)
    assert done.returncode == 2 and "trained on the dataset 'linear', expected one" in done.stderr


def test_what_is_exported_of_a_run_gives_what_predict_writes(folder: Path) -> None:
    import torch

    from mtlkit.data import format_of

    done = mtlkit("export", "model", "--out", "m.pt2", "--predictions", "--tasks", "price", cwd=folder)
    assert done.returncode == 0, done.stderr
    notes = {"mtlkit": ""}
    program = torch.export.load(folder / "m.pt2", extra_files=notes).module()
    x = format_of(json.loads(notes["mtlkit"])["table"]).read(str(folder / "new.csv"))
    assert mtlkit("predict", "model", "new.csv", "--out", "same.csv", cwd=folder).returncode == 0
    with (folder / "same.csv").open(encoding="utf-8") as file:
        expected = [float(row["price"]) for row in csv.DictReader(file)]
    assert program(x)["price"][:, 0].tolist() == pytest.approx(expected)


def test_a_model_that_has_learned_nothing_is_told_so(folder: Path) -> None:
    done = mtlkit("evaluate", "model", cwd=folder)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if len(row) > 2][1:5] == ["price", "constant", "sold", "constant"]
    assert "not better" not in done.stderr
    (folder / "idle.toml").write_text(RUN.replace("1e-2", "1e-9"))
    assert "not better than a constant prediction: sold (" in mtlkit("train", "idle.toml", cwd=folder).stderr
    # Where scores are for a program, too.
    done = mtlkit("evaluate", "runs/idle", "--json", cwd=folder)
    assert "not better than a constant prediction: sold (" in done.stderr and set(json.loads(done.stdout)) == {
        "price", "sold"
    }  # fmt: skip


def test_scores_of_any_scale_can_be_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"t": {"loss": 2.5e-9, "mae": 0.25, "mse": 4e8, "r2": math.nan}}
    print_scores(scores, {"t": dict.fromkeys(scores["t"], 0.0)}, "test data")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["t", "2.500e-09", "0.2500", "4.000e+08", "nan"] in rows


def test_predict_without_a_file_writes_the_test_rows_in_the_tables_units(folder: Path) -> None:
    assert mtlkit("predict", "model", "--out", "test.csv", cwd=folder).returncode == 0
    with (folder / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert max(float(row["price"]) for row in rows) > 300
    assert {row["sold"] for row in rows} == {"yes", "no"}


def test_a_folder_that_is_not_there_is_a_mistake_on_the_command_line(folder: Path) -> None:
    done = mtlkit("evaluate", "nowhere", cwd=folder)
    assert done.returncode == 2 and "1 problem on the command line" in done.stderr


def test_training_does_not_replace_a_model_unasked(folder: Path) -> None:
    before = (folder / "model" / "manifest.json").read_bytes()
    done = mtlkit("train", "houses.toml", "--out", "model", cwd=folder)
    assert done.returncode == 1 and "--overwrite" in done.stderr
    assert (folder / "model" / "manifest.json").read_bytes() == before


def test_going_on_where_there_is_nothing_to_go_on_from_replaces_no_model(folder: Path) -> None:
    before = (folder / "model" / "manifest.json").read_bytes()
    done = mtlkit("train", "houses.toml", "--out", "model", "--resume", cwd=folder)
    assert done.returncode == 1 and "It has no checkpoint to go on from" in done.stderr
    assert (folder / "model" / "manifest.json").read_bytes() == before


def test_show_draws_shapes_parameters_and_who_shares(folder: Path) -> None:
    done = mtlkit("show", "model", cwd=folder)
    assert "[6] -> [32]" in done.stdout and "of price, sold" in done.stdout
    assert "224 parameters" in done.stdout  # (6 + 1) * 32
    assert mtlkit("show", "model", "--mermaid", cwd=folder).stdout.startswith("flowchart LR\n")
    spec = json.loads(mtlkit("show", "houses.toml", "--spec", cwd=folder).stdout)
    assert spec["encoder"]["hidden"] == [32] and spec["tasks"]["sold"]["loss"]["type"] == "cross_entropy"
    schema = json.loads(mtlkit("show", "--schema").stdout)
    assert "mlp" in schema["$defs"]["encoder"]["anyOf"][0]["enum"]


def test_show_tells_what_a_model_costs(folder: Path) -> None:
    done = mtlkit("show", "houses.toml", "--cost", "--batch", "32", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "batches of 32" in done.stdout and "at features, weights" in done.stdout
    # Weights are not read.
    told = json.loads(mtlkit("show", "model", "--cost", "--json", cwd=folder).stdout)
    assert told["batch"] == 64 and told["total"]["parameters"] == 224 + 33 + 66
    assert told["rows"][0]["work"]["forward"] == 2 * 64 * 6 * 32
    assert [mode["passes"] for mode in told["modes"]] == [1, 1, 1, 2, 2, 1]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (('"mlp"', '"mpl"'), 2, "Did you mean 'mlp'?"),
        (("epochs", "epoch"), 2, "Did you mean 'epochs'?"),
        (("houses.csv", "nowhere.csv"), 2, "nowhere.csv"),
        (("sold =", "soldd ="), 2, "sold"),
        (("[model]", "[modle]"), 2, "Did you mean 'model'?"),
        (('type = "csv"', "type = 3"), 2, "data.type"),
        (("lr = 1e-2", "lr = 1e30"), 1, "step"),
    ],
)
def test_mistakes_are_told_without_a_traceback(folder: Path, change: tuple[str, str], status: int, words: str) -> None:
    (folder / "wrong.toml").write_text(RUN.replace(*change))
    done = mtlkit("train", "wrong.toml", "--out", "wrong", cwd=folder)
    assert done.returncode == status, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "wrong" / "manifest.json").exists()


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    done = in_a_process(MTLKIT, "evaluate", str(tmp_path))
    assert done.returncode == 1 and "manifest.json" in done.stderr and "Traceback" not in done.stderr


def test_help_and_listing_import_no_torch() -> None:
    for command in ("--help", "plugins"):
        code = f"import sys; sys.argv = ['mtlkit', {command!r}]\nfrom mtlkit import cli\n"
        code += "try: cli.main()\nexcept SystemExit: pass\n"
        code += "assert not {'torch', 'numpy', 'timm'} & set(sys.modules), sorted(sys.modules)"
        done = in_a_process(sys.executable, "-c", code)
        assert done.returncode == 0, done.stderr


def test_plugins_check_finds_all_parts_well() -> None:
    done = mtlkit("plugins", "--check")
    assert done.returncode == 0, done.stderr
    assert "mtlkit.encoder.cnn:CNN  ok" in done.stdout


def test_a_trained_folder_is_evaluated_from_anywhere(folder: Path, tmp_path: Path) -> None:
    here, there = (mtlkit("evaluate", str(folder / "model"), "--json", cwd=cwd).stdout for cwd in (folder, tmp_path))
    assert json.loads(here) == json.loads(there)


def test_overwriting_leaves_nothing_of_the_run_before(folder: Path) -> None:
    assert mtlkit("train", "houses.toml", "--out", "twice", cwd=folder).returncode == 0
    assert (folder / "twice" / "table.json").exists()
    (folder / "linear.toml").write_text('[data]\ntype = "linear"\n[model]\nencoder = "mlp"\n[train]\nepochs = 1\n')
    assert mtlkit("train", "linear.toml", "--out", "twice", "--overwrite", cwd=folder).returncode == 0
    assert not (folder / "twice" / "table.json").exists()
    assert mtlkit("predict", "twice", cwd=folder).returncode == 0


def test_what_can_not_be_written_is_told(folder: Path) -> None:
    done = mtlkit("train", "houses.toml", "--out", "houses.csv", cwd=folder)
    assert done.returncode == 1 and "can't be written" in done.stderr and "Traceback" not in done.stderr
    done = mtlkit("predict", "model", "new.csv", "--out", "new.csv", cwd=folder)
    assert done.returncode == 2 and "choose another" in done.stderr
    done = mtlkit("predict", "model", "new.csv", "--out", "p.xlsx", cwd=folder)
    assert done.returncode == 2 and done.stderr.startswith("error: p.xlsx: found suffix")


def test_it_runs_as_a_module() -> None:
    done = in_a_process(sys.executable, "-m", "mtlkit", "--help")
    assert done.returncode == 0 and "bench" in done.stdout


SLOW = """
import time, mtlkit
from mtlkit.cli import main

@mtlkit.datasets.register("slow")
def slow():
    print("waiting", flush=True)
    time.sleep(100)

main()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT that one process sends another")
@pytest.mark.parametrize("command", ["train", "suggest"])
def test_an_interrupted_command_says_so(tmp_path: Path, command: str) -> None:
    """Whatever a command does: here it waits for its data, until it is interrupted."""
    (tmp_path / "run.toml").write_text('[data]\ntype = "slow"\n[model]\nencoder = "mlp"\n')
    program = [sys.executable, "-c", SLOW, command, "run.toml", "--out", "new"]
    process = subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted") and "Traceback" not in errors
    assert not (tmp_path / "new").exists()


def test_a_run_that_a_signal_ended_goes_on_by_the_command_that_it_names(folder: Path) -> None:
    (folder / "long.toml").write_text(RUN.replace("epochs = 12", "epochs = 12\nsave_every = 20"))
    whole = mtlkit("train", "long.toml", "--out", "whole", cwd=folder)
    assert whole.returncode == 0, whole.stderr
    with subprocess.Popen(
        [MTLKIT, "train", "long.toml", "--out", "cut"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: [*(folder / "cut" / "checkpoints").glob("step-*")])
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
    if process.returncode == 0:
        pytest.skip("the run was faster than the signal")
    assert process.returncode == 143 and "Traceback" not in said
    again = said.partition("Go on with: ")[2].split()
    assert again == ["mtlkit", "train", "long.toml", "--out", "cut", "--resume"]
    # What was kept is scored as a trained folder is.
    newest = max((folder / "cut" / "checkpoints").glob("step-*"))
    assert mtlkit("evaluate", str(newest), cwd=folder).returncode == 0
    refused = mtlkit(*again[1:-1], cwd=folder)
    assert refused.returncode == 1 and "Go on with it by --resume" in refused.stderr
    done = mtlkit(*again[1:], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert re.sub(r"[\d.]+ s without.*|kept in.*", "", done.stdout) == re.sub(
        r"[\d.]+ s without.*|kept in.*", "", whole.stdout
    )
    for name in ("model.safetensors", "spec.json", "table.json"):
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    # Nothing is removed before it is known that the run can begin.
    (folder / "wrong.toml").write_text(RUN.replace("epochs = 12", 'sampler = "uniform"'))
    wrong = mtlkit("train", "wrong.toml", "--out", "cut", "--overwrite", cwd=folder)
    assert wrong.returncode == 2 and [*(folder / "cut" / "checkpoints").glob("step-*")]
    replaced = mtlkit(*again[1:-1], "--overwrite", cwd=folder)
    assert replaced.returncode == 0, replaced.stderr


def wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)
