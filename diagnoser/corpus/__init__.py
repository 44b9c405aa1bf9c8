"""The training corpus: small real trainings, clean and faulty, recorded by the probe.

Data flow: :mod:`text` (the Python standard library's own words) -> :mod:`tasks` (batches) and
:mod:`models` (small transformers of the :mod:`families`) -> :mod:`training` (a plain loop, fixed
by a :mod:`recipe`) -> :mod:`plan` (which runs; :mod:`holdout` says which never) -> :mod:`execute`
(a run becomes a trace) -> :mod:`build` (all of them, in parallel, resumable) -> :mod:`manifest`
(what was built).

Seeds below :data:`FIRST_UNSEEN_SEED` belong to the corpus. The demo and every evaluation on
"seeds that trained nothing" start at it; the final hold-out's own start at
:data:`FIRST_FINAL_SEED`.
"""

from __future__ import annotations

FIRST_UNSEEN_SEED = 1_000_000
FIRST_FINAL_SEED = 2_000_000


class CorpusError(RuntimeError):
    """The corpus cannot be built or read; the message says what to do."""
