"""The edge over HTTP: one bundle behind the KServe v2 protocol, plain JSON and a page, for a machine without Triton.

    python -m client.server --bundle bundles/NAME --port 8000

In a program: ``running.serve(model.EdgeModel(bundle))``, or ``app.create_app`` for an ASGI server of one's own. Needs the extra
``serve`` (Starlette and uvicorn), so this file imports nothing, and nothing else of the client imports this package.
"""
