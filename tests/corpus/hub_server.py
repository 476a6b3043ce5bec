"""A real HTTP server on loopback with the routes of the hub that `huggingface_hub` and `datasets` call.

Rate limits, outages, gates and endless files are real answers of it. Point `HF_ENDPOINT` at `url` in a new process.
"""
# pyright: reportGeneralTypeIssues=false

import asyncio
import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web


@dataclass
class Repository:
    """Files at one commit. The commit is the hash of the files."""

    files: dict[str, bytes]
    gated: bool = False
    listed: bool = True
    private: bool = False
    gone: bool = False
    """It is listed, but gone when it is requested."""
    endless: bool = False
    """Its files never end."""

    @property
    def sha(self) -> str:
        return hashlib.sha1(
            repr(sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files.items())).encode()
        ).hexdigest()

    @property
    def card(self) -> dict[str, Any]:
        text = self.files.get("README.md", b"").decode()
        return yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}

    @property
    def tags(self) -> list[str]:
        card = self.card
        tags = [f"task_categories:{name}" for name in card.get("task_categories", ["text-classification"])]
        tags += [f"language:{name}" for name in card.get("language", [])]
        return tags + ([f"license:{card['license']}"] if "license" in card else [])


@dataclass
class HubServer:
    """For each request, `faults` may return a status to answer with, or "429:<header>:<value>"."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: Callable[[str, int], str | None] | None = None
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process that uses this hub, and nothing of the user's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return kept | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
        }

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._faulty], client_max_size=1 << 28)
        name = "{owner}/{name}"
        app.router.add_get("/api/datasets", self._list)
        app.router.add_get(f"/api/datasets/{name}", self._info)
        app.router.add_get(f"/api/datasets/{name}/revision/{{revision}}", self._info)
        app.router.add_get(f"/api/datasets/{name}/tree/{{revision}}", self._tree)
        app.router.add_get(f"/api/datasets/{name}/tree/{{revision}}/{{path:.*}}", self._tree)
        app.router.add_post(f"/api/datasets/{name}/paths-info/{{revision}}", self._paths)
        app.router.add_get(f"/datasets/{name}/resolve/{{revision}}/{{path:.*}}", self._file)
        app.router.add_post("/api/repos/create", self._create)
        app.router.add_post("/api/validate-yaml", self._validate)
        for kind in ("datasets", "models"):
            app.router.add_post(f"/api/{kind}/{name}/preupload/{{revision}}", self._preupload)
            app.router.add_post(f"/api/{kind}/{name}/commit/{{revision}}", self._commit)
        app.router.add_get(f"/api/models/{name}", self._info)
        app.router.add_get(f"/api/models/{name}/revision/{{revision}}", self._info)
        app.router.add_get(f"/api/models/{name}/tree/{{revision}}", self._tree)
        app.router.add_get(f"/{name}/resolve/{{revision}}/{{path:.*}}", self._file)
        return app

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        fault = self.faults(request.path, len(self.requests)) if self.faults else None
        if fault:
            status, name, value = (*fault.split(":"), "", "")[:3]
            return web.json_response({"error": "busy"}, status=int(status), headers={name: value} if name else {})
        return await handler(request)

    def _found(self, request: web.Request) -> tuple[str, Repository]:
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.repositories.get(name)
        if repository is None or repository.gone:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        revision = request.match_info.get("revision", "main")
        if revision not in ("main", repository.sha):
            raise web.HTTPNotFound(
                headers={"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}
            )
        return name, repository

    def _shown(self, name: str, repository: Repository) -> dict[str, Any]:
        shown = {
            "id": name,
            "sha": repository.sha,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 1,
        }
        siblings = [{"rfilename": path} for path in repository.files]
        return shown | {"private": False, "tags": repository.tags, "cardData": repository.card, "siblings": siblings}

    async def _list(self, request: web.Request) -> web.Response:
        wanted = request.query.getall("filter", [])
        there = [(name, r) for name, r in self.repositories.items() if r.listed and set(wanted) <= set(r.tags)]
        # Two pages, as the hub has them.
        page = int(request.query.get("cursor", 0))
        half = (len(there) + 1) // 2
        part = there[page * half : (page + 1) * half]
        more = (
            {"Link": f'<{self.url}/api/datasets?{"&".join(f"filter={w}" for w in wanted)}&cursor=1>; rel="next"'}
            if page == 0
            else {}
        )
        return web.json_response([self._shown(name, r) for name, r in part], headers=more)

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(self._shown(*self._found(request)))

    async def _tree(self, request: web.Request) -> web.Response:
        _, repository = self._found(request)
        path = request.match_info.get("path", "").strip("/")
        entries = [
            self._entry(name, data)
            for name, data in repository.files.items()
            if not path or name.startswith(f"{path}/")
        ]
        folders = {"/".join(name.split("/")[:i]) for name in repository.files for i in range(1, name.count("/") + 1)}
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)]
        if request.query.get("recursive", "false").lower() not in ("true", "1"):
            depth = path.count("/") + 1 if path else 0
            entries = [entry for entry in entries if entry["path"].count("/") == depth]
        if path and not entries:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        return web.json_response(entries)

    async def _paths(self, request: web.Request) -> web.Response:
        _, repository = self._found(request)
        form = await request.post() if "form" in request.content_type else await request.json()
        paths = form.getall("paths") if hasattr(form, "getall") else form["paths"]
        found = [self._entry(path, repository.files[path]) for path in paths if path in repository.files]
        found += [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            for path in paths
            if path not in repository.files and any(name.startswith(f"{path}/") for name in repository.files)
        ]
        return web.json_response(found)

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": path}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        _, repository = self._found(request)
        if repository.gated:
            raise web.HTTPForbidden(headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        data = repository.files.get(request.match_info["path"])
        headers = {"X-Repo-Commit": repository.sha, "Accept-Ranges": "bytes"}
        if data is None:
            raise web.HTTPNotFound(headers=headers | {"X-Error-Code": "EntryNotFound"})
        headers |= {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Content-Disposition": "inline"}
        if repository.endless and not request.match_info["path"].startswith("README") and request.method == "GET":
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        wanted = request.http_range
        if wanted.start is None:
            return web.Response(body=data, headers=headers)
        part = data[wanted]
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.start + len(part) - 1}/{len(data)}"
        return web.Response(status=206, body=part, headers=headers)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = f"{body.get('organization') or 'me'}/{body['name']}"
        self.repositories[name] = Repository(
            {}, private=bool(body.get("private") or body.get("visibility") == "private"), listed=False
        )
        return web.json_response({"url": f"{self.url}/datasets/{name}", "name": name, "id": "1"})

    async def _validate(self, request: web.Request) -> web.Response:
        """Check that the card's metadata is YAML."""
        content = (await request.json())["content"]
        try:
            yaml.safe_load(content.split("---")[1] if content.startswith("---") else "")
        except yaml.YAMLError as error:
            return web.json_response({"errors": [{"message": str(error)}], "warnings": []}, status=400)
        return web.json_response({"errors": [], "warnings": []})

    async def _preupload(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response(
            {
                "files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in body["files"]
                ]
            }
        )

    async def _commit(self, request: web.Request) -> web.Response:
        name, repository = self._found(request)
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                repository.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = f"{self.url}/datasets/{name}/commit/{repository.sha}"
        return web.json_response({"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""})


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    """The server, running in a thread of this process."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = runner.addresses[0]
        server.url = f"http://{address[0]}:{address[1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
