"""Telling people: what happened to a model as events, and the automations that send those on, as its spec says.

All of it is Prefect's own: events named `evergreen.<what>`, notification blocks, an automation per model.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from bentos.ledger import runs
from pipeline.spec import Channel, Email, ModelSpec, Slack

if TYPE_CHECKING:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

    from flows.outcome import Outcome

EVENT_KINDS = ("data-rejected", "kept", "trial-failed", "canary-alarmed", "drift", "performance", "stale", "crashed")
"""What people are told of."""
KEPT_STREAK = 3
"""A champion that was kept so often, or again so often, is told of."""
SUBJECT = "{{ event.resource['evergreen.model'] }}: {{ event.event | replace('evergreen.', '') }}"
BODY = "{{ event.payload.reasons | join('\n') if event.payload.reasons else event.payload.why }}"


def notify(what: str, model: str, reasons: Iterable[str], **more: Any) -> None:
    """Emit an event of a model, with reasons that a person can read; automations send it on."""
    from prefect.events import emit_event

    emit_event(
        f"evergreen.{what}",
        resource={"prefect.resource.id": f"evergreen.model.{model}", "evergreen.model": model},
        payload={"reasons": list(reasons), **more},
    )


def notify_outcome(outcome: "Outcome", ledger: Engine) -> None:
    """Emit an event where a run ended as people are told of; the ledger knows of this run already."""
    reasons, more = list(outcome.reasons), {"snapshot": outcome.snapshot, "rows": outcome.rows}
    if outcome.outcome in ("data-rejected", "trial-failed"):
        notify(outcome.outcome, outcome.model, reasons, **more)
    elif outcome.outcome == "kept":
        row = 0
        for run in reversed(runs.newest_runs(ledger, outcome.model, 100)):
            if run.outcome not in ("kept", "unchanged", "crashed"):
                break
            row += run.outcome == "kept"
        if row and row % KEPT_STREAK == 0:
            notify("kept", outcome.model, [f"kept {row} times in a row", *reasons], times=row, **more)


def register(client: "SyncPrefectClient", spec: ModelSpec) -> list[str]:
    """Save a spec's channels as blocks, and the automation that uses them; without channels, remove that.

    What a channel keeps secret comes from the environment: one whose variable is not set stays as it was registered
    before, if it was. Returns sentences on those.
    """
    from prefect.client.schemas.objects import BlockDocument
    from prefect.exceptions import ObjectNotFound

    name = f"evergreen: tell of {spec.name}"
    before = client.read_automations_by_name(name)
    ids, notes = [], []
    for number, channel in enumerate(spec.notify, 1):
        block_name = f"evergreen-{spec.name.replace('_', '-')}-{number}"
        variable = _variable(channel)
        if secret := os.environ.get(variable):
            ids.append(_block(channel, secret, spec.name).save(block_name, overwrite=True))
            continue
        slug = _block(channel, "https://hooks.example.com", spec.name).get_block_type_slug()
        found: BlockDocument | None = None
        with suppress(ObjectNotFound):
            found = client.read_block_document_by_name(block_name, slug)
            ids.append(found.id)
        kept = "what was registered before stays" if found else "nothing is sent there"
        notes.append(f"{spec.name}: {variable} is not set in the environment, so {kept}")
    if ids:
        client.create_automation(_automation(name, spec.name, ids))
    # Not updated: the server refuses what the client of the same version sends then.
    for automation in before:
        client.delete_automation(automation.id)
    return notes


def _automation(name: str, model: str, blocks: list[Any]) -> "AutomationCore":
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    return AutomationCore(
        name=name,
        description=f"Sends on what people are told of {model}, as its spec says. `evergreen deploy` makes it anew.",
        tags=["evergreen", model],
        trigger=EventTrigger(
            match={"evergreen.model": model},
            expect={f"evergreen.{what}" for what in EVENT_KINDS},
            for_each={"prefect.resource.id"},
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block, subject=SUBJECT, body=BODY) for block in blocks],
    )


def _variable(channel: Channel) -> str:
    return channel.key_env if isinstance(channel, Email) else channel.url_env


def _block(channel: Channel, secret: str, model: str) -> "NotificationBlock":
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook
    from prefect.types import SecretDict
    from pydantic import SecretStr

    if isinstance(channel, Slack):
        return SlackWebhook(url=SecretStr(secret))
    if isinstance(channel, Email):
        return SendgridEmail(api_key=SecretStr(secret), sender_email=channel.sender, to_emails=list(channel.to))
    return CustomWebhookNotificationBlock(
        name=model,
        # An address may be a secret, which only what is under `secrets` stays.
        url="{{ url }}",
        secrets=SecretDict({"url": secret}),
        headers=None,
        cookies=None,
        json_data={"model": "{{ name }}", "subject": "{{ subject }}", "text": "{{ body }}"},
    )
