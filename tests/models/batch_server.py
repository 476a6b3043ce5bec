"""A real server on loopback that speaks OpenAI's Batch API and completes batches on demand."""

import json
from typing import Any

from aiohttp import web
from tests.evaluation.labelling_server import LabellingServer


class BatchServer(LabellingServer):
    """Labels texts by their words, directly or in batches. A batch is open until `complete` is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.uploads = 0
        self.lose_next_answer = False
        """Create the next batch, but drop the connection before answering."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files/{id}/content", self.content)
        app.router.add_post("/v1/batches", self.create)
        app.router.add_get("/v1/batches", self.listing)
        app.router.add_get("/v1/batches/{id}", self.retrieve)

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        self.uploads += 1
        file_id = self._store(form["file"].file.read().decode())  # type: ignore[union-attr]
        return web.json_response({"id": file_id, "object": "file", "purpose": "batch"})

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        """A label: as text, or as JSON that satisfies the request's schema."""
        response = super()._completion(step, body)
        if "response_format" in body:
            allowed = body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"]
            message = response["choices"][0]["message"]
            label = message["content"] if message["content"] in allowed else allowed[-1]
            message["content"] = json.dumps({"label": label})
        return response

    def _store(self, content: str) -> str:
        file_id = f"file-{len(self.files) + 1}"
        self.files[file_id] = content
        return file_id

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(text=self.files[request.match_info["id"]])

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        batch_id = f"batch_{len(self.batches) + 1}"
        total = self.files[body["input_file_id"]].count("\n")
        counts = {"total": total, "completed": 0, "failed": 0}
        batch = {"id": batch_id, "object": "batch", "status": "in_progress", "request_counts": counts}
        self.batches[batch_id] = batch | {"input_file_id": body["input_file_id"], "errors": None}
        if self.lose_next_answer:
            self.lose_next_answer = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self.batches[batch_id])

    async def listing(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self.batches.values())})

    async def retrieve(self, request: web.Request) -> web.Response:
        return web.json_response(self.batches[request.match_info["id"]])

    def requests_of(self, batch_id: str) -> list[dict[str, Any]]:
        lines = self.files[self.batches[batch_id]["input_file_id"]].splitlines()
        return [json.loads(line) for line in lines]

    def complete(self, batch_id: str, *, limit: int | None = None, fail: tuple[str, ...] = ()) -> None:
        """Answer a batch; texts with a word in `fail` get an error. After `limit` requests, the batch expires."""
        requests = self.requests_of(batch_id)
        answers, errors = [], []
        for number, request in enumerate(requests):
            row = {"id": f"r-{number}", "custom_id": request["custom_id"], "response": None, "error": None}
            content = request["body"]["messages"][-1]["content"]
            if limit is not None and number >= limit:
                message = "This request could not be executed before the completion window expired."
                errors.append(row | {"error": {"code": "batch_expired", "message": message}})
            elif any(word in content for word in fail):
                body = {"error": {"message": "the server had an error"}}
                errors.append(row | {"response": {"status_code": 500, "request_id": "x", "body": body}})
            else:
                body = self._completion("ok", request["body"])
                answers.append(row | {"response": {"status_code": 200, "request_id": "x", "body": body}})
        batch = self.batches[batch_id]
        batch["status"] = "completed" if limit is None else "expired"
        batch["request_counts"] |= {"completed": len(answers), "failed": len(errors)}
        answers.reverse()  # the API guarantees no order
        for name, rows in (("output_file_id", answers), ("error_file_id", errors)):
            batch[name] = self._store("".join(json.dumps(row) + "\n" for row in rows)) if rows else None

    def refuse(self, batch_id: str, message: str) -> None:
        """Fail a whole batch, before any request is answered."""
        errors = {"object": "list", "data": [{"code": "invalid", "message": message, "line": 1}]}
        self.batches[batch_id] |= {"status": "failed", "errors": errors}
