"""A stand-in for ModelScope: the few answers that its client asks for, on a local port."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serving(
    files: dict[str, bytes], *, wrong_hash: bool = False, cut: bool = False
) -> Iterator[str]:
    """Serve one repository, whatever its name, and give the endpoint's address.

    Args:
        files: the content by path.
        wrong_hash: announce another SHA-256 than the files have, as after a damaged transfer.
        cut: break every transfer off halfway.
    """

    def listing() -> list[dict[str, object]]:
        return [
            {
                "Path": path,
                "Name": path.rsplit("/", 1)[-1],
                "Type": "blob",
                "Size": len(content),
                "Sha256": hashlib.sha256(content + b"x" * wrong_hash).hexdigest(),
            }
            for path, content in files.items()
        ]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urllib.parse.urlparse(self.path)
            query = urllib.parse.parse_qs(address.query)
            if address.path.endswith(("/repo/files", "/repo/tree")):
                found = listing()
                answer = {"Files": found, "TotalCount": len(found)}
                body = json.dumps({"Code": 200, "Success": True, "Data": answer}).encode()
            elif "FilePath" in query and query["FilePath"][0] in files:
                body = files[query["FilePath"][0]]
            else:
                body = json.dumps({"Code": 200, "Success": True, "Data": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut and "FilePath" in query else body)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
