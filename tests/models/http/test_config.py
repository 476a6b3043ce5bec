"""Valid addresses and the key."""

import pytest

from promptmii.config import Endpoint
from promptmii.errors import ConfigError
from promptmii.models.http.config import HttpConfig, addresses
from promptmii.models.references import ServerReference


def test_quotes_around_an_address_are_dropped() -> None:
    assert addresses(" 'http://h/v1' ") == ("http://h/v1",)


@pytest.mark.parametrize("empty", ["", ",", " "])
def test_a_list_without_an_address_is_refused(empty: str) -> None:
    with pytest.raises(ConfigError, match=f"{empty!r} is not the address of a server"):
        Endpoint.of(base_url=empty)


@pytest.mark.parametrize(
    "address",
    [
        *("http://me:s3cret@h/v1", "http://s3cret@h/v1", "http://me:s3cret@h:x/v1", "http://h/v1#s3cret"),
        *(f"http://h/v1?{name}=s3cret" for name in ("api_key", "code", "pwd", "auth", "x-goog-credential", "sig")),
    ],
)
def test_a_password_in_an_address_is_refused_and_never_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    for parse in (
        lambda: ServerReference.parse(f"openai:m@{address}"),
        lambda: addresses(None),
        lambda: Endpoint.of(base_url=f"http://fine/v1,{address}"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse()
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://h:abc/v1", "http://[::1/v1", "ftp://h", "h:8000", "http://", "http://h:99999", "http://h/v 1"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a server"):
        addresses(address)


def test_a_password_in_an_address_without_a_scheme_is_never_shown() -> None:
    with pytest.raises(ConfigError, match="'h:80/v1' is not the address"):
        addresses("me:s3cret@h:80/v1")


def test_the_key_is_stripped_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env\n")
    assert HttpConfig().key == "sk-env"
    assert HttpConfig(api_key="").key == ""
    assert HttpConfig(api_key=" 'sk-own' ").key == "sk-own"
    assert HttpConfig(api_key="Bearer sk-own").key == HttpConfig(api_key="bearer  sk-own").key == "sk-own"
    assert "sk-own" not in repr(HttpConfig(api_key="sk-own"))


def test_the_hosted_api_is_not_asked_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="Set OPENAI_API_KEY, or give the address of your server with --base-url"):
        _ = HttpConfig().urls
    assert HttpConfig(api_key="sk-own").urls == ("https://api.openai.com/v1",)
    assert HttpConfig(base_url="http://localhost:8000/v1").urls == ("http://localhost:8000/v1",)
