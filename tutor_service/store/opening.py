"""Find and open the store that a tutor's file names. Knows which kinds there are; loads psycopg if it must."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tutor_service import paths
from tutor_service.config import StoreConfig, TutorConfig
from tutor_service.secrets import read_secret
from tutor_service.store.base import Store, StoreError
from tutor_service.store.lmdb_store import AdviceStore

if TYPE_CHECKING:
    from tutor_service.store.postgres import PostgresStore


def folder_of(tutor: TutorConfig) -> Path:
    """Return the folder of a tutor's answers on its gateway's node; of a shared store, the copy."""
    if tutor.store.location is None or tutor.store.is_shared:
        return paths.advice_dir() / tutor.name
    return Path(tutor.store.location).expanduser()


def open_database(store: StoreConfig) -> PostgresStore:
    """Return a shared store; nothing is contacted yet.

    Raises:
        UserError: psycopg is not installed, the password cannot be read, or the address is none.
    """
    assert store.location is not None
    try:
        from tutor_service.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreError(
            f"store.location = '{store.location}' needs psycopg ({error}): run `.venv/bin/python -m uv pip install -e "
            "'.[cluster]'` on the gateway's node."
        ) from None
    return PostgresStore(
        store.location, read_secret("password of the advice store", store.password_env, store.password_file)
    )


def open_named(tutor: TutorConfig, readonly: bool) -> Store:
    """Return the store of a tutor for a command: the shared one where it has one.

    Raises:
        UserError: It cannot be opened.
    """
    return open_database(tutor.store) if tutor.store.is_shared else AdviceStore(folder_of(tutor), readonly=readonly)
