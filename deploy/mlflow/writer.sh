#!/usr/bin/env bash
# Makes the account that students' nodes log with, on a server that runs: it opens experiments and writes its own, reads those of
# others, and makes no accounts. Run it again after a new writer_password.
#
#   deploy/mlflow/writer.sh
#
# From the environment: MLFLOW_SECRETS, the folder of secrets.sh's files (required), MLFLOW_PORT (5000).
set -euo pipefail
: "${MLFLOW_SECRETS:?the folder of secrets.sh\'s files}"
exec python3 - <<'END'
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

secrets = Path(os.environ["MLFLOW_SECRETS"])
users = f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}/api/2.0/mlflow/users"
admin = base64.b64encode(b"admin:" + (secrets / "admin_password").read_bytes()).decode()
account = {"username": "writer", "password": (secrets / "writer_password").read_text()}
headers = {"Authorization": f"Basic {admin}", "Content-Type": "application/json"}


def call(method: str, action: str) -> None:
    request = urllib.request.Request(f"{users}/{action}", json.dumps(account).encode(), headers, method=method)
    urllib.request.urlopen(request, timeout=30).read()


for attempt in range(60):
    try:
        call("POST", "create")
        sys.exit(print("account 'writer' made"))
    except urllib.error.HTTPError as error:
        if b"RESOURCE_ALREADY_EXISTS" not in (reason := error.read()):
            sys.exit(f"writer.sh: the server refuses: {error.code} {reason.decode(errors='replace')[:300]}")
        call("PATCH", "update-password")
        sys.exit(print("account 'writer' has its password"))
    except OSError as error:
        refused = error
        time.sleep(1)
sys.exit(f"writer.sh: no server answers at {users}: {refused}")
END
