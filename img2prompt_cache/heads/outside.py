"""The head of a blend's member that another program fitted: a table of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets


class Outside(Head):
    """Hand on predictions of another program, which stand in the place of features.

    It is no head that `make_head` makes: only a blend has one. Which row of its table an image has is known
    by its imgId, so whoever predicts looks the rows up with `find`, and gives them beside the features.
    """

    name = "outside"

    @classmethod
    def of(cls, ids: Sequence[str], vectors: Targets) -> Self:
        """Make one of a table: names, and predictions of shape (n, t)."""
        found = cls()
        found.n_features_in_ = vectors.shape[1]
        return found._keep(list(ids), vectors.astype(np.float16))

    def _keep(self, ids: list[str], vectors: NDArray[np.float16]) -> Self:
        self.ids_, self.vectors_ = ids, vectors
        self.place_ = {name: row for row, name in enumerate(ids)}
        return self

    def missing(self, ids: Sequence[str]) -> list[str]:
        """List those of some names for which it has no prediction."""
        return [name for name in ids if name not in self.place_]

    def find(self, ids: Sequence[str]) -> Targets:
        """Give the predictions for some names, all of which it has: float32, shape (n, t)."""
        return self.vectors_[[self.place_[name] for name in ids]].astype(np.float32)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
    ) -> None:
        raise Img2PromptError("predictions of another program cannot be fitted again")

    def _predict(self, X: Features) -> Targets:
        return unit(X)

    def state(self) -> State:
        """Give `vectors` (n, t), and the names: `text`, in UTF-8, and `stops` (n,), where each ends."""
        names = [name.encode("utf-8", "surrogatepass") for name in self.ids_]
        return {
            "vectors": self.vectors_,
            "text": np.frombuffer(b"".join(names), np.uint8),
            "stops": np.cumsum([len(name) for name in names], dtype=np.int64),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        vectors = checks.saved_array(state, "vectors", None, None).astype(np.float16)
        stops = checks.saved_array(state, "stops", len(vectors)).astype(np.int64)
        text = checks.saved_array(state, "text", None).astype(np.uint8).tobytes()
        starts = np.concatenate([[0], stops[:-1]]) if len(stops) else stops
        if (stops < starts).any() or (len(stops) and (stops[-1] != len(text) or stops[0] < 0)):
            raise Img2PromptError("the saved head's 'stops' do not fit its 'text'; fit it again")
        names = [text[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        self.n_features_in_ = vectors.shape[1]
        return self._keep([name.decode("utf-8", "surrogatepass") for name in names], vectors)
