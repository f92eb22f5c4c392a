"""Training: from a data set and a pre-trained BERT to a run folder that can be exported.

Public: :func:`train.sources.load_dataset`, :func:`train.fit.fit`, :func:`train.evaluate.evaluate`.
"""
