"""Numbers survive: to the bit, through kill -9, and with a sentence where they cannot."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.store import Journal, cached, checksum, load, read_json, save, write_json


def same(first: Any, second: Any) -> bool:
    """Equality to the bit, of types too."""
    if isinstance(first, Tensor):
        return (
            isinstance(second, Tensor)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and torch.equal(torch.isnan(first), torch.isnan(second))
            and torch.equal(first.nan_to_num(nan=0.25), second.nan_to_num(nan=0.25))
        )
    if isinstance(first, float):
        both_nan = math.isnan(first) and math.isnan(second)
        return type(second) is float and (both_nan or first.hex() == second.hex())
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return (
            type(first) is type(second)
            and len(first) == len(second)
            and all(same(a, b) for a, b in zip(first, second, strict=True))
        )
    return type(first) is type(second) and first == second


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
    torch.int64,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_and_layout_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    block = torch.arange(24.0).reshape(2, 3, 4).to(dtype)
    stored = {
        "whole": block,
        "view": block[:, 1],  # shares its memory with the others
        "transposed": block.mT,
        "scalar": block[1, 2, 3],
        "empty": block[:0],
        "expanded": block[0, 0, :1].expand(5),
    }
    save(tmp_path, stored)
    loaded, info = load(tmp_path)
    assert same(stored, loaded) and info == {}


def test_conjugates_and_gradients_are_stored_as_numbers(tmp_path: Path) -> None:
    z = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128)
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loaded, _ = load(save(tmp_path / "z.safetensors", (z.conj(), z.conj().imag, weights * 2)))
    assert torch.equal(loaded[0], torch.tensor([1 - 2j, 3 + 4j], dtype=torch.complex128))
    assert torch.equal(loaded[1], torch.tensor([-2.0, 4.0], dtype=torch.float64))
    assert not loaded[2].requires_grad


def test_structure_and_plain_values_are_exact(tmp_path: Path) -> None:
    info = {
        "floats": [0.1, -0.0, 1e-320, math.pi, math.inf, -math.inf, math.nan, 1.0],
        "integers": (0, -1, 10**30),
        "flags": [True, False, None],
        "text": 'Grüße "ν"\n\\',
        "nested": {"float": "nan", "dict": {"tensor": "0"}, "": [], "t": ((), {}, [()])},
    }
    stored = {"u": [torch.ones(2), (None, {"a": 0.1, "b": "text"})], "order": {"z": 1, "a": 2}}
    save(tmp_path / "deep" / "folder", stored, info)
    loaded, loaded_info = load(tmp_path / "deep" / "folder")
    assert same(stored, loaded) and same(info, loaded_info)
    assert tree.same_structure(stored, loaded)
    assert [path.name for path in (tmp_path / "deep" / "folder").iterdir()] == ["tree.safetensors"]


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    value = {"b": torch.arange(3.0), "a": torch.zeros(2, 2)}
    files = [save(tmp_path / name, value, {"k": 1.5}) for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {1: torch.ones(2)}}, "the key 1 of the tree['a'] is not a string"),
        ({"a": [object()]}, "the tree['a'][0] is a object, which cannot be stored"),
        (np.ones(3), "the tree is a ndarray"),
        (torch.eye(3).to_sparse(), "sparse tensor"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        save(tmp_path, value)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_json(tmp_path / "a.json", {"loss": 1.0})

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_json(file, {"loss": 2.0})
    assert read_json(file) == {"loss": 1.0}
    assert list(tmp_path.iterdir()) == [file]


def test_unwritable_and_foreign_folders_get_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    for write in (
        lambda: save(file, None),
        lambda: write_json(file / "x.json", 1),
        lambda: Journal(file / "j"),
    ):
        with pytest.raises(UsageError, match=r"cannot write .*name a folder that you may write to"):
            write()
    with pytest.raises(UsageError, match="no stored tree"):
        load(tmp_path)
    (tmp_path / "foreign.safetensors").write_bytes(b"garbage, and more of it")
    with pytest.raises(UsageError, match="is broken"):
        load(tmp_path / "foreign.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(UsageError, match="was not written by this version of dpcontrol"):
        load(tmp_path / "weights.safetensors")


def test_json_is_strict_and_exact(tmp_path: Path) -> None:
    value = {"loss": [0.1, math.inf, -math.inf], "n": np.int64(3), "x": np.float64(0.3), "ok": np.bool_(True)}
    file = write_json(tmp_path / "run" / "record.json", value)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads(file.read_text(), parse_constant=refuse)
    assert read_json(file) == {"loss": [0.1, math.inf, -math.inf], "n": 3, "x": 0.3, "ok": True}
    assert math.isnan(read_json(write_json(tmp_path / "nan.json", (math.nan,)))[0])


def test_broken_json_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_json(tmp_path / "none.json")
    for content in (b'{"loss": 1', b"\xff\xfe\x00", b""):
        (tmp_path / "broken.json").write_bytes(content)
        with pytest.raises(UsageError, match="is not JSON"):
            read_json(tmp_path / "broken.json")
    with pytest.raises(UsageError, match="cannot read"):
        read_json(tmp_path)
    with pytest.raises(UsageError, match="is a Tensor, which cannot be stored"):
        write_json(tmp_path / "t.json", {"z": torch.ones(1)})


# ---- the journal


def answers(count: int) -> list[tuple[bytes, float, list[np.ndarray | Tensor]]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            checksum(torch.full((3,), float(index))),
            0.1 * index,
            [
                torch.randn(index, 2, dtype=torch.float64, generator=generator),
                np.array(float(index)),
                torch.tensor([index > 1, True]),
                np.array([1 + 2j], dtype=np.complex128),
                torch.tensor(1.5, dtype=torch.float16),
            ],
        )
        for index in range(count)
    ]


def assert_holds(journal: Journal, expected: list[tuple[bytes, float, list[np.ndarray | Tensor]]]) -> None:
    records = list(journal.replay())
    assert journal.count == len(records) == len(expected)
    for record, (request, seconds, arrays) in zip(records, expected, strict=True):
        assert (record.request, record.seconds) == (request, seconds)
        assert len(record.arrays) == len(arrays)
        for found, wanted in zip(record.arrays, arrays, strict=True):
            assert type(found) is type(wanted)
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_a_journal_is_replayed_and_continued(tmp_path: Path) -> None:
    expected = answers(6)
    with Journal(tmp_path / "run" / "journal") as journal:
        assert_holds(journal, [])
        for answer in expected[:4]:
            journal.append(*answer)
        assert_holds(journal, expected[:4])  # also while it is open
    with Journal(tmp_path / "run" / "journal") as journal:
        assert_holds(journal, expected[:4])
        for answer in expected[4:]:
            journal.append(*answer)
        assert_holds(journal, expected)
        assert journal.dropped == 0


def test_a_record_cut_anywhere_costs_only_itself(tmp_path: Path) -> None:
    path, expected = tmp_path / "journal", answers(3)
    sizes = []
    with Journal(path) as journal:
        for answer in expected:
            journal.append(*answer)
            sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in sizes)
        with Journal(path) as journal:
            assert journal.count == kept
            assert journal.dropped == size - (sizes[kept - 1] if kept else min(size, 20) if size >= 20 else 0)
            if size in (0, 5, sizes[0] + 3, sizes[1], len(whole) - 1):
                for answer in expected[kept:]:
                    journal.append(*answer)
                assert_holds(journal, expected)
    path.write_bytes(whole + bytes(100))  # some file systems leave zeros behind after a power cut
    with Journal(path) as journal:
        assert_holds(journal, expected)
        assert journal.dropped == 100


def test_a_damaged_record_is_noticed(tmp_path: Path) -> None:
    path, expected = tmp_path / "journal", answers(3)
    with Journal(path) as journal:
        for answer in expected[:2]:
            journal.append(*answer)
        end = path.stat().st_size
        journal.append(*expected[2])
    content = bytearray(path.read_bytes())
    for position in (end, end + 9, end + 20, len(content) - 1):
        damaged = content.copy()
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        with Journal(path) as journal:
            assert_holds(journal, expected[:2])


def test_a_foreign_file_is_not_truncated(tmp_path: Path) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("five years of work, no copy anywhere")
    with pytest.raises(UsageError, match="is not a journal of dpcontrol"):
        Journal(path)
    assert path.read_text() == "five years of work, no copy anywhere"


@pytest.mark.skipif(sys.platform == "win32", reason="no advisory locks there")
def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal"), pytest.raises(UsageError, match="is in use by another run"):
        Journal(tmp_path / "journal")
    Journal(tmp_path / "journal").close()


KILLED = """
import sys, torch
from dpcontrol.store import Journal, checksum
journal = Journal(sys.argv[1])
for index in range(10**9):
    x = torch.full((1000,), float(index), dtype=torch.float64)
    journal.append(checksum(x), index * 0.5, [x])
    if index >= 200:
        print(index, flush=True)
"""


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    said = [200, *(int(line) for line in process.stdout.read().splitlines() if line)]
    process.stdout.close()
    process.wait()
    with Journal(path) as journal:
        records = list(journal.replay())
        assert len(records) >= len(said) + 200
        for index, record in enumerate(records):
            (x,) = record.arrays
            assert record.request == checksum(x) and record.seconds == index * 0.5
            assert x.shape == (1000,) and bool((x == index).all())


def test_what_a_journal_cannot_hold_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        for wrong in (torch.ones(1, dtype=torch.bfloat16), np.array(["text"]), np.array([object()])):
            with pytest.raises(UsageError, match="cannot be journalled"):
                journal.append(bytes(16), 0.0, [wrong])
        with pytest.raises(ValueError, match="16 bytes"):
            journal.append(b"short", 0.0, [])
        assert_holds(journal, [])


def test_checksums_tell_requests_apart() -> None:
    x = torch.arange(6.0)
    distinct = [
        checksum(x),
        checksum(x.double()),
        checksum(x.reshape(2, 3)),
        checksum(x[:3], x[3:]),
        checksum(x.nextafter(torch.tensor(9.0))),
        checksum(b"value", x),
        checksum(b"grad", x),
    ]
    assert len(set(distinct)) == len(distinct)
    assert checksum(x) == checksum(x.numpy()) == checksum(x.clone().requires_grad_())
    assert checksum(x.reshape(2, 3).T) == checksum(x.reshape(2, 3).T.contiguous())


# ---- the cache


def test_generated_data_are_made_once_for_each_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path / "cache"))
    made: list[int] = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"u": torch.linspace(0, 1, 5, dtype=torch.float64, requires_grad=True)}

    first = cached({"name": "burgers", "cells": 32, "nu": 0.1}, make)
    second = cached({"nu": 0.1, "name": "burgers", "cells": 32}, make)  # the order says nothing
    assert len(made) == 1 and torch.equal(first["u"], second["u"]) and not first["u"].requires_grad
    cached({"name": "burgers", "cells": 32, "nu": 0.1 + 1e-16}, make)
    assert len(made) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path / "cache"))

    def fail() -> None:
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        cached({"name": "x"}, fail)
    assert cached({"name": "x"}, lambda: 3.5) == 3.5
    monkeypatch.setenv("DPCONTROL_CACHE", str(next((tmp_path / "cache").iterdir())))
    with pytest.raises(UsageError, match="cannot write"):
        cached({"name": "y"}, lambda: 1)
