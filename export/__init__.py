"""Export: from a training run to a bundle of engines, each measured against the reference.

Public: :func:`export.build.build_bundle`.
"""
