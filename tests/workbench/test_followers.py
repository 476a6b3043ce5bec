"""Which model answers, and what a file may not decide."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.models.faulty_server import FaultyServer, serving

from promptmii import Instruction, workbench
from promptmii.config import Endpoint
from promptmii.errors import ConfigError


class TestServersNamedInFiles:
    """Texts go to a server that a file names only after a yes, and the key never does."""

    ROWS = ("I want my money back", "my parcel is late")

    @pytest.fixture
    def servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultyServer, FaultyServer]]:
        """The file's and the user's."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
        with serving(FaultyServer(default="say:a")) as theirs, serving(FaultyServer(default="say:a")) as mine:
            yield theirs, mine

    def label(self, theirs: FaultyServer, follower: str | None = None, **options: Any) -> None:
        made = Instruction(
            text="Say.", labels=("a", "b"), method="mii", mode="generate", follower=f"openai:m@{theirs.url}"
        )
        endpoint = Endpoint(base_url=options.pop("base_url", None))
        with closing(workbench.Followers(follower, endpoint, **options)) as followers:
            assert [p.label for p in workbench.predict(made, list(self.ROWS), followers).predictions] == ["a", "a"]

    def test_without_a_yes_nothing_is_sent(self, servers) -> None:
        theirs, _ = servers
        with pytest.raises(ConfigError, match=f"names the server {theirs.url}.*--follower openai:m@{theirs.url}"):
            self.label(theirs)
        assert theirs.requests == 0

    def test_a_yes_sends_texts_but_not_the_key(self, servers) -> None:
        theirs, _ = servers
        asked: list[str] = []
        self.label(theirs, confirm=lambda question: not asked.append(question))
        assert theirs.url in asked[0]
        assert len(theirs.bodies) == 2
        assert "sk-mine" not in theirs.keys

    def test_the_users_address_replaces_the_files(self, servers) -> None:
        theirs, mine = servers
        self.label(theirs, base_url=mine.url)
        assert (theirs.requests, len(mine.bodies), mine.keys) == (0, 2, {"sk-mine"})

    @pytest.mark.parametrize("how", ["option", "base_url", "environment"])
    def test_the_same_address_named_by_the_user_is_a_yes(
        self, servers, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs, _ = servers
        if how == "environment":
            monkeypatch.setenv("OPENAI_BASE_URL", f"{theirs.url}/")
        self.label(
            theirs,
            f"openai:m@{theirs.url}" if how == "option" else None,
            base_url=theirs.url if how == "base_url" else None,
        )
        assert (len(theirs.bodies), theirs.keys) == (2, {"sk-mine"})
