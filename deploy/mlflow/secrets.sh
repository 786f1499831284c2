#!/usr/bin/env bash
# Makes the secrets of the MLflow server and of a store of advice beside it, once: random, one file each, in a folder that its owner alone may enter.
# The files themselves can be read by others, for they are mounted one by one into containers, whose user is another.
#
#   deploy/mlflow/secrets.sh DIR
set -euo pipefail
umask 077
dir=${1:?usage: secrets.sh DIR}
mkdir -p "$dir"
chmod 700 "$dir"
for name in postgres_password admin_password writer_password flask_secret advice_password; do
    if [[ ! -s $dir/$name ]]; then
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$dir/$name.new"
        mv "$dir/$name.new" "$dir/$name"
    fi
    chmod 444 "$dir/$name"
done
