#!/usr/bin/env bash
# The MLflow tracking server over PostgreSQL: who may call it is said here, and no secret is in its arguments.
#
#   deploy/mlflow/server.sh        in the foreground; ends with its terminal or by SIGTERM
#
# From the environment, with defaults for one machine:
#   MLFLOW_SECRETS           folder of secrets.sh's files: postgres_password, admin_password, flask_secret (required)
#   MLFLOW_STATE             folder of artifacts and generated settings (required)
#   POSTGRES_HOST, POSTGRES_PORT                 database (127.0.0.1, 5433)
#   MLFLOW_HOST, MLFLOW_PORT                     address to listen on (127.0.0.1, 5000)
#   MLFLOW_SERVER_ALLOWED_HOSTS                  Host headers that are answered (localhost and 127.0.0.1 at that port)
#   MLFLOW_SERVER_CORS_ALLOWED_ORIGINS           web pages that may call it (none beyond localhost)
#   MLFLOW_ARTIFACTS_DESTINATION                 where artifacts lie, e.g. s3://bucket/path ($MLFLOW_STATE/artifacts)
#   MLFLOW_WORKERS                               server processes (2)
set -euo pipefail
umask 077
secrets=${MLFLOW_SECRETS:?the folder of secrets.sh\'s files}
state=${MLFLOW_STATE:?a folder for artifacts and settings}
database_host=${POSTGRES_HOST:-127.0.0.1}
database_port=${POSTGRES_PORT:-5433}
export MLFLOW_HOST=${MLFLOW_HOST:-127.0.0.1}
export MLFLOW_PORT=${MLFLOW_PORT:-5000}
export MLFLOW_WORKERS=${MLFLOW_WORKERS:-2}
export MLFLOW_SERVER_ALLOWED_HOSTS=${MLFLOW_SERVER_ALLOWED_HOSTS:-localhost:$MLFLOW_PORT,127.0.0.1:$MLFLOW_PORT}
export MLFLOW_SERVE_ARTIFACTS=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-$state/artifacts}

for name in postgres_password admin_password flask_secret; do
    [[ -s $secrets/$name ]] || { echo "server.sh: $secrets/$name is missing; make it with secrets.sh" >&2; exit 1; }
done
mkdir -p "$state"

# libpq takes a password file only when nobody else can read it, which a mounted secret cannot promise: hence a copy.
export PGPASSFILE=$state/pgpass
printf '%s:%s:*:mlflow:%s\n' "$database_host" "$database_port" "$(<"$secrets/postgres_password")" >"$PGPASSFILE"
export MLFLOW_BACKEND_STORE_URI=postgresql://mlflow@$database_host:$database_port/mlflow

export MLFLOW_AUTH_CONFIG_PATH=$state/basic_auth.ini
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

sed -e "s/@HOST:PORT/@$database_host:$database_port/" "$here/basic_auth.ini" >"$MLFLOW_AUTH_CONFIG_PATH"
MLFLOW_AUTH_ADMIN_PASSWORD=$(<"$secrets/admin_password")
MLFLOW_FLASK_SERVER_SECRET_KEY=$(<"$secrets/flask_secret")
export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY

exec mlflow server --app-name basic-auth --x-frame-options DENY
