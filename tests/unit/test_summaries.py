"""Summaries for the online monitor: what is taken of what programs write, and those of the demo's events."""

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import blosc
import numpy as np
import pytest

from straxflow import summaries
from straxflow.detectors.demo_summary import main
from straxflow.errors import StepFailed
from straxflow.receipts import State
from straxflow.summaries import Summary

RUN, PRODUCT = "000001", "events"
PNG = summaries.PNG + b"the rest"


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder with a product in it."""
    state = State(tmp_path / "state")
    (state.run(RUN) / PRODUCT).mkdir(parents=True)
    return state


def take(state: State, folder: Path, content: Any, **plots: bytes) -> Summary:
    written = folder / "written"
    written.mkdir(exist_ok=True)
    (written / "summary.json").write_text(content if isinstance(content, str) else json.dumps(content))
    for kind, picture in plots.items():
        (written / f"plot.{kind}").write_bytes(picture)
    return summaries.take(state, RUN, PRODUCT, written)


def test_figures_and_plot_stand_beside_the_receipts(state: State, tmp_path: Path) -> None:
    values = {"events": 12, "rate (Hz)": 1.5, "good": True, "note": "x" * 1000, "nothing": None}
    take(state, tmp_path, {"values": values, "anything": "else"}, png=PNG)
    summary = state.find(RUN, PRODUCT, Summary)
    assert summary is not None
    assert summary.values == values | {"note": "x" * summaries.LONGEST_TEXT}
    assert summary.plot == "png"
    assert summaries.plot_of(state, RUN, PRODUCT, "png") == PNG
    assert summaries.plot_of(state, RUN, PRODUCT, "svg") is None
    summaries.drop(state, RUN, PRODUCT)
    assert state.find(RUN, PRODUCT, Summary) is None
    assert list((state.run(RUN) / PRODUCT).iterdir()) == []
    summaries.drop(state, RUN, PRODUCT)


def test_what_is_no_number_is_nothing(state: State, tmp_path: Path) -> None:
    assert take(state, tmp_path, '{"values": {"a": NaN, "b": Infinity}}').values == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "expected"),
        ('{"values": {}}', "expected"),
        ('{"values": [1]}', "expected"),
        ({"values": {str(i): i for i in range(50)}}, "at most 40"),
        ({"values": {"a": [1]}}, "a: expected a number or text, found list"),
        ({"values": {"": 1}}, "is no name"),
        ({"values": {"a\nb": 1}}, "is no name"),
        ({"values": {"a" * 61: 1}}, "is no name"),
        (" " * 300_001, "larger than"),
    ],
)
def test_what_is_no_summary(state: State, tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(StepFailed, match=expected):
        take(state, tmp_path, content)
    assert state.find(RUN, PRODUCT, Summary) is None


@pytest.mark.parametrize(
    ("kind", "picture", "expected"),
    [
        ("svg", b"<html><script>", "not a picture"),
        ("svg", PNG, "not a picture"),
        ("png", b"<svg></svg>", "not a picture"),
        ("png", b"", "not a picture"),
        ("png", PNG * 40_000, "larger than"),
    ],
)
def test_what_is_no_plot(state: State, tmp_path: Path, kind: str, picture: bytes, expected: str) -> None:
    with pytest.raises(StepFailed, match=expected):
        take(state, tmp_path, {"values": {"a": 1}}, **{kind: picture})
    assert state.find(RUN, PRODUCT, Summary) is None


@pytest.mark.parametrize("name", ["summary.json", "plot.svg"])
def test_links_and_pipes_are_not_read(state: State, tmp_path: Path, name: str) -> None:
    written = tmp_path / "written"
    written.mkdir()
    (tmp_path / "secret").write_text('{"values": {"secret": 1}} <svg>')
    (written / "summary.json").write_text('{"values": {"a": 1}}')
    (written / name).unlink(missing_ok=True)
    (written / name).symlink_to(tmp_path / "secret")
    with pytest.raises(StepFailed, match=name):
        summaries.take(state, RUN, PRODUCT, written)
    (written / name).unlink()
    os.mkfifo(written / name)
    with pytest.raises(StepFailed, match="not a plain file"):
        summaries.take(state, RUN, PRODUCT, written)


def strax_folder(folder: Path, *chunks: Any) -> Path:
    """A folder as strax leaves it, with what the summary reads."""
    data = folder / "000001-events-abcdefghij"
    data.mkdir()
    dtype = [("time", "<i8"), ("s1_area", "<f4"), ("s2_area", "<f4"), ("drift_time", "<f4")]
    told = []
    for i, rows in enumerate(chunks):
        name = f"events-abcdefghij-{i:06d}"
        if rows:
            (data / name).write_bytes(blosc.compress(np.array(rows, dtype).tobytes()))
        told.append({"filename": name, "n": len(rows)})
    metadata = {"start": 0, "end": 2_000_000_000, "dtype": repr(dtype), "chunks": told}
    (data / "events-abcdefghij-metadata.json").write_text(json.dumps(metadata))
    return data


def test_the_demo_s_events(state: State, tmp_path: Path) -> None:
    data = strax_folder(tmp_path, [(0, 10, 100, 5e3), (1, 30, 300, 50e3)], [], [(2, 0, 200, np.nan)])
    written = tmp_path / "written"
    written.mkdir()
    assert main([str(data), str(written)]) == 0
    summary = summaries.take(state, RUN, PRODUCT, written)
    assert summary.values == {
        "events": 3, "with an S1": 2, "rate (Hz)": 1.5, "median S1 (PE)": 20, "median S2 (PE)": 200,
        "longest drift (µs)": 50,
    }  # fmt: skip
    picture = summaries.plot_of(state, RUN, PRODUCT, "svg")
    assert picture is not None
    bars = [e for e in ElementTree.fromstring(picture).iter() if e.tag.endswith("g") and "fill" in e.attrib]
    assert sum(len(list(g)) for g in bars[1:]) == 2


def test_the_demo_s_events_of_an_empty_run(state: State, tmp_path: Path) -> None:
    data = strax_folder(tmp_path, [])
    written = tmp_path / "written"
    written.mkdir()
    assert main([str(data), str(written)]) == 0
    assert summaries.take(state, RUN, PRODUCT, written).values["median S1 (PE)"] is None
