from __future__ import annotations

import gzip

import pytest

from mtlkit.data.conllu import _shape, conllu
from mtlkit.errors import DataError


def sentence(*words: tuple[str, str, str]) -> str:
    """Lines of CoNLL-U from (form, upos, deprel)."""
    lines = [f"{i}\t{form}\t_\t{upos}\t_\t_\t0\t{deprel}\t_\t_" for i, (form, upos, deprel) in enumerate(words, 1)]
    return "\n".join(["# a comment", *lines, "", ""])


TRAIN = sentence(("The", "DET", "det"), ("cats", "NOUN", "nsubj:pass")) + sentence(("the", "DET", "_"))


@pytest.fixture
def file(tmp_path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return str(tmp_path / name)

    return write


def test_ids_labels_and_lengths(file):
    data = conllu(train=file("train.conllu", TRAIN))
    assert len(data.train) == 2 and data.valid is data.test is None
    x, y = data.train[0]
    # "cats" is seen once, so it is unknown (1); "the" is the first known word.
    assert x["words"].tolist() == [2, 1] and x["suffixes"].tolist() == [2, 1]
    assert data.train.texts["words"] == ["", "", "the"]
    assert [data.train.labels["upos"][i] for i in y["upos"]] == ["DET", "NOUN"]
    assert [data.train.labels["deprel"][i] for i in y["deprel"]] == ["det", "nsubj"]
    assert data.train[-1][1]["deprel"].tolist() == [-100]
    assert [len(x["words"]) for x, _ in data.train] == [2, 1]
    assert data.inputs["words"] == {"shape": [None], "dtype": "int64"}
    assert data.tasks["upos"] == {"outputs": 2, "loss": "cross_entropy", "head": "token"}


def test_contractions_and_left_out_words_are_skipped(file):
    lines = TRAIN.splitlines()
    lines.insert(1, "1-2\tThecats" + "\t_" * 8)
    lines.insert(3, "1.1\tgone" + "\t_" * 8)
    data, plain = conllu(train=file("a", "\n".join(lines))), conllu(train=file("b", TRAIN))
    assert [y["upos"].tolist() for _, y in data.train] == [y["upos"].tolist() for _, y in plain.train]


def test_label_that_only_the_test_has_is_a_class_of_its_own(file):
    test = file("test.conllu.gz", sentence(("dog", "NOUN", "root"), ("the", "DET", "det")))
    data = conllu(train=file("train.conllu.gz", TRAIN), test=test, tasks=("deprel",))
    assert data.train.labels == {"deprel": ["det", "nsubj", "root"]} and data.tasks["deprel"]["outputs"] == 3
    x, y = data.test[0]
    assert y["deprel"].tolist() == [2, 0] and x["words"].tolist() == [1, 2]


def test_ids_stay_below_the_given_sizes(file):
    text = "".join(sentence((word, "X", "a"), (word, "Y", "b")) for word in ["One", "two", "33", "4x"])
    data = conllu(train=file("train", text), words=3, suffixes=4, shapes=2)
    for name, size in [("words", 3), ("suffixes", 4), ("shapes", 2)]:
        assert max(int(x[name].max()) for x, _ in data.train) == size - 1


@pytest.mark.parametrize(
    ("form", "shape"),
    [("McDonald", "XxXx"), ("1990s", "dx"), ("--", "-"), ("a.b", "x.x"), ("Ünal", "Xx"), ("東京", "x")],
)
def test_shape(form, shape):
    assert _shape(form) == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tThe\tDET", "line 1: found 3 columns, expected the 10 of CoNLL-U"),
        ("", "found no words"),
        ("# nothing\n\n", "found no words"),
        (sentence(("The", "DET", "det")), r"has the labels \['DET'\] for task 'upos'"),
    ],
)
def test_what_is_no_treebank(file, text, message):
    with pytest.raises(DataError, match=message):
        conllu(train=file("bad.conllu", text))


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="none: can't be read"):
        conllu(train=str(tmp_path / "none"))
    (tmp_path / "latin1").write_bytes("é".encode("latin1"))
    with pytest.raises(DataError, match="latin1: can't be read"):
        conllu(train=str(tmp_path / "latin1"))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(TRAIN.encode() * 100)[:-30])
    with pytest.raises(DataError, match=r"cut\.gz: can't be read"):
        conllu(train=str(tmp_path / "cut.gz"))


def test_english_web_treebank(shared):
    folder = shared("ud_ewt")
    train, valid, test = (str(folder / f"en_ewt-ud-{part}.conllu.gz") for part in ("train", "dev", "test"))
    data = conllu(train=train, valid=valid, test=test, tasks=("upos", "xpos", "deprel"))
    parts = (data.train, data.valid, data.test)
    assert [len(part) for part in parts] == [12_544, 2_001, 2_077]
    assert [int(part.ends[-1]) for part in parts] == [204_577, 25_147, 25_094]
    assert {name: task["outputs"] for name, task in data.tasks.items()} == {"upos": 17, "xpos": 49, "deprel": 36}
    assert all((part.targets["upos"] >= 0).all() for part in parts)
