"""`tutor serve deploy/serve/smollm2.yaml`, as it is but for the port, with the real LLM."""

from __future__ import annotations

from pathlib import Path

import httpx
import yaml

from tests.integration.endpoint_fake import ROOT
from tests.integration.test_serve_file import serving
from tests.integration.test_service_serve import free_port
from tutor_service.paths import home

QUESTION = {"rules": "You are asked whether a number is even.", "state": "Four.", "actions": ["yes", "no"]}


def test_the_committed_file_serves_the_embedded_tutor_until_it_is_interrupted(
    model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").symlink_to(home() / "models")
    content = yaml.safe_load((ROOT / "deploy" / "serve" / "smollm2.yaml").read_text())
    content["http_options"]["port"] = free_port()
    path = tmp_path / "smollm2.yaml"
    path.write_text(yaml.safe_dump(content))
    url = f"http://127.0.0.1:{content['http_options']['port']}/smollm2/advise"
    with serving(path, tmp_path, LLM_TUTORS_TOKEN="sesame") as (process, said):
        assert process.poll() is None and f"tutor 'smollm2' answers at {url}\n" in said, said
        answer = httpx.post(url, json={"requests": [QUESTION]}, headers={"Authorization": "Bearer sesame"}, timeout=60)
        advice = answer.json()["advice"][0]
        assert advice["source"] == "model" and abs(sum(advice["probabilities"]) - 1) < 1e-6
        assert httpx.post(url, json={"requests": [QUESTION]}, timeout=60).status_code == 401
    assert process.returncode == 0
    assert (tmp_path / "advice" / "smollm2").is_dir()
