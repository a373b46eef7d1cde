"""Hub survey over the network: a server on this machine that answers as huggingface.co does, faults included."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from servers import Answer, Request, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATASET = "mwalmsley/gz_tiny"
N = 30

PROGRAM = """
import json, sys
from pathlib import Path
from sfnetlab.errors import DataError
from sfnetlab.surveys.hub import HubSurvey, build_hub_survey
try:
    catalog, stored, source = build_hub_survey(HubSurvey(**json.loads(sys.argv[1])), Path(sys.argv[2]))
except DataError as error:
    raise SystemExit(f"DataError: {error}")
print(json.dumps({"ids": catalog["id_str"].tolist(), "source": source}))
"""


def pixels_of(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def parquet_of(numbers: range) -> bytes:
    images = []
    for i in numbers:
        file = io.BytesIO()
        Image.fromarray(pixels_of(i)).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": f"{i}.png"})
    file = io.BytesIO()
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"id_str": [f"g{i}" for i in numbers], "image": pa.array(images, kind)}), file)
    return file.getvalue()


FILES = {
    "data/train-00000-of-00002.parquet": parquet_of(range(10)),
    "data/train-00001-of-00002.parquet": parquet_of(range(10, 20)),
    "data/test-00000-of-00001.parquet": parquet_of(range(20, N)),
}

FOLDER = {"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}


def hub(request: Request) -> Answer:
    """Answer the calls that `datasets` makes: a dataset's commit, its files, and their contents, whole or in ranges."""
    api, files = f"/api/datasets/{DATASET}/", f"/datasets/{DATASET}/resolve/"
    if request.method == "POST":
        is_json = "json" in request.headers.get("Content-Type", "")
        paths = json.loads(request.body)["paths"] if is_json else parse_qs(request.body.decode())["paths"]
        return json_of([info(name) for name in FILES if name in paths] + [FOLDER] * ("data" in paths))
    if request.path.startswith(f"{api}revision/"):
        if request.path.removeprefix(f"{api}revision/") not in ("main", COMMIT):
            return failure("RevisionNotFound")
        siblings = [{"rfilename": name} for name in FILES]
        return json_of({"id": DATASET, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
    if request.path.startswith(f"{api}tree/{COMMIT}"):
        under = request.path.removeprefix(f"{api}tree/{COMMIT}").strip("/")
        is_recursive = "true" in request.fields.get("recursive", "").lower()
        below = [info(name) for name in FILES if name.startswith(under)]
        return json_of(below if under or is_recursive else [FOLDER])
    if request.path.startswith(files):
        revision, _, name = request.path.removeprefix(files).partition("/")
        if revision not in ("main", COMMIT):
            return failure("RevisionNotFound")
        if name not in FILES:
            return failure("EntryNotFound")
        return content_of(FILES[name], request.headers.get("Range"))
    return failure("RepoNotFound")


def info(name: str) -> dict[str, Any]:
    oid = hashlib.sha1(FILES[name]).hexdigest()
    return {"type": "file", "path": name, "oid": oid, "size": len(FILES[name])}


def content_of(content: bytes, asked: str | None) -> Answer:
    headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
    if asked is None:
        return Answer(200, content, headers)
    first, last = asked.removeprefix("bytes=").split("-")
    end = min(int(last or len(content) - 1), len(content) - 1)
    headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
    return Answer(206, content[int(first) : end + 1], headers)


def json_of(content: Any) -> Answer:
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def failure(code: str) -> Answer:
    return Answer(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})


@pytest.fixture
def server() -> Iterator[str]:
    with serving(hub) as url:
        yield url


def read(tmp_path: Path, endpoint: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Where the hub is, its client learns at import: a process of its own."""
    known = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = known | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    arguments = [json.dumps({"dataset": DATASET} | settings), str(tmp_path / "images.npy")]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_every_row_gets_its_image_and_the_commit_is_recorded(
    tmp_path: Path, server: str, streaming: bool, revision: str
) -> None:
    done = read(tmp_path, server, streaming=streaming, revision=revision)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ids"] == [f"g{i}" for i in range(N)]
    assert answer["source"]["commit"] == COMMIT
    assert answer["source"]["revision"] == revision
    images = np.load(tmp_path / "images.npy")
    np.testing.assert_array_equal(images, np.stack([pixels_of(i) for i in range(N)]))
    assert any((tmp_path / "hf").rglob("*.arrow")) != streaming


@pytest.mark.slow
def test_what_was_fetched_once_is_read_without_the_hub_unless_another_commit_is_meant(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(tmp_path, server).returncode == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = read(tmp_path, server)
    assert json.loads(again.stdout)["source"]["commit"] == COMMIT
    other = read(tmp_path, server, revision="f" * 40)
    assert f"the cache holds {COMMIT}, not {'f' * 40}" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"revision": "v2"}, "v2"),
        ({"dataset": "mwalmsley/none"}, "mwalmsley/none"),
        ({"config": "tiny"}, "tiny"),
        ({"splits": ["valid"]}, "no split valid (survey.splits), expected of train, test"),
    ],
)
def test_what_the_hub_does_not_have_is_a_data_error(
    tmp_path: Path, server: str, settings: dict[str, Any], message: str
) -> None:
    done = read(tmp_path, server, **settings)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "DataError: hub dataset mwalmsley/" in done.stderr
    assert message in last
