"""Define a tutor: the fields of its file. Imports neither torch nor vLLM nor Ray."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tutor_service.errors import without_password

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|[A-Za-z_][A-Za-z0-9_]{0,19}")
"""Names of environment variables; keys have other characters, or are longer and in small letters too."""


class ScalingConfig(BaseModel):
    """Say how many replicas of a tutor run, and what each takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_replicas: int = Field(default=1, ge=0, description="Replicas that always run; 0: scale to zero when idle.")
    max_replicas: int = Field(default=1, ge=1, description="Replicas at full load.")
    target_ongoing_requests: float = Field(
        default=32,
        gt=0,
        description="Prompts in flight per replica that autoscaling aims at; at an endpoint at most half of its "
        "concurrency.",
    )
    max_pending: int = Field(
        default=4096,
        ge=1,
        description="Prompts that may queue, beside those at the model; further requests are refused.",
    )
    gateways: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Gateway processes that divide the states among them. One answers thousands of new states per "
        "second, and then takes a core. Typical: 1; up to 8 for many replicas.",
    )
    num_gpus: float = Field(
        default=0, ge=0, description="GPUs per replica; equals tensor_parallel_size for a sharded model."
    )
    num_cpus: float = Field(
        default_factory=lambda fields: 0.0 if fields.get("num_gpus") else 1.0,
        ge=0,
        description="CPUs per replica; default: 1, and 0 beside a GPU, since GPU nodes often announce no CPUs.",
    )
    engine_process: bool | None = Field(
        default=None,
        description="Run vLLM's engine in a process of its own, apart from the replica's; default: on GPUs only.",
    )
    hang_s: float = Field(
        default=60,
        gt=0,
        description="Seconds in one forward pass after which an engine counts as hung and its replica is replaced. "
        "Thinking takes many passes, each with this much time.",
    )
    accelerator_type: str | None = Field(default=None, description="Ray accelerator type, e.g. A100; none: any.")

    @property
    def num_started(self) -> int:
        """Return how many replicas start: one even where a tutor may scale to zero, for its gateway to ask."""
        return max(1, self.min_replicas)


class BudgetConfig(BaseModel):
    """Limit what an endpoint may be asked for in all, from the start of its tutor on; unset fields are no limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_requests: int | None = Field(default=None, ge=0, description="Requests, refused ones included.")
    max_tokens: int | None = Field(default=None, ge=0, description="Tokens of prompts and answers, thoughts included.")
    max_cost: float | None = Field(default=None, ge=0, description="Money, in the unit of the prices.")
    price_in: float = Field(default=0, ge=0, description="Price of a million prompt tokens.")
    price_out: float = Field(default=0, ge=0, description="Price of a million tokens of answers, thoughts included.")
    when_spent: Literal["miss", "fail"] = Field(
        default="miss",
        description="miss: students go on by themselves where nothing is known yet. fail: trials that ask end.",
    )

    @model_validator(mode="after")
    def _cost_needs_prices(self) -> BudgetConfig:
        if self.max_cost is not None and not self.price_in and not self.price_out:
            raise ValueError("max_cost needs price_in and price_out, per million tokens")
        return self


class CapabilitiesConfig(BaseModel):
    """Say what an endpoint takes, where trying it out at the start finds the wrong thing; none: found by trying."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    top_logprobs: int | None = Field(
        default=None, ge=0, description="Likeliest tokens that it shows with log-probabilities; 0: read words."
    )
    temperature: bool | None = Field(default=None, description="Whether it takes a temperature.")
    seed: bool | None = Field(default=None, description="Whether it takes a seed.")
    length_field: Literal["max_tokens", "max_completion_tokens", "none"] | None = Field(
        default=None, description="Field that bounds the tokens of an answer."
    )
    least_tokens: int | None = Field(default=None, ge=1, description="Least number that this field takes.")
    thinking: bool | None = Field(
        default=None, description="Whether the model thinks first, so that thinking_tokens are allowed for."
    )


DATABASE_SCHEMES = ("postgresql://", "postgres://")
"""What the address of a shared store begins with; anything else is a folder."""


class StoreConfig(BaseModel):
    """Say where a tutor's answers are kept; a text in its place is the location."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    location: str | None = Field(
        default=None,
        description="Folder on a disk of the gateway's node, or postgresql://user@host/database, which the gateways of "
        "several clusters share and copy to that disk; default: a folder under LLM_TUTORS_HOME.",
    )
    password_env: str | None = Field(
        default=None,
        description="Environment variable of the gateway's node that holds the database's password; without it and a "
        "file: PGPASSWORD, ~/.pgpass and the like.",
    )
    password_file: Path | None = Field(
        default=None, description="File on the gateway's node that holds it, e.g. a mounted secret; give one of both."
    )
    lease_s: float = Field(
        default=30,
        ge=1,
        description="Seconds after which other gateways evaluate the states of one that is gone. Typical: 10 to 120.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"location": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _is_a_place(self) -> StoreConfig:
        said = self.location
        if said is not None and "://" in said and not said.startswith(DATABASE_SCHEMES):
            raise ValueError(f"location is neither a folder nor an address that begins with {DATABASE_SCHEMES[0]}")
        if said is not None and without_password(said) != said:
            raise ValueError(
                "location holds a password; it would be shown to everybody who sees the tutor. Give it by password_env "
                "or password_file"
            )
        if said is not None and not self.is_shared and not Path(said).expanduser().is_absolute():
            raise ValueError("location is a relative path; the gateway runs elsewhere: give an absolute one")
        if self.password_env and self.password_file:
            raise ValueError("password_env and password_file are both given; give one")
        if not self.is_shared and (self.password_env or self.password_file):
            raise ValueError(f"a password is for a location that begins with {DATABASE_SCHEMES[0]}")
        return self

    @property
    def is_shared(self) -> bool:
        """Return whether the location is a database."""
        return self.location is not None and self.location.startswith(DATABASE_SCHEMES)


ENDPOINT_FIELDS = ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout_s", "budget", "capabilities")
"""Fields that mean something for backend openai alone."""


class TutorConfig(BaseModel):
    """Describe one tutor. What can change an answer of its model is part of the advice store's key.

    ``calibration``, ``advice`` and ``temperature`` are not: students read what is stored by them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    name: str = Field(description="Short name, e.g. llama.", pattern=NAME_PATTERN)
    description: str = Field(default="", description="One line for `tutor tutors`.")
    license: str = Field(default="", description="Licence of the model.")
    backend: Literal["vllm", "openai", "recorded", "reference"] = Field(
        "vllm",
        description="vllm: hosted by us on Serve. openai: any OpenAI-compatible endpoint. recorded: answers from an "
        "exported file and nothing else. reference: scripted, no LLM.",
    )
    model: str = Field(default="", description="Model id or folder; `embedded:NAME` is one that needs no hub.")
    revision: str | None = Field(default=None, description="Model revision, part of the store's key.")
    file: Path | None = Field(
        default=None,
        description="Answers as `tutor store export` writes them (backend recorded); from the tutor file's folder.",
    )
    identity: str | None = Field(
        default=None,
        description="Text that the identity or the rules of an answer must contain (backend recorded), where a file "
        "holds several ways of asking.",
    )
    base_url: str | None = Field(
        default=None, description="OpenAI-compatible endpoint (backend openai), e.g. http://127.0.0.1:11434/v1."
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable of the replica's node that holds the endpoint's key."
    )
    api_key_file: str | None = Field(
        default=None, description="File on the replica's node that holds it, e.g. a mounted secret; give one of both."
    )
    chat_template: str | None = Field(
        default=None, description="Template in catalog/templates or a path, for tokenizers without one."
    )
    template_arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of the chat template, e.g. {enable_thinking: false} for Qwen3; backend openai: sent as "
        "chat_template_kwargs.",
    )
    briefing: str = Field(
        default="none",
        description="Strategy notes behind the rules. none; self: the tutor writes them once per task; else the notes "
        "themselves, or a .txt or .md file that holds them, from the tutor file's folder.",
    )
    briefing_tokens: int = Field(
        default=220, ge=16, description="Most tokens of notes that the tutor writes itself. Typical: 100 to 400."
    )
    hint: bool = Field(default=False, description="Show the task's author's hint, where the task has one.")
    least_legal_mass: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Mean legal mass, the model's probability on the legal actions, below which a warning is shown.",
    )
    decoding: Literal["scored", "reasoned", "text"] = Field(
        default="scored",
        description="scored: probabilities of the labels after one forward pass. reasoned: the same after a thought. "
        "text: free text in <action> tags.",
    )
    label_orders: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Average an answer over so many orders of the labels in the prompt: rotations, one evaluation "
        "each, no more than there are labels. Helps where a tutor prefers the first or last label. Typical: 1 to 4.",
    )
    calibration: Literal["none", "empty", "batch"] = Field(
        default="none",
        description="Divide the model's distribution by its prior over the labels. empty: the one that it shows for an "
        "empty state. batch: its mean over a fixed probe of the task's states.",
    )
    advice: Literal["best", "sampled"] = Field(
        default="best", description="What a student follows: the likeliest action, or a draw from the distribution."
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Below 1 sharpens the calibrated distribution, above 1 flattens it."
    )
    thinking_tokens: int = Field(
        default=512, ge=1, description="Most tokens of a thought (decoding reasoned); a longer one is cut off."
    )
    thoughts: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Thoughts that a reasoned answer averages over; one is a single sample.",
    )
    text_attempts: int = Field(default=3, ge=1, description="Most answers asked for under text decoding.")
    answer_tokens: int = Field(default=64, ge=1, description="Most tokens of one answer under text decoding.")
    engine: dict[str, Any] = Field(
        default_factory=dict,
        description="vLLM engine options, by vLLM's own names; backend openai: more fields of every request.",
    )
    scaling: ScalingConfig = Field(default_factory=ScalingConfig, description="Replicas and what each takes.")
    concurrency: int = Field(default=32, ge=1, description="Backend openai: most requests at a time, per replica.")
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Backend openai: most requests per minute, spread evenly; none: unlimited."
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="Backend openai: most tokens per minute, prompts and answers; none: unlimited."
    )
    timeout_s: float = Field(
        default=120,
        gt=0,
        description="Backend openai: seconds for one answer. Typical: 20 to 600, for thinking models.",
    )
    budget: BudgetConfig = Field(default=BudgetConfig(), description="Backend openai: most that it may be asked.")
    capabilities: CapabilitiesConfig = Field(
        default=CapabilitiesConfig(),
        description="Backend openai: what the endpoint takes, where asking it finds the wrong thing.",
    )

    store: StoreConfig = Field(default=StoreConfig(), description="Where answers are kept; students do not see it.")

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, given: str | None) -> str | None:
        address = (given or "").strip()
        if not address:
            return None
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https"):
            raise ValueError("begins neither with http:// nor with https://")
        if parts.port == 0 or not parts.hostname:
            raise ValueError("names no host")
        if "@" in parts.netloc:
            raise ValueError(
                "holds a user and a password, which would be shown to everybody who sees the tutor. Give them by "
                "api_key_env or api_key_file, as 'Basic ' and then user:password in base64"
            )
        return address

    @model_validator(mode="after")  # of the whole model: an error of the field alone would show the key
    def _key_is_named(self) -> TutorConfig:
        if self.api_key_env and not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "api_key_env is no name of an environment variable. Set a variable to the key on the node that asks, "
                "and give its name"
            )
        return self

    @model_validator(mode="after")
    def _thinks_where_it_may(self) -> TutorConfig:
        if self.decoding == "reasoned" and self.template_arguments.get("enable_thinking") is False:
            raise ValueError("decoding 'reasoned' needs template_arguments without enable_thinking: false")
        if not self.briefing.strip():
            raise ValueError("briefing is empty; say 'none' for no notes")
        return self

    @model_validator(mode="after")
    def _gateways_have_a_share(self) -> TutorConfig:
        if self.backend == "openai" and self.scaling.gateways > self.concurrency:
            raise ValueError(
                f"scaling.gateways = {self.scaling.gateways} share concurrency = {self.concurrency}, and each needs "
                "a request of its own: lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _limits_are_of_endpoints(self) -> TutorConfig:
        given = self.model_dump(exclude_defaults=True)
        limits = [name for name in ENDPOINT_FIELDS if name in given]
        if limits and self.backend != "openai":
            raise ValueError(f"{limits[0]} is a field of backend openai; this tutor's is {self.backend}")
        counted = [name for name in limits if name in ("requests_per_minute", "tokens_per_minute", "budget")]
        if counted and self.scaling.max_replicas > 1:
            raise ValueError(f"{counted[0]} is counted by one replica: set scaling.max_replicas to 1")
        return self

    @model_validator(mode="after")
    def _check_file(self) -> TutorConfig:
        if (self.backend == "recorded") != (self.file is not None):
            raise ValueError("backend 'recorded' and field 'file' need one another")
        return self

    def doubt(self, legal_mass: float) -> str | None:
        """Return what to say of a tutor whose mean legal mass is this; None where it is enough."""
        if not legal_mass < self.least_legal_mass:
            return None
        return (
            f"tutor '{self.name}' puts {legal_mass:.1%} of its probability on the legal actions, below "
            f"least_legal_mass = {self.least_legal_mass:g}: its advice is mostly the shape of noise. Try a briefing, "
            "a hint, another decoding or a larger model (`tutor audition`)."
        )

    @property
    def is_served(self) -> bool:
        """Return whether the tutor runs as a service; the others answer in the student's own process."""
        return self.backend in {"vllm", "openai"}

    @staticmethod
    def is_name(text: str) -> bool:
        """Return whether a text may be the name of a tutor."""
        return re.fullmatch(NAME_PATTERN, text) is not None
