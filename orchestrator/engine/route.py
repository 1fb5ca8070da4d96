"""What became of finding a way for a command."""

from __future__ import annotations

import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.cancel import Fate
from orchestrator.protocol.command import Result, error_headers, refusal
from orchestrator.protocol.error import BY_CODE, Internal, WireError


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """To this node, for this domain. fence: the owner record's epoch, 0: unknown. again: a copy was sent there before."""

    node: str
    uuid: str
    fence: int = 0
    again: bool = False


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """The command has ended before: `result` is its outcome. node: that ended it, `_` for a coordinator; uuid: `_` if unknown."""

    result: bytes
    node: str
    uuid: str


class Nowhere(msgspec.Struct, frozen=True):
    """The domain provably exists nowhere, and that is what the command is for."""


class Judged(msgspec.Struct, frozen=True):
    """A cancel whose target is cancelled, by it or before it, and never came to a node."""

    fate: Fate
    changed: bool


Way = Route | Repeat | Nowhere | Judged


class _Verdict(msgspec.Struct, frozen=True):
    """The part of a result that decides how it is answered."""

    class Error(msgspec.Struct, frozen=True):
        """The part of its error."""

        code: str
        outcome: str = "unknown"

    id: str
    ok: bool
    error: Error | None = None


def renamed(result: bytes, id: str) -> bytes:
    """Return a result as the answer to a message that bore `id`, which belongs to another command."""
    return codec.encode(msgspec.structs.replace(codec.decode(result, Result), id=id, final=False))


class Landed(msgspec.Struct, frozen=True, kw_only=True):
    """How far a command came: `result` as JSON if it has ended, else what ended the waiting (None: nobody waits)."""

    result: bytes | None = None
    gave_up: WireError | None = None

    @property
    def made_nothing(self) -> bool:
        """Whether the command has ended and provably had no effect."""
        if self.result is None:
            return False
        verdict = codec.decode(self.result, _Verdict)
        return not verdict.ok and verdict.error is not None and verdict.error.outcome == "none"

    def answer(self, id: str) -> tuple[bytes, dict[str, str]]:
        """Return body and headers for who asked on `api` under `id`; what ended under another id is no end of that command."""
        if self.result is None:
            return refusal(self.gave_up or Internal("nobody waited for this command's end"), final=False)
        verdict = codec.decode(self.result, _Verdict)
        body = self.result if verdict.id == id else renamed(self.result, id)
        if verdict.ok or verdict.error is None:
            return body, {}
        return body, error_headers(verdict.error.code, BY_CODE.get(verdict.error.code, Internal).number)
