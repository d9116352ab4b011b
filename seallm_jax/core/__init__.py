"""Typed configuration, mesh, sharding rules, vocabulary sizes, paths and manifests; imports nothing of ours."""
