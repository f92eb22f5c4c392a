"""The one-file recommender: text in, item ids and scores out, as one ONNX graph with its own tokenizer.

For a box that has ONNX Runtime and nothing else of ours: no bundle, no tokenizer.json, no catalogue. It ranks by the text signal
and the prior alone, one text at a time, with no filters, no rules and no reasons; ``python -m export onefile`` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidBundle, InvalidInput, MissingDependency, Unavailable
from bertrec.tensors import ITEM_INDEX, SCORE, TEXT, ModelSpec, TensorSpec
from bertrec.text import clean

try:
    import onnxruntime
except ImportError:
    onnxruntime = None
try:
    import onnxruntime_extensions
except ImportError:
    onnxruntime_extensions = None

EXPORT_COMMAND = "python -m export onefile --bundle bundles/NAME --output FILE.onnx"
BUNDLE_KEY, ENGINE_KEY, MAX_TOKENS_KEY = "bertrec.bundle", "bertrec.engine", "bertrec.max_tokens"
"""The file's metadata: the fingerprint of the bundle and the encoder engine that it was made from, and how much it reads."""

ONEFILE = ModelSpec(
    "onefile",
    (TensorSpec(TEXT.name, TEXT.dtype, (1,)),),
    (
        TensorSpec(ITEM_INDEX.name, ITEM_INDEX.dtype, ("candidates",)),
        TensorSpec("item_id", "BYTES", ("candidates",)),
        TensorSpec(SCORE.name, SCORE.dtype, ("candidates",)),
    ),
)
"""One text → the best candidates, best first, ties by item index. No dimension is a batch: Triton's max_batch_size is 0."""


@dataclass(frozen=True)
class ScoredItem:
    """One recommended item. ``index`` is its place in the catalogue of the bundle that the file was made from."""

    item_id: str
    score: float
    index: int


class OneFileRecommender:
    """Answers from one ONNX file, in this process, on the CPU. Thread-safe, as ONNX Runtime sessions are.

    bundle, engine: the fingerprint (12 hex digits) of the bundle and the encoder engine that the file was made from. max_k: the
    largest ``k``.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        """Load ``path`` with ``threads`` intra-op threads (0: one per core).

        Raises MissingDependency without onnxruntime or onnxruntime-extensions, InvalidBundle where the file is missing, does not
        load or is no one-file recommender.
        """
        self._path = Path(path)
        self._session = _session(self._path, threads)
        self._outputs = [tensor.name for tensor in ONEFILE.outputs]
        given = [tensor.name for tensor in self._session.get_inputs()], [tensor.name for tensor in self._session.get_outputs()]
        if given != ([TEXT.name], self._outputs):
            raise InvalidBundle(
                f"{path} has the inputs {given[0]} and outputs {given[1]}; a one-file recommender has {[TEXT.name]} and "
                f"{self._outputs}. It is written by: {EXPORT_COMMAND}"
            )
        said = self._session.get_modelmeta().custom_metadata_map
        self.bundle: str = said.get(BUNDLE_KEY, "")
        self.engine: str = said.get(ENGINE_KEY, "")
        self.max_k = int(self._session.get_outputs()[0].shape[0])

    def recommend(self, text: str, k: int = 10) -> tuple[ScoredItem, ...]:
        """The ``k`` best items for a text, best first; all of a catalogue that is smaller.

        Raises InvalidInput for a text with nothing to read and for ``k`` outside of 1 to ``max_k``, Unavailable where onnxruntime
        fails.
        """
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.max_k:
            raise InvalidInput(f"k is {k!r}; accepted is 1 to {self.max_k}")
        try:
            index, item_id, score = self._session.run(self._outputs, {TEXT.name: [clean(text)]})  # each (candidates,)
        except InvalidInput:
            raise
        except Exception as error:  # onnxruntime raises a dozen classes of its own, none with a common base
            raise Unavailable(f"{self._path} failed in onnxruntime {onnxruntime.__version__}: {error}") from error
        best = zip(item_id[:k].tolist(), score[:k].tolist(), index[:k].tolist(), strict=True)
        return tuple(ScoredItem(*item) for item in best)


def _session(path: Path, threads: int) -> Any:  # noqa: ANN401  # onnxruntime need not be installed
    """A session that knows the operators of onnxruntime-extensions."""
    for package, module in (("onnxruntime", onnxruntime), ("onnxruntime-extensions", onnxruntime_extensions)):
        if module is None:
            raise MissingDependency(package, "onefile")
    if not path.is_file():
        raise InvalidBundle(f"{path} is missing; a one-file recommender is written by: {EXPORT_COMMAND}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, and said there
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see above
        raise InvalidBundle(f"{path} does not load in onnxruntime {onnxruntime.__version__}: {error}") from error
