"""Which model answers, and the trust in servers that a file names."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.models.faulty_server import FaultyServer, serving

from promptmii import Instruction, workbench
from promptmii.config import Endpoint
from promptmii.errors import ConfigError


class TestServersNamedInFiles:
    """Texts go to a server that a file names only if the user confirms it. The key never does."""

    ROWS = ("I want my money back", "my parcel is late")

    @pytest.fixture
    def servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultyServer, FaultyServer]]:
        """The server that the file names, and the user's server."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
        with (
            serving(FaultyServer(default="say:a")) as file_server,
            serving(FaultyServer(default="say:a")) as user_server,
        ):
            yield file_server, user_server

    def label(self, file_server: FaultyServer, follower: str | None = None, **options: Any) -> None:
        made = Instruction(
            text="Say.", labels=("a", "b"), method="mii", mode="generate", follower=f"openai:m@{file_server.url}"
        )
        endpoint = Endpoint(base_url=options.pop("base_url", None))
        with closing(workbench.Followers(follower, endpoint, **options)) as followers:
            assert [p.label for p in workbench.predict(made, list(self.ROWS), followers).predictions] == ["a", "a"]

    def test_nothing_is_sent_without_confirmation(self, servers) -> None:
        file_server, _ = servers
        with pytest.raises(
            ConfigError, match=f"server {file_server.url};.*and your API key: --follower openai:m@{file_server.url}"
        ):
            self.label(file_server)
        assert file_server.requests == 0

    def test_confirmation_sends_texts_but_not_the_key(self, servers) -> None:
        file_server, _ = servers
        questions: list[str] = []
        self.label(file_server, confirm=lambda question: not questions.append(question))
        assert file_server.url in questions[0]
        assert len(file_server.bodies) == 2
        assert "sk-mine" not in file_server.keys

    def test_the_server_of_the_user_replaces_that_of_the_file(self, servers) -> None:
        file_server, user_server = servers
        self.label(file_server, base_url=user_server.url)
        assert (file_server.requests, len(user_server.bodies), user_server.keys) == (0, 2, {"sk-mine"})

    @pytest.mark.parametrize("how", ["option", "base_url", "environment"])
    def test_naming_the_server_of_the_file_confirms_it(
        self, servers, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file_server, _ = servers
        if how == "environment":
            monkeypatch.setenv("OPENAI_BASE_URL", f"{file_server.url}/")
        self.label(
            file_server,
            f"openai:m@{file_server.url}" if how == "option" else None,
            base_url=file_server.url if how == "base_url" else None,
        )
        assert (len(file_server.bodies), file_server.keys) == (2, {"sk-mine"})
