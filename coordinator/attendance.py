"""Who took part in a round, who was missing, refused, or is proven at fault: the words of every round's outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from smpc.protocol.pod_messages import Envelope, Refusal, Reply
from smpc.protocol.records import GroupInfo
from smpc.types import GroupId, HostKey, IdentityKey, XOnlyKey

ReplyT = TypeVar("ReplyT", bound=Reply)
ReplyT_co = TypeVar("ReplyT_co", bound=Reply, covariant=True)


@dataclass(frozen=True, slots=True)
class Seat:
    """One member's place in a group: whom to call, and which key signs the answer."""

    group: GroupId
    position: int
    """0-based, in the group's order."""
    identity: IdentityKey
    host_key: HostKey

    @property
    def sender(self) -> XOnlyKey:
        """The x-only host key that this member's answers are signed with, 32 bytes."""
        return XOnlyKey(self.host_key[1:])


def seat_members(info: GroupInfo) -> tuple[Seat, ...]:
    """Return the seats of a group whose key is recorded, by position."""
    pairs = zip(info.members, info.host_keys, strict=True)
    return tuple(Seat(info.group, position, *pair) for position, pair in enumerate(pairs))


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """An envelope with the method it was signed for: anyone can verify who said it."""

    method: str
    """As `Sign/reply`."""
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Answered(Generic[ReplyT_co]):
    """A member's signed answer."""

    seat: Seat
    reply: ReplyT_co
    signed: SignedMessage


@dataclass(frozen=True, slots=True)
class Declined:
    """A member's refusal: a normal answer that names the rule."""

    seat: Seat
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Lost:
    """No usable answer: unreachable, too late, or nothing that the member signed. Proves nothing against it."""

    seat: Seat
    code: str
    """A stable name, as `UNAVAILABLE`, `TIMED_OUT` or `BAD_SIGNATURE`."""
    message: str


Heard: TypeAlias = Answered[ReplyT] | Declined | Lost
"""What came of one question; never an exception, so that one pod never fails a whole fan-out."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """A member whose own signed messages prove a fault."""

    seat: Seat
    code: str
    transcript: tuple[SignedMessage, ...]
    """The relay's and the member's messages, as signed, in their order."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a round is, for whoever watches."""

    group: GroupId
    activity: str
    """As `signing`."""
    verb: str
    """What `done` members have done, as `committed`."""
    done: int
    needed: int
    size: int
    missing: tuple[IdentityKey, ...]
    """Members asked who have not answered."""

    def describe(self, name: Callable[[IdentityKey], str] = lambda identity: identity.hex()[:8]) -> str:
        """Say it in a line: `signing validator: 3/4 committed (3 needed), missing pod-07`."""
        missing = ", missing " + ", ".join(map(name, self.missing)) if self.missing else ""
        count = f"{self.done}/{self.size} {self.verb} ({self.needed} needed)"
        return f"{self.activity} {self.group.role}: {count}{missing}"


Watcher: TypeAlias = Callable[[Progress], None]
"""Is told of progress; must return at once."""


def ignore_progress(_progress: Progress) -> None:
    """Watch nothing."""
