"""Training: from a data set and a pre-trained BERT to a run folder that can be exported.

Public: :func:`train.sources.load_dataset`, :func:`train.fit.fit`, :func:`train.evaluate.evaluate`.
"""

import os

# Before torch is imported: its threads sleep while they wait instead of spinning, so that a machine on which something else wants
# a core is not held up by threads that do nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
