#!/usr/bin/env bash
# A PostgreSQL server of one's own for MLflow, in a folder: on loopback only, with a password, without root.
# Beside MLflow's databases it has one for the advice that tutors share: user and database are called advice.
#
#   deploy/mlflow/postgres.sh start|stop|kill|status DIR
#
# DIR/secrets/postgres_password and advice_password are used, and made where they are missing. POSTGRES_PORT (default 5433) sets the port.
# Run as root, it hands DIR/postgres to the account that POSTGRES_ACCOUNT names (default: postgres), since PostgreSQL
# refuses to run as root. `kill` is SIGKILL to the whole server, for drills; `start` recovers from it.
set -euo pipefail
umask 077
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
action=${1:?usage: postgres.sh start|stop|kill|status DIR}
state=${2:?usage: postgres.sh start|stop|kill|status DIR}
port=${POSTGRES_PORT:-5433}
account=${POSTGRES_ACCOUNT:-postgres}
[[ -d $state ]] || { mkdir -p "$state" && chmod 711 "$state"; }
state=$(cd "$state" && pwd)
data=$state/postgres/data

fail() { echo "postgres.sh: $*" >&2; exit 1; }

bin=$(pg_config --bindir 2>/dev/null || true)
if [[ ! -x $bin/initdb ]]; then
    bin=$(dirname "$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)" 2>/dev/null)
fi
[[ -x $bin/initdb ]] || fail "PostgreSQL's server is not installed (Debian: apt-get install postgresql)."

as_owner() {
    if [[ $EUID -eq 0 ]]; then
        (cd / && exec setpriv --reuid "$account" --regid "$account" --init-groups "$@")
    else
        "$@"
    fi
}

running() { as_owner "$bin/pg_ctl" --pgdata "$data" status >/dev/null 2>&1; }

create() {
    mkdir -p "$state/postgres"
    chmod 700 "$state/postgres"
    cp "$state/secrets/postgres_password" "$state/postgres/password"
    if [[ $EUID -eq 0 ]]; then
        id "$account" >/dev/null 2>&1 || fail "there is no account '$account'; set POSTGRES_ACCOUNT."
        chown -R "$account" "$state/postgres"
        # The owner has to reach the folder; its parents stay closed to reading.
        as_owner test -x "$state/postgres" || fail "account '$account' cannot enter $state: chmod o+x its parent folders."
    fi
    as_owner "$bin/initdb" --pgdata "$data" --username mlflow --pwfile "$state/postgres/password" \
        --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8 >"$state/postgres-initdb.log" ||
        fail "initdb failed; see $state/postgres-initdb.log"
    as_owner tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = scram-sha-256
CONF
}

ask() { "$bin/psql" -h 127.0.0.1 -p "$port" -U mlflow -d postgres -XtA -v ON_ERROR_STOP=1; }

known() { [[ $(ask <<<"select 1 from $1") == 1 ]]; }

start() {
    "$here/secrets.sh" "$state/secrets"
    as_owner test -s "$data/PG_VERSION" || create
    running || as_owner "$bin/pg_ctl" --pgdata "$data" --options "-p $port" --log "$state/postgres/log" \
        --timeout 60 --wait start >/dev/null || fail "it did not start; the end of its log: $(as_owner tail -n 5 "$state/postgres/log")"
    export PGPASSWORD
    PGPASSWORD=$(<"$state/secrets/postgres_password")
    for name in mlflow mlflow_auth; do
        known "pg_database where datname = '$name'" || "$bin/createdb" -h 127.0.0.1 -p "$port" -U mlflow "$name"
    done
    # The password goes in by standard input: arguments are seen by everybody on the machine.
    known "pg_roles where rolname = 'advice'" ||
        ask <<<"create role advice login password '$(<"$state/secrets/advice_password")'" >/dev/null
    known "pg_database where datname = 'advice'" || ask <<<"create database advice owner advice" >/dev/null
    echo "PostgreSQL runs on 127.0.0.1:$port, data in $data"
}

case $action in
    start) start ;;
    stop) running && as_owner "$bin/pg_ctl" --pgdata "$data" --mode fast --timeout 60 --wait stop >/dev/null ;;
    kill)
        leader=$(as_owner head -n 1 "$data/postmaster.pid" 2>/dev/null) || fail "it does not run."
        mapfile -t processes < <(pgrep --parent "$leader")
        as_owner kill -KILL "$leader"
        as_owner kill -KILL "${processes[@]}" 2>/dev/null || true # those of closed connections are gone already
        # A start before the last of them is gone would take the server for running.
        for process in "$leader" "${processes[@]}"; do
            for _ in {1..100}; do
                as_owner kill -0 "$process" 2>/dev/null || break
                sleep 0.1
            done
        done
        ;;
    status)
        running || { echo "stopped"; exit 3; }
        echo "running on 127.0.0.1:$port"
        ;;
    *) fail "unknown action '$action'; valid: start, stop, kill, status" ;;
esac
