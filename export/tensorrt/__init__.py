"""Engines compiled by TensorRT, for Triton's tensorrt backend (.plan), or by TensorRT for RTX (.rtx), with no GPU at hand.

Public: :func:`export.tensorrt.bundles.compile_bundle`, :func:`export.tensorrt.compiler.build_engine`,
:class:`export.tensorrt.settings.BuildSettings`, :func:`export.tensorrt.stamps.check_stamp`.
"""
