"""Hub survey over the network: a server on this machine that answers as huggingface.co does, faults included."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

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


class Hub(BaseHTTPRequestHandler):
    """The calls that `datasets` makes: a dataset's commit, its files, and their contents, whole or in ranges."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api, files = f"/api/datasets/{DATASET}/", f"/datasets/{DATASET}/resolve/"
        if path.startswith(f"{api}revision/"):
            if path.removeprefix(f"{api}revision/") not in ("main", COMMIT):
                return self._fail("RevisionNotFound")
            siblings = [{"rfilename": name} for name in FILES]
            return self._json({"id": DATASET, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        if path.startswith(f"{api}tree/{COMMIT}"):
            under = path.removeprefix(f"{api}tree/{COMMIT}").strip("/")
            is_recursive = "true" in parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower()
            below = [self._info(name) for name in FILES if name.startswith(under)]
            return self._json(below if under or is_recursive else [FOLDER])
        if path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            if revision not in ("main", COMMIT):
                return self._fail("RevisionNotFound")
            if name not in FILES:
                return self._fail("EntryNotFound")
            return self._file(FILES[name])
        return self._fail("RepoNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body)["paths"]
        found = [self._info(name) for name in FILES if name in paths]
        self._json(found + [FOLDER] * ("data" in paths))

    def _info(self, name: str) -> dict[str, Any]:
        oid = hashlib.sha1(FILES[name]).hexdigest()
        return {"type": "file", "path": name, "oid": oid, "size": len(FILES[name])}

    def _file(self, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked is None:
            return self._answer(200, content, headers)
        first, last = asked.removeprefix("bytes=").split("-")
        end = min(int(last or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        return self._answer(206, content[int(first) : end + 1], headers)

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _fail(self, code: str) -> None:
        self._answer(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        hub.daemon_threads = True
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hub.server_port}"
        hub.shutdown()


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
