"""Keep the advice that a tutor has given for good: a distinct state is evaluated once, ever.

Owns keys, the form of a stored answer, and the database on disk. It must not know how an answer is computed, nor when
a student may use one again: the reuse rule of the paper lives in the student.
"""

from tutor_service.store.answer import Context, Entry
from tutor_service.store.base import Store, StoreError, StoreStats, StoreVerification
from tutor_service.store.keys import advice_key
from tutor_service.store.lmdb_store import AdviceStore

__all__ = ["AdviceStore", "Context", "Entry", "Store", "StoreError", "StoreStats", "StoreVerification", "advice_key"]
