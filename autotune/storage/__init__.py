"""Where the trials of a study are kept: an Optuna journal file or a database."""

from autotune.storage.open_store import can_be_written, default_location, open_store
from autotune.storage.record import TrialRecord
from autotune.storage.store import Store, StudyHeader

__all__ = ["Store", "StudyHeader", "TrialRecord", "can_be_written", "default_location", "open_store"]
