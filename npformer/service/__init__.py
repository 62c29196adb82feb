"""A model as a service: HTTP with Starlette and Uvicorn, the extra `serve`."""
