"""Write what fields KubeRay's resources have, from the operator's own definitions, for the tests of its manifests.

Run ``.venv/bin/python -m tools.kuberay_schema 1.7.0 FILE...`` with a KubeRay release's files
``ray-operator/config/crd/bases/ray.io_ray{clusters,jobs,services}.yaml``. Writes ``tests/data/kuberay-1.7.0.json``, a
closed JSON schema by kind. Descriptions are left out, and so are pods and volumes, which are Kubernetes' own and held
to its schema.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parents[1] / "tests" / "data"
_KEPT = ("type", "enum", "required", "pattern", "minimum", "maximum")
_OF_KUBERNETES = {"containers", "volumes", "template", "jobTemplate", "submitterPodTemplate", "metadata", "status"}


def main() -> None:
    """Read the definitions and write the schema."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="release of KubeRay that the files are of")
    parser.add_argument("files", type=Path, nargs="+", help="its custom resource definitions")
    args = parser.parse_args()
    kinds = {}
    for file in args.files:
        definition = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
        (served,) = (version for version in definition["versions"] if version["name"] == "v1")
        kinds[definition["names"]["kind"]] = closed(served["schema"]["openAPIV3Schema"])
    path = DATA / f"kuberay-{args.version}.json"
    source = f"field names and types of KubeRay {args.version}'s custom resource definitions (Apache-2.0)"
    path.write_text(json.dumps({"source": source, "kinds": kinds}, separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{path}: {', '.join(kinds)}, {path.stat().st_size} bytes")


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that takes no field beside those that it names."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if "properties" in schema:
        found["properties"] = {
            name: {} if name in _OF_KUBERNETES else closed(value) for name, value in schema["properties"].items()
        }
        found["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        found["items"] = closed(schema["items"])
    return found


if __name__ == "__main__":
    main()
