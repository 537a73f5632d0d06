"""The life of a server as a table: the states it can be in, what happens to it, and the state that follows.

The server is in one state at a time, and it is this state that its heartbeat, `evergreen status` and `/readyz` report.
docs/internals/server-states.md has the diagram.
"""

from enum import Enum, StrEnum

from pipeline.errors import ServerError


class ServerState(StrEnum):
    """What a server does; the value is what its heartbeat says."""

    STARTING = "starting"
    """The first release is being started; nothing answers yet."""
    SERVING = "serving"
    """One release alone answers, and it is the champion."""
    CHANGING = "changing"
    """Another release is being started, or its predecessor still answers clients that keep their connection."""
    CANARY = "canary"
    """The champion answers, and a canary answers a share of the requests."""
    SHADOW = "shadow"
    """The champion answers, and a canary is asked copies whose answers nobody sees."""
    DEGRADED = "degraded"
    """A release answers, but another one that the ledger asks for cannot be served."""
    DRAINING = "draining"
    """The server was told to end: it answers what is in flight, and accepts nothing new."""


class LifecycleEvent(Enum):
    """What happens to a server; the value is its label in the diagram."""

    READY = "ready"
    """All workers of the release that was being started are ready, and the others were told to drain."""
    ALONE = "alone"
    """The last worker of any other release has gone."""
    CHAMPION_CHANGED = "champion changed"
    """The ledger names another champion, and its package was found."""
    REFUSED = "refused"
    """A release that the ledger asks for cannot be served."""
    RECOVERED = "recovered"
    """The ledger no longer asks for the release that cannot be served."""
    CANARY_STARTED = "canary started"
    """The ledger names a canary, and its worker was started."""
    SHADOW_STARTED = "shadow started"
    """The same for a canary whose answers nobody sees."""
    CANARY_ENDED = "canary ended"
    """The ledger no longer names this canary: it was promoted, stopped or overtaken."""
    ALARM = "alarm"
    """The canary does worse than the champion, or its worker died."""
    STOPPED = "stopped"
    """The process was told to end."""


_S, _E = ServerState, LifecycleEvent
TRANSITIONS: dict[tuple[ServerState, LifecycleEvent], ServerState] = {
    (_S.STARTING, _E.READY): _S.SERVING,
    (_S.STARTING, _E.STOPPED): _S.DRAINING,
    (_S.SERVING, _E.CHAMPION_CHANGED): _S.CHANGING,
    (_S.SERVING, _E.REFUSED): _S.DEGRADED,
    (_S.SERVING, _E.CANARY_STARTED): _S.CANARY,
    (_S.SERVING, _E.SHADOW_STARTED): _S.SHADOW,
    (_S.SERVING, _E.STOPPED): _S.DRAINING,
    # While the predecessor drains, the ledger may name the next champion already.
    (_S.CHANGING, _E.CHAMPION_CHANGED): _S.CHANGING,
    (_S.CHANGING, _E.READY): _S.CHANGING,
    (_S.CHANGING, _E.ALONE): _S.SERVING,
    (_S.CHANGING, _E.REFUSED): _S.DEGRADED,
    (_S.CHANGING, _E.STOPPED): _S.DRAINING,
    # The canary's worker drains; if it was promoted, it is started as champion next.
    (_S.CANARY, _E.CANARY_ENDED): _S.CHANGING,
    (_S.CANARY, _E.ALARM): _S.DEGRADED,
    (_S.CANARY, _E.STOPPED): _S.DRAINING,
    (_S.SHADOW, _E.CANARY_ENDED): _S.CHANGING,
    (_S.SHADOW, _E.ALARM): _S.DEGRADED,
    (_S.SHADOW, _E.STOPPED): _S.DRAINING,
    # Workers of the refused release, or of an earlier change, may still drain.
    (_S.DEGRADED, _E.RECOVERED): _S.CHANGING,
    (_S.DEGRADED, _E.STOPPED): _S.DRAINING,
}
"""The state that follows, by the state before and what happens. Nothing else may happen in a state."""


def next_state(state: ServerState, event: LifecycleEvent) -> ServerState:
    """Return the state that follows; ServerError when the event cannot happen in this state, which is a bug."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        possible = ", ".join(known.value for before, known in TRANSITIONS if before is state) or "nothing"
        raise ServerError(
            f"a server that is {state.value} cannot have the event {event.value!r}; possible events: {possible}. "
            "This is a bug in evergreen: report it with the server's log.",
            code="server.impossible_event",
        ) from None
