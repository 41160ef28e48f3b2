"""Bookmarks that Aim's web interface opens with: curves, figures and final numbers by process.

An explorer's state and a name for it are posted to the server's own interface. One of the same name
stays as it is. Texts have no bookmarks in Aim; its page of texts and each run's show them.
"""

import json
from http.client import HTTPConnection
from typing import Any, NamedTuple

from platform_aim.secret import HOST, Secret

PROCESS = "run.params.process.name"

ALL_STEPS = 10**9
"""A last step; without one the explorer of images shows the last of each run."""


class Bookmark(NamedTuple):
    """What a bookmark is called, and what it opens."""

    name: str
    description: str
    explorer: str
    state: dict[str, Any]


def metric(name: str, **context: str) -> dict[str, Any]:
    """The choice of one metric; without a context, of all of that name."""
    value = {"option_name": name, "context": context or None}
    return {"type": "metrics", "label": name, "group": name, "value": value}


def option(name: str) -> dict[str, Any]:
    """The choice of a hyper-parameter."""
    return {"type": "params", "group": "params", "label": name}


def curves(
    *, color: str, chart: list[str], chosen: list[dict[str, Any]], query: str = ""
) -> dict[str, Any]:
    """State of the explorers of metrics and of hyper-parameters."""
    grouping = {"color": [color], "chart": chart}
    return {"grouping": grouping, "select": {"options": chosen, "query": query}}


def images(name: str) -> dict[str, Any]:
    """State of the explorer of images: those of one name at all steps, a row for each run."""
    chosen = {"label": name, "group": name, "value": {"option_name": name, "context": None}}
    shown = {"recordSlice": [0, ALL_STEPS], "additionalProperties": {"mediaItemSize": 40}}
    return {
        "grouping": {"row": [PROCESS, "run.props.name"]},
        "select": {"options": [chosen], "query": ""},
        "images": shown,
    }


BOOKMARKS = (
    Bookmark(
        "Loss and bound by process",
        "training loss, and the bound at each look",
        "metrics",
        curves(
            color=PROCESS,
            chart=["name"],
            chosen=[
                metric("loss", subset="train"),
                metric("bits_per_character", subset="validation"),
            ],
        ),
    ),
    Bookmark(
        "Bound by noise level",
        "one curve for each tenth of the noise, one chart for each process",
        "metrics",
        curves(
            color="context.level",
            chart=[PROCESS],
            chosen=[metric("level_nats_per_token")],
            # The run's end is of more sequences, and no point of these curves.
            query='metric.context.subset != "final"',
        ),
    ),
    Bookmark(
        "Final bound",
        "of every run, with its process and sampler",
        "params",
        curves(
            color=PROCESS,
            chart=[],
            chosen=[
                option("process.name"),
                option("sampler.name"),
                metric("bits_per_character", subset="final"),
            ],
        ),
    ),
    Bookmark("Trajectories", "how a sample came about", "images", images("trajectory")),
    Bookmark("Plots by noise level", "with standard errors", "images", images("levels")),
)


def bookmark(secret: Secret) -> None:
    """Adds the bookmarks that the repository of a running server lacks."""
    known = {dashboard["name"] for dashboard in _ask(secret, "GET", "/api/dashboards/")}
    for mark in BOOKMARKS:
        if mark.name not in known:
            app = {"type": mark.explorer, "state": mark.state}
            made = _ask(secret, "POST", "/api/apps/", app)
            named = {"name": mark.name, "description": mark.description, "app_id": made["id"]}
            _ask(secret, "POST", "/api/dashboards/", named)


def _ask(secret: Secret, method: str, path: str, body: object = None) -> Any:
    connection = HTTPConnection(HOST, secret.port, timeout=30)
    try:
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", **secret.cookie}
        connection.request(method, path, content, headers)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
