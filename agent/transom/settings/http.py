"""The options of what listens for HTTP: metrics, readiness and the live page."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from transom.settings import rules, secrets
from transom.settings.quantities import Whole
from transom.settings.streams import Section


class HttpSettings(Section):
    """/metrics for Prometheus, /healthz, /readyz and the live page. Off unless a port is set. Only this host reaches
    it, unless `host` says otherwise; only the live page has a log-in."""

    port: Whole | None = Field(
        default=None, ge=1, le=65535, examples=[9099], description="TCP port. Default: none, nothing listens."
    )
    host: Annotated[str, AfterValidator(rules.own_address)] = Field(
        default="127.0.0.1",
        description='Address of this host to listen at; "0.0.0.0" or "::" for all of its networks.',
    )
    page: bool = Field(
        default=False, description="true: a page for a browser at /live/, which shows every series (docs/live-page.md)."
    )
    token: Annotated[SecretStr, AfterValidator(secrets.token)] | None = Field(
        default=None,
        repr=False,
        examples=["…"],
        description="What whoever opens the page must know. Needed where host is not this host alone. "
        "Better in token_file, or in the variable TRANSOM_HTTP__TOKEN.",
    )
    token_file: Path | None = Field(
        default=None,
        examples=["${CREDENTIALS_DIRECTORY}/page-token"],
        description="File that holds the token and nothing else; make one with: openssl rand -hex 16",
    )

    @model_validator(mode="after")
    def _page_is_guarded(self) -> Self:
        if self.page:
            secrets.page(self.port, self.host, guarded=self.token is not None or self.token_file is not None)
        return self
