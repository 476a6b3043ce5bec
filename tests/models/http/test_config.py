"""References to servers, valid addresses and the key."""

import pytest

from promptmii.config import Endpoint
from promptmii.errors import ConfigError
from promptmii.models.http.config import HttpConfig, ServerReference, addresses, without_address


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("openai:m", ("m", None)),
        ("openai:a/b@1", ("a/b@1", None)),
        ("openai:m@http://h:1/v1/", ("m", "http://h:1/v1")),
        ("openai:m@https://h", ("m", "https://h")),
        ("openai:m@http://h/v1/chat/completions/", ("m", "http://h/v1")),
        ("openai:m@http://h/d/m/chat/completions?api-version=1", ("m", "http://h/d/m?api-version=1")),
        ("openai:m@http://h/v1/?api-version=1", ("m", "http://h/v1?api-version=1")),
        ("openai:m@HTTP://h/v1", ("m", "http://h/v1")),
        ("openai:m@http://h/v1/responses", ("m", "http://h/v1")),
        ("openai:m@https://h/models", ("m", "https://h/models")),
        ("openai:@cf/meta/llama-3.1-8b", ("@cf/meta/llama-3.1-8b", None)),
        ("openai:", None),
        ("smol", None),
        ("hf:openai:m@http://h", None),
    ],
)
def test_a_reference_names_a_model_and_optionally_its_server(
    reference: str, expected: tuple[str, str | None] | None
) -> None:
    assert ServerReference.parse(reference) == expected


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:8000/v1", "10.0.0.1/v1", "gpu-3.lab:8000", "gpu-3/v1", "a.io/v1", "//h:1/v1"]
)
def test_an_address_without_a_scheme_is_not_part_of_the_model(address: str) -> None:
    with pytest.raises(ConfigError, match="lacks http://"):
        ServerReference.parse(f"openai:m@{address}")


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


@pytest.mark.parametrize("reference", ["openai:m", "openai:m@http://h/v1", "openai:m@HTTPS://h/v1"])
def test_the_address_of_a_reference_can_be_left_out(reference: str) -> None:
    assert without_address(reference) == "openai:m"
    assert without_address("openai:m@httpd") == "openai:m@httpd"
