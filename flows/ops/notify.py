"""Notify people: emit events about a model, and register the automations that send them to the spec's channels.

All of it is Prefect's own: events named `evergreen.<kind>`, notification blocks, and one automation per model.
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
"""The events that people are notified of."""
KEPT_STREAK = 3
"""People are notified when a champion was kept 3 times in a row, and after each 3 more."""
SUBJECT = "{{ event.resource['evergreen.model'] }}: {{ event.event | replace('evergreen.', '') }}"
BODY = "{{ event.payload.reasons | join('\n') if event.payload.reasons else event.payload.why }}"


def notify(kind: str, model: str, reasons: Iterable[str], **more: Any) -> None:
    """Emit an event about a model, with reasons for people to read; its automation sends it to the channels."""
    from prefect.events import emit_event

    emit_event(
        f"evergreen.{kind}",
        resource={"prefect.resource.id": f"evergreen.model.{model}", "evergreen.model": model},
        payload={"reasons": list(reasons), **more},
    )


def notify_outcome(outcome: "Outcome", ledger: Engine) -> None:
    """Emit an event if people are notified of this outcome. Call it after the ledger has recorded the run."""
    reasons, more = list(outcome.reasons), {"snapshot": outcome.snapshot, "rows": outcome.rows}
    if outcome.outcome in ("data-rejected", "trial-failed"):
        notify(outcome.outcome, outcome.model, reasons, **more)
    elif outcome.outcome == "kept":
        times = 0
        for run in reversed(runs.newest_runs(ledger, outcome.model, 100)):
            if run.outcome not in ("kept", "unchanged", "crashed"):
                break
            times += run.outcome == "kept"
        if times and times % KEPT_STREAK == 0:
            notify("kept", outcome.model, [f"kept {times} times in a row", *reasons], times=times, **more)


def register(client: "SyncPrefectClient", spec: ModelSpec) -> list[str]:
    """Save a spec's channels as blocks, with the automation that uses them; without channels, remove the automation.

    A channel's secret comes from an environment variable. If that is not set, the channel stays as it was registered
    before, if it was. Returns a sentence for each such channel.
    """
    from prefect.client.schemas.objects import BlockDocument
    from prefect.exceptions import ObjectNotFound

    name = f"evergreen: notify of {spec.name}"
    before = client.read_automations_by_name(name)
    ids, notes = [], []
    for number, channel in enumerate(spec.notify, 1):
        block_name = f"evergreen-{spec.name.replace('_', '-')}-{number}"
        variable = _variable(channel)
        if secret := os.environ.get(variable):
            ids.append(_block(channel, secret, spec.name).save(block_name, overwrite=True))
            continue
        slug = _block(channel, "https://hooks.example.com", spec.name).get_block_type_slug()
        block: BlockDocument | None = None
        with suppress(ObjectNotFound):
            block = client.read_block_document_by_name(block_name, slug)
            ids.append(block.id)
        effect = "the channel stays as it was registered before" if block else "nothing is sent to this channel"
        notes.append(f"{spec.name}: {variable} is not set in the environment, so {effect}")
    if ids:
        client.create_automation(_automation(name, spec.name, ids))
    # Replaced instead of updated: the server rejects the update that the client of the same version sends.
    for automation in before:
        client.delete_automation(automation.id)
    return notes


def _automation(name: str, model: str, blocks: list[Any]) -> "AutomationCore":
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    return AutomationCore(
        name=name,
        description=f"Sends events of {model} to the channels of its spec. `evergreen deploy` recreates it.",
        tags=["evergreen", model],
        trigger=EventTrigger(
            match={"evergreen.model": model},
            expect={f"evergreen.{kind}" for kind in EVENT_KINDS},
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
        # An address may be a secret, and Prefect hides only what is under `secrets`.
        url="{{ url }}",
        secrets=SecretDict({"url": secret}),
        headers=None,
        cookies=None,
        json_data={"model": "{{ name }}", "subject": "{{ subject }}", "text": "{{ body }}"},
    )
