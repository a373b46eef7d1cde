"""The benchmark command: rows with a ratio, unknown names refused."""

import json

from sfnetlab import cli


def test_a_benchmark_prints_and_writes_its_ratio(tmp_path, capsys):
    assert cli.main(["bench", "selection", "--device", "cpu", "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert set(row) == {"name", "case", "ours", "reference", "unit", "ratio", "threads", "device"}
    assert row["ratio"] > 0
    assert "x the reference" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused_with_the_known(capsys):
    assert cli.main(["bench", "warp", "--device", "cpu"]) == 2
    assert "no benchmark warp; known: mock, survey" in capsys.readouterr().err
