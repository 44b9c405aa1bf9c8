import contextlib
import math
import sqlite3
import sys

import numpy as np
import pytest
from streams import event, frame, header, scalars, store

from monitor.cli import main

NAN, INF = float("nan"), float("inf")
COLUMNS = ["step", "rank", "time", "attention@0/entropy", "attention@0/rms", "output/rms"]


@pytest.fixture
def trace(tmp_path):
    records = [
        header(),
        frame(1, 0, values=(0.1, NAN, 3)),
        scalars(2, [0, 1], [0.5, 0.25]),
        event(3, 5, "note", "it said 'so'"),
        frame(4, 10, values=(0.2, INF, 4)),
    ]
    return store(tmp_path / "t.trace", records)


def test_sqlite_holds_what_was_measured(trace, tmp_path, capsys):
    output = tmp_path / "run.sqlite"
    assert main(["export", str(trace), "-o", str(output)]) == 0
    assert "measured 5 rows" in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(output)) as file:
        found = file.execute(
            "SELECT step, value FROM samples WHERE site = 'attention@0' AND metric = 'rms'"
        ).fetchall()
        assert found == [(10, INF)]  # the NaN at step 0 is no row
        values = file.execute("SELECT value FROM samples WHERE metric = 'entropy'").fetchall()
        assert values == [(pytest.approx(0.1),), (pytest.approx(0.2),)]
        unit = file.execute("SELECT meaning, healthy FROM metrics WHERE metric = 'entropy'")
        assert unit.fetchone() == ("spread of attention", "0 to 1")
        losses = file.execute("SELECT step, value FROM scalars WHERE name = 'loss'").fetchall()
        assert losses == [(0, 0.5), (1, 0.25)]
        assert file.execute("SELECT text FROM events").fetchall() == [("it said 'so'",)]
        run = dict(file.execute("SELECT name, value FROM run").fetchall())
        assert run["model"] == "Small"
    assert [path.name for path in tmp_path.iterdir()].count("run.sqlite") == 1
    assert not list(tmp_path.glob(".run*"))
    assert main(["export", str(trace), "-o", str(output)]) == 64


def test_parquet_holds_the_tables_as_float32(trace, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "run.parquet"
    assert main(["export", str(trace), "-o", str(output)]) == 0
    table = parquet.read_table(output)
    assert table.column_names == COLUMNS
    assert table["step"].to_pylist() == [0, 10]
    assert table["attention@0/entropy"].to_numpy().dtype == np.float32
    assert math.isnan(table["attention@0/rms"].to_pylist()[0])
    assert table["attention@0/rms"].to_pylist()[1] == INF
    assert table.schema.field("attention@0/entropy").metadata[b"healthy"] == b"0 to 1"
    beside = parquet.read_table(tmp_path / "run.scalars.parquet")
    assert beside["loss"].to_pylist() == [0.5, 0.25]


def test_parquet_without_pyarrow_says_what_to_install(trace, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    output = tmp_path / "run.parquet"
    assert main(["export", str(trace), "-o", str(output)]) == 64
    assert "pip install 'defaultpp-monitor[parquet]'" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("name", ["x.csv", "x.sqlite", "x.db"])
def test_a_place_that_cannot_be_written_is_one_line(trace, tmp_path, name, capsys):
    assert main(["export", str(trace), "-o", str(tmp_path / "no" / "such" / name)]) == 3
    err = capsys.readouterr().err
    assert "cannot be written" in err
    assert err.count("\n") == 1
