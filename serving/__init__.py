"""Serving: a bundle becomes a Triton repository, and a real tritonserver runs it on this machine, with no container.

Public: :func:`serving.assemble.assemble`, :class:`serving.triton.TritonServer`.
"""
