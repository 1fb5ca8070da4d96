"""Laws of who we are: tokens, keys and signed credentials, and what happens when these run out."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import nkeys  # type: ignore[import-untyped]  # ships no types
import pytest

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.nats import NatsBus, connect_or_explain
from orchestrator.bus.port import Unavailable

pytestmark = pytest.mark.anyio

UNLIMITED = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)


class Key:
    """A key pair of NATS."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def token(self, of: Key, kind: str, expires: float = 0, **claims: Any) -> str:
        """Return a JWT in which this key says what `of` may do."""
        body = {"jti": of.public, "iat": 0, "iss": self.public, "sub": of.public, "nats": {"type": kind, "version": 2, **claims}}
        if expires:
            body["exp"] = int(expires)
        signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{signed}.{encoded(self._pair.sign(signed.encode()))}"


def encoded(raw: bytes) -> str:
    """Return bytes as they stand in a JWT."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def configured(store: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Embedded:
    """Return a broker whose configuration is changed in what `Embedded` has no word for."""
    broker = Embedded(store)
    original = broker._configuration
    broker._configuration = lambda: change(original())  # type: ignore[method-assign]
    return broker


async def test_a_token_opens(tmp_path: Path) -> None:
    """Given as such, or in the URL."""
    broker = configured(tmp_path, lambda configuration: {**configuration, "authorization": {"token": "t0k"}})
    async with (
        broker,
        NatsBus(broker.url, name="test", token="t0k") as bus,  # noqa: S106  # the test's own
        NatsBus(broker.url.replace("//", "//t0k@"), name="test") as other,
    ):
        await connect_or_explain(bus)
        await connect_or_explain(other)


async def test_a_key_opens_and_a_broken_one_is_told(tmp_path: Path) -> None:
    """The seed never leaves us; the broker knows the public key."""
    user = Key(nkeys.PREFIX_BYTE_USER)
    good, bad = tmp_path / "good.nk", tmp_path / "bad.nk"
    good.write_bytes(user.seed)
    bad.write_text("SUABC")
    broker = configured(tmp_path, lambda configuration: {**configuration, "authorization": {"users": [{"nkey": user.public}]}})
    async with broker, NatsBus(broker.url, name="test", nkey_seed=good) as bus, NatsBus(broker.url, name="test", nkey_seed=bad) as none:
        await connect_or_explain(bus)
        with pytest.raises(Unavailable, match="invalid seed"):
            await connect_or_explain(none, within_s=0.3)


async def test_credentials_that_ran_out_are_read_anew(tmp_path: Path) -> None:
    """Whoever renews the file need not restart anything."""
    operator, account, user = (Key(prefix) for prefix in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER))
    path = tmp_path / "user.creds"

    def renew(seconds: float) -> None:
        token = account.token(user, "user", time.time() + seconds, subs=-1, data=-1, payload=-1)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )

    def trusting(configuration: dict[str, Any]) -> dict[str, Any]:
        own = {key: value for key, value in configuration.items() if key != "jetstream"}
        accounts = {account.public: operator.token(account, "account", limits={**UNLIMITED, "wildcards": True})}
        return {**own, "operator": operator.token(operator, "operator"), "resolver": "MEMORY", "resolver_preload": accounts}

    broker = configured(tmp_path, trusting)
    renew(2)
    async with broker, NatsBus(broker.url, name="test", credentials=path) as bus:
        await connect_or_explain(bus)
        with anyio.fail_after(10):
            await bus.link.down(1)
        with pytest.raises(Unavailable, match="refuses these credentials"):
            await connect_or_explain(bus, within_s=0.3)
        renew(3600)
        await connect_or_explain(bus, within_s=10)
